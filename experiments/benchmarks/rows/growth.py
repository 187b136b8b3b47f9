"""How time grows with depth, width, batch, length and trials: ours alone, each size a contestant."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from experiments.benchmarks import data, networks, ours
from experiments.benchmarks.architecture import Conv, Dense, Layers, Mean, Relu
from experiments.benchmarks.rows.row import Makers, Row, Unit
from experiments.benchmarks.rows.sweeps import mlp
from experiments.benchmarks.work import Contestant, Work
from jaxnets import models


def plain(depth: int, width: int) -> Work:
    """Return equal convolutions on two batches of 16 × 16."""
    layers: Layers = (Conv(width, 3, padding=1), Relu()) * depth
    return Work((*layers, Mean(), Dense(10)), data.noise(64, 16, 16, 3), data.classes(64), 32)


def deep(depth: int) -> Work:
    """Return it by depth."""
    return plain(depth, 32)


def wide(width: int) -> Work:
    """Return it by width."""
    return plain(3, width)


def lenet(batch: int) -> Work:
    """Return LeNet-5 on two batches of a size."""
    return Work(networks.lenet(), data.noise(2 * batch, 28, 28, 1), data.classes(2 * batch), batch, net=models.lenet5)


def lstm(length: int) -> Work:
    """Return an LSTM on two batches of sequences of a length."""
    x = data.noise(64, length, 64)
    return Work(networks.sequence("lstm", 128), x, data.noise(64, length, 128), 32, "sgd")


def trials(count: int) -> Contestant:
    """Return a sweep of so many MLPs."""
    return ours.sweep(mlp(), np.logspace(-4, -2, count))


def sizes(make: Callable[[int], Contestant], values: Sequence[int], _: Sequence[str]) -> Makers:
    """Return a contestant for each size, named by it."""
    return {str(value): partial(make, value) for value in values}


def _step(work: Callable[[int], Work], size: int) -> Contestant:
    return ours.train(work(size), scan=True)


def _row(what: str, title: str, make: Callable[[int], Contestant], *values: int, unit: Unit = "step") -> Row:
    return Row(f"growth-{what}", title, unit, partial(sizes, make, values), quick=0, full=5, growth=what)


ROWS = (
    _row("depth", "Convolutions of 32 channels", partial(_step, deep), 1, 2, 4, 8, 16),
    _row("width", "Three convolutions", partial(_step, wide), 8, 16, 32, 64, 128),
    _row("batch", "LeNet-5", partial(_step, lenet), 16, 32, 64, 128, 256, 512),
    _row("length", "LSTM, B32 D64 H128", partial(_step, lstm), 32, 64, 128, 256, 512),
    _row("trials", "Sweep of MLPs, 4 epochs", trials, 8, 16, 32, 64, 128, unit="sweep"),
)
