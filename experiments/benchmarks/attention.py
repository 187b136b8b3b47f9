"""Memory and time of attention's gradient on long texts, and compile time of deep language models.

    python -m experiments.benchmarks.attention [--time 8192] [--long 32768] [--rounds 3]

Three tables. First the gradient of causal attention of 8,192 steps, 8 heads of 64: the temporary memory that XLA
reports for `jn.ops.attention`, the plain formula in JAX and `jax.nn.dot_product_attention`, and medians of interleaved
rounds beside PyTorch's, with a 95 % interval of the ratio to ours. Then ours over 32,768 steps, alone in a process,
with the largest resident memory of that process; the goal is 2 GiB. Then the seconds of tracing, lowering and compiling
a training step of a GPT of 4 and 12 blocks, each in a new process, unrolled and with `scan=True`; the goal with
`scan=True` is at most 1.3 times as long for 12 blocks as for 4. The compilation cache is off. The plain formula needs
about 10 GiB.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.benchmarks import data
from experiments.benchmarks.timing import interleaved, ratio, timed

HEADS, WIDTH = 8, 64
OURS, TORCH = "jaxnets", "PyTorch"
BLOCKS = (4, 12)
RESIDENT, DEEPER = 2 * 2**30, 1.3  # goals: bytes, and compile time of 12 blocks over that of 4


def plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Return causal attention by its formula."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / WIDTH**0.5
    scores = jnp.where(jnp.tri(scores.shape[-1], dtype=bool)[None, None], scores, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


WAYS: dict[str, Callable[..., jax.Array]] = {
    OURS: lambda q, k, v: jn.ops.attention(q, k, v, causal=True),
    "plain formula": plain,
    "jax.nn": lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True),
}


def gradient(way: str, length: int) -> Any:
    """Return the compiled gradient of the mean square of attention's outputs, by queries, keys and values."""
    x = jax.ShapeDtypeStruct((1, length, HEADS, WIDTH), jnp.float32)
    return jax.jit(jax.grad(lambda *x: jnp.mean(WAYS[way](*x) ** 2), (0, 1, 2))).lower(x, x, x).compile()


def inputs(length: int) -> list[np.ndarray]:
    """Return queries, keys and values."""
    return [*data.noise(3, 1, length, HEADS, WIDTH)]


def contestants(length: int) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Return functions that compute the gradients, and the bytes of temporary memory of those in JAX."""
    compiled = {way: gradient(way, length) for way in WAYS}
    x = [jnp.asarray(each) for each in inputs(length)]
    turns: dict[str, Callable[[], Any]] = {
        way: lambda each=each: jax.block_until_ready(each(*x)) for way, each in compiled.items()
    }
    if importlib.util.find_spec("torch"):
        turns[TORCH] = _in_pytorch(length)
    return turns, {way: each.memory_analysis().temp_size_in_bytes for way, each in compiled.items()}


def _in_pytorch(length: int) -> Callable[[], Any]:
    import torch  # pyright: ignore[reportMissingImports]

    # (1, heads, time, width)
    x = [torch.from_numpy(each).transpose(1, 2).requires_grad_() for each in inputs(length)]
    q, k, v = x
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda: torch.autograd.grad((attend(q, k, v, is_causal=True) ** 2).mean(), x)


def resident(length: int) -> int:
    """Return the largest resident memory of this process, in bytes, after our gradient."""
    jax.block_until_ready(gradient(OURS, length)(*map(jnp.asarray, inputs(length))))
    status = Path("/proc/self/status")
    if status.is_file():
        # Not `ru_maxrss`: on Linux a new process begins with the largest size of the one that started it.
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(peak)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def compile_seconds(blocks: int, *, scan: bool) -> list[float]:
    """Return the seconds of tracing, lowering and compiling a training step."""
    net = jn.models.gpt2(vocabulary=27, length=128, layers=blocks, heads=6, features=192, scan=scan)
    objective = jn.objective(jn.losses.sequence(jn.losses.cross_entropy))
    options, adam, key = jn.train.Options(weighted=False), optax.adam(1e-3), jax.random.key(0)
    one = jn.train.make_train_step(net, objective, adam, options)
    x = jax.ShapeDtypeStruct((32, 128), jnp.int32)
    state = jax.eval_shape(lambda key, x: jn.train.start(net, adam, x, options, key=key), key, x)
    batch = jn.train.Batch(x, x, jax.ShapeDtypeStruct((32,), jnp.float32))
    times = [time.perf_counter()]
    traced = jax.jit(lambda state, batch: one(state, batch)[0], donate_argnums=0).trace(state, batch)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    lowered.compile()
    return np.diff([*times, time.perf_counter()]).tolist()


def main(length: int, long: int, rounds: int, sizes: Sequence[int]) -> None:
    """Measure and print."""
    turns, memory = contestants(length)
    took = interleaved({name: timed(turn) for name, turn in turns.items()}, rounds=rounds)
    print(f"gradient of causal attention, {length:,} steps, {HEADS} heads of {WIDTH}", flush=True)
    for name, seconds in took.items():
        middle, low, high = ratio(seconds, took[OURS])
        held = f"{memory[name] / 2**20:>10,.0f} MiB" if name in memory else f"{'':>14}"
        print(f"{name:<24}{held}{np.median(seconds):>9.2f} s, {middle:.2f} times ours ({low:.2f} to {high:.2f})")
    found = _child("--resident", str(long))
    state = _reached(found <= RESIDENT)
    print(f"{long:,} steps: {found / 2**20:,.0f} MiB resident at most; goal {RESIDENT / 2**20:,.0f} MiB {state}")
    print(f"{'compile of a step':<24}{'trace s':>10}{'lower s':>10}{'compile s':>10}{'sum s':>10}", flush=True)
    for scan in (False, True):
        sums = []
        for blocks in sizes:
            parts = np.median([_child("--compile", str(blocks), str(int(scan))) for _ in range(rounds)], 0)
            sums.append(parts.sum())
            name = f"GPT, {blocks} blocks{', scan=True' if scan else ''}"
            print(f"{name:<24}" + "".join(f"{part:>10.2f}" for part in (*parts, sums[-1])), flush=True)
        goal = f"; goal {DEEPER:g} {_reached(sums[1] / sums[0] <= DEEPER)}" if scan else ""
        print(f"{sizes[1]} blocks over {sizes[0]}: {sums[1] / sums[0]:.2f}{goal}")


def _child(*request: str) -> Any:
    command = [sys.executable, "-m", "experiments.benchmarks.attention", *request]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _reached(yes: bool) -> str:
    return "reached" if yes else "not reached"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=int, default=8192, help="steps of the comparison; %(default)s")
    parser.add_argument("--long", type=int, default=32768, help="steps of ours alone; %(default)s")
    parser.add_argument("--blocks", type=int, nargs=2, default=BLOCKS, help="of the compiled GPTs; %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="how many times each is measured; %(default)s")
    parser.add_argument("--resident", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--compile", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.resident is not None:
        print(json.dumps(resident(asked.resident)))
    elif asked.compile is not None:
        print(json.dumps(compile_seconds(asked.compile[0], scan=bool(asked.compile[1]))))
    else:
        main(asked.time, asked.long, asked.rounds, asked.blocks)
