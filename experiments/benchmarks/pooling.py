"""Pooling with its gradient, in a plain step and in a loop as in training, compared with other methods and PyTorch.

    python -m experiments.benchmarks.pooling [NAME ...] [--rounds 9]

Milliseconds for output and gradient by the input together, given the gradient by the output. "slices" takes the maximum
or sum of a slice for each element of the window, one axis after another; PyTorch computes eagerly, in both its layouts.
"""

import argparse
import functools
import importlib.util
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.timing import interleaved, timed
from jaxnets.ops.pool import avg_pool, max_pool

# kind, batch, size, channels, window, stride, padding
SHAPES = {
    "lenet": ("max", 64, 28, 6, 2, 2, 0), "cnn": ("max", 64, 28, 32, 2, 2, 0),
    "alexnet": ("max", 32, 32, 64, 3, 2, 0), "resnet-stem": ("max", 8, 112, 64, 3, 2, 1),
    "inception": ("max", 64, 16, 64, 3, 1, 1),
    "mean-cnn": ("avg", 64, 28, 32, 2, 2, 0), "mean-alexnet": ("avg", 32, 32, 64, 3, 2, 0),
    "mean-inception": ("avg", 64, 16, 64, 3, 1, 1),
}  # fmt: skip
STEPS = 10  # per loop


def main(names: list[str], rounds: int = 9) -> None:
    """Time and print."""
    for name in names or SHAPES:
        kind, batch, size, channels, window, stride, padding = SHAPES[name]
        settings = ((window,) * 2, (stride,) * 2, ((padding,) * 2,) * 2)
        draw = np.random.default_rng(0).standard_normal
        x, out = draw((batch, size, size, channels)).astype(np.float32), (size + 2 * padding - window) // stride + 1
        dy = draw((batch, out, out, channels)).astype(np.float32)
        ways: dict[str, Callable[[jax.Array], jax.Array]] = {
            "ours": (lambda x, s=settings: max_pool(x, *s, (1, 1)))
            if kind == "max"
            else (lambda x, s=settings: avg_pool(x, *s, (1, 1), s[2])),
            "slices": functools.partial(_slices, kind, settings),
            "reduce_window": functools.partial(_reduce_window, kind, settings),
        }
        contestants: dict[str, Callable[[], float]] = {}
        for way, pool in ways.items():
            contestants |= {f"{way}, {where}": timed(turn) for where, turn in _turns(pool, x, dy).items()}
        took = interleaved(contestants, rounds=rounds)
        took = {label: seconds / (STEPS if label.endswith("loop") else 1) for label, seconds in took.items()}
        if importlib.util.find_spec("torch") is not None:
            took |= interleaved(_torch(kind, x, dy, window, stride, padding), rounds=rounds)
        print(f"\n{name}: {kind}, {batch}×{size}²×{channels}, {window}²/{stride}, padding {padding}")
        for label, seconds in took.items():
            print(f"  {label:<24}{1000 * np.median(seconds):8.2f} ms")


def _turns(pool: Callable[[jax.Array], jax.Array], x: np.ndarray, dy: np.ndarray) -> dict[str, Callable[[], Any]]:
    def both(x: Any, dy: Any) -> tuple[jax.Array, jax.Array]:
        y, back = jax.vjp(pool, x)
        return y, back(dy)[0]

    def step(_: Any, last: Any) -> Any:
        # Tied to the carry, or XLA would move the computation out of the loop.
        own, cotangent, _ = lax.optimization_barrier((x, dy, last))
        return both(own, cotangent)

    once, loop = jax.jit(both), jax.jit(lambda first: lax.fori_loop(0, STEPS, step, first))
    given = (jnp.asarray(x), jnp.asarray(dy))
    first = once(*given)
    return {"step": lambda: jax.block_until_ready(once(*given)), "loop": lambda: jax.block_until_ready(loop(first))}


def _slices(kind: str, settings: Any, x: jax.Array) -> jax.Array:
    for axis, (window, stride, pair) in enumerate(zip(*settings, strict=True), start=1):
        edges = [pair if k == axis else (0, 0) for k in range(x.ndim)]
        x = jnp.pad(x, edges, constant_values=-np.inf if kind == "max" else 0.0)
        n = (x.shape[axis] - window) // stride
        parts = [lax.slice_in_dim(x, begin, begin + n * stride + 1, stride, axis) for begin in range(window)]
        x = functools.reduce(jnp.maximum if kind == "max" else operator.add, parts)
    return x if kind == "max" else x / np.float32(np.prod(settings[0]))


def _reduce_window(kind: str, settings: Any, x: jax.Array) -> jax.Array:
    window, stride, padding = settings
    grid = ((1, *window, 1), (1, *stride, 1), ((0, 0), *padding, (0, 0)))
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, *grid)
    return lax.reduce_window(x, 0.0, lax.add, *grid) / np.float32(np.prod(window))


def _torch(kind: str, x: np.ndarray, dy: np.ndarray, window: int, stride: int, padding: int) -> dict[str, Any]:
    import torch

    pool = {"max": torch.nn.functional.max_pool2d, "avg": torch.nn.functional.avg_pool2d}[kind]
    contestants = {}
    layouts = {"PyTorch": torch.contiguous_format, "PyTorch, channels last": torch.channels_last}
    for label, layout in layouts.items():
        leaf, g = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=layout) for a in (x, dy))
        leaf.requires_grad_()

        def turn(leaf: Any = leaf, g: Any = g) -> None:
            leaf.grad = None
            pool(leaf, window, stride, padding).backward(g)

        contestants[label] = timed(turn)
    return contestants


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ways of pooling beside each other.")
    parser.add_argument("names", nargs="*", choices=[[], *SHAPES], help="which shapes; all if none is named")
    parser.add_argument("--rounds", type=int, default=9, help="how many turns count")
    arguments = parser.parse_args()
    main(arguments.names, arguments.rounds)
