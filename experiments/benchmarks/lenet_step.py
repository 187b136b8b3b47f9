"""A training step of LeNet-5 on digits, ours beside XLA's own convolution and PyTorch.

`python -m experiments.benchmarks.lenet_step` prints ms a step, compile time apart. Ours and the native form run the
same program, 30 steps in one `lax.scan`; they differ in the formulation of the convolution alone. PyTorch, where it is
installed, runs eagerly with the same layers, batch and optimizer.
"""

import importlib.util
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np
import optax

import jaxnets as jn
from experiments.benchmarks.timing import interleaved, ratio
from jaxnets.ops import conv as ops

STEPS, BATCH = 30, 64


def ours(
    images: np.ndarray, labels: np.ndarray, formulation: Callable | None = None
) -> tuple[Callable[[], float], float]:
    """Return a function that runs the steps and returns the seconds they took, and the seconds to compile it."""
    objective = jn.objective(jn.losses.cross_entropy)
    program = jn.train.program(jn.models.lenet5(), objective, optax.adam(1e-3), (images, labels), epochs=1)
    segment = jax.jit(lambda program, run: program.segment(run))
    run = jax.block_until_ready(program.start(jax.random.key(0)))
    with mock.patch.object(ops, "conv", formulation or ops.conv):
        began = time.perf_counter()
        compiled = segment.lower(program, run).compile()
        compile_time = time.perf_counter() - began

    def seconds() -> float:
        began = time.perf_counter()
        jax.block_until_ready(compiled(program, run))
        return time.perf_counter() - began

    return seconds, compile_time


def pytorch(images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """Return the same for PyTorch."""
    import torch
    from torch import nn

    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long()

    def seconds() -> float:
        began = time.perf_counter()
        order = torch.randperm(len(x))
        for step in range(STEPS):
            rows = order[step * BATCH : (step + 1) * BATCH]
            adam.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            adam.step()
        return time.perf_counter() - began

    return seconds


def main(rounds: int = 15) -> None:
    """Measure and print."""
    images, labels = jn.data.mnist5k()
    chosen = np.random.default_rng(0).permutation(len(labels))[: STEPS * BATCH]
    digits = images[chosen], labels[chosen]
    contestants: dict[str, Any] = {}
    for name, formulation in (("jaxnets", None), ("XLA's convolution", ops.conv_native)):
        contestants[name], compile_time = ours(*digits, formulation)
        print(f"{name:18s} compiled in {compile_time:.1f} s")
    if importlib.util.find_spec("torch"):
        contestants["PyTorch, eager"] = pytorch(*digits)
    took = interleaved(contestants, rounds=rounds)
    for name, values in took.items():
        middle, low, high = ratio(values, took["jaxnets"])
        step = 1000 * np.median(values) / STEPS
        print(f"{name:18s} {step:6.2f} ms a step, {middle:.2f} times ours ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
