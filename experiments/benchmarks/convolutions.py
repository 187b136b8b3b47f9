"""Each formulation of a convolution and its gradients, in a loop as in training: the table of `ops.conv.dispatch`.

    python -m experiments.benchmarks.convolutions [NAME ...] [--rounds 5]

Milliseconds for each map and form, the chosen one starred; PyTorch's forward pass, and both passes with all gradients,
for comparison where it is installed.
"""

import argparse
import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from experiments.benchmarks.timing import interleaved, timed
from jaxnets.ops.conv.dispatch import Form, applies, choose, formulation
from jaxnets.ops.conv.primitives import MAPS
from jaxnets.ops.geometry import Geometry

# batch, size, channels, features, window, stride, padding, and optionally groups
SHAPES = {
    "lenet1": (64, 28, 1, 6, 5, 1, 2), "lenet2": (64, 14, 6, 16, 5, 1, 0),
    "cnn1": (64, 28, 1, 32, 3, 1, 1), "cnn2": (64, 14, 32, 64, 3, 1, 1),
    "resnet20-16": (64, 32, 16, 16, 3, 1, 1), "resnet20-16-32": (64, 32, 16, 32, 3, 2, 1),
    "resnet20-32": (64, 16, 32, 32, 3, 1, 1), "resnet20-64": (64, 8, 64, 64, 3, 1, 1),
    "vgg-3-64": (32, 32, 3, 64, 3, 1, 1), "vgg-64-128": (32, 16, 64, 128, 3, 1, 1),
    "vgg-256": (32, 8, 256, 256, 3, 1, 1),
    "vgg-512": (32, 4, 512, 512, 3, 1, 1), "vgg-512-2": (32, 2, 512, 512, 3, 1, 1),
    "resnet50-stem": (16, 64, 3, 64, 7, 2, 3), "resnet50-64": (16, 16, 64, 64, 3, 1, 1),
    "resnet50-64-2": (2, 16, 64, 64, 3, 1, 1), "resnet50-512": (16, 2, 512, 512, 3, 1, 1),
    "resnet50-128-2": (16, 16, 128, 128, 3, 2, 1), "autoencoder-32-64": (64, 14, 32, 64, 3, 2, 1),
    "resnext-128": (8, 16, 128, 128, 3, 1, 1, 32), "resnext-512": (8, 4, 512, 512, 3, 1, 1, 32),
    "alexnet-groups": (16, 13, 96, 256, 5, 1, 2, 2), "convnext-96": (8, 14, 96, 96, 7, 1, 3, 96),
}  # fmt: skip
FORMS: tuple[Form, ...] = ("native", "eigen", "onednn", "patches", "shifts", "depthwise", "groups")
STEPS = 10  # per loop


def main(names: list[str], rounds: int = 5) -> None:
    """Time and print."""
    for name in names or SHAPES:
        batch, size, channels, features, window, stride, padding, *groups = SHAPES[name]
        pairs = ((padding, padding),) * 2
        geometry = Geometry((size,) * 2, (window,) * 2, channels, features, (stride,) * 2, pairs, (1, 1), *groups)
        draw = np.random.default_rng(0).standard_normal
        x, kernel, dy = (
            np.asarray(draw(shape), np.float32)
            for shape in ((batch, size, size, channels), geometry.kernel, (batch, *geometry.out, features))
        )
        given = {"forward": (x, kernel), "to_input": (dy, kernel), "to_kernel": (x, dy)}
        contestants: dict[str, Callable[[], float]] = {}
        for map_, form in itertools.product(MAPS, FORMS):
            if not applies(form, map_, geometry):
                continue
            label = f"{map_} {form}{' *' if choose(map_, geometry, library=True) == form else ''}"
            contestants[label] = timed(
                looped(formulation(map_, geometry, batch, np.float32, form, library=True), *given[map_])
            )
        took = {label: seconds / STEPS for label, seconds in interleaved(contestants, rounds=rounds).items()}
        if importlib.util.find_spec("torch") is not None:
            took |= interleaved(_torch(x, kernel, dy, geometry), rounds=rounds)
        work = 2 * geometry.products(batch) / 1e9
        kind = f"{window}²/{stride}" + (f" in {geometry.groups} groups" if groups else "")
        print(f"\n{name}: {batch}×{size}²×{channels} → {features}, {kind}; {work:.3f} GFLOP a pass")
        for label, seconds in took.items():
            print(f"  {label:<22}{1000 * np.median(seconds):8.2f} ms")


def looped(compute: Callable[..., jax.Array], *operands: np.ndarray) -> Callable[[], Any]:
    """Return a function that computes the same several times in one loop, without reuse."""

    def step(_: Any, last: jax.Array) -> jax.Array:
        # Tied to the carry, or XLA would move the computation out of the loop.
        *fresh, _ = lax.optimization_barrier((*operands, last))
        return compute(*fresh)

    loop = jax.jit(lambda first: lax.fori_loop(0, STEPS, step, first))
    first = jax.jit(compute)(*operands)
    return lambda: jax.block_until_ready(loop(first))


def _torch(x: np.ndarray, kernel: np.ndarray, dy: np.ndarray, geometry: Geometry) -> dict[str, Any]:
    import torch

    tensors = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())]
    cotangent = torch.from_numpy(dy.transpose(0, 3, 1, 2).copy())
    leaves = [each.requires_grad_() for each in tensors]

    def forward() -> Any:
        g = geometry
        return torch.nn.functional.conv2d(*leaves, stride=g.stride, padding=g.padding[0][0], groups=g.groups)

    def without() -> None:
        with torch.no_grad():
            forward()

    return {"PyTorch forward": timed(without), "PyTorch all": timed(lambda: forward().backward(cotangent))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Formulations of convolution beside each other.")
    parser.add_argument("names", nargs="*", choices=[[], *SHAPES], help="which shapes; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="how many turns count")
    arguments = parser.parse_args()
    main(arguments.names, arguments.rounds)
