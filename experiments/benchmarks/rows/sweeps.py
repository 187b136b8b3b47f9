"""Training many networks, a learning rate each: ours by `sweep`, peers on JAX by `vmap` of a step, PyTorch in turn."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np

from experiments.benchmarks import data, networks, ours
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows import training
from experiments.benchmarks.rows.row import ALONE, OURS, Makers, Row
from experiments.benchmarks.work import Work
from jaxnets import models

PEERS_OF_SWEEPS = ("PyTorch", "Flax Linen", "Equinox")


def sweep(trials: int, work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return us and the peers, each with one learning rate per trial."""
    work, rates = cache(work), np.logspace(-4, -2, trials)
    peers = {name: lambda peer=PEERS[name]: peer.call("sweep", work(), rates) for name in names}
    return {OURS: lambda: ours.sweep(work(), rates), **peers}


def beside_one(trials: int, work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return us, one of our networks alone, and the peers."""
    work = cache(work)
    made = sweep(trials, work, names)
    return {OURS: made[OURS], ALONE: lambda: ours.one_by_one(work(), 1), **made}


def mlp() -> Work:
    """Return an MLP on digits for four epochs."""
    return Work(networks.mlp(64), *data.digits(), 32, epochs=4)


def lenet() -> Work:
    """Return LeNet-5 for 20 steps."""
    return Work(networks.lenet(), *data.mnist(1280), 64, net=models.lenet5)


def cnn() -> Work:
    """Return a CNN for 5 steps."""
    return Work(networks.cnn(32, 64), *data.mnist(320), 64, net=models.cnn)


def gpt() -> Work:
    """Return a language model of characters for 2 steps."""
    return training.gpt(64)


def _row(name: str, title: str, trials: int, work: Callable[[], Work], quick: int, full: int) -> Row:
    return Row(name, title, "sweep", partial(sweep, trials, work), PEERS_OF_SWEEPS, quick, full)


ROWS = (
    _row("sweep-mlp", "Sweep of 64 MLPs, 4 epochs", 64, mlp, 1, 5),
    _row("sweep-lenet", "Sweep of 16 LeNets, 20 steps", 16, lenet, 0, 3),
    _row("sweep-cnn", "Sweep of 8 CNNs, 5 steps", 8, cnn, 0, 3),
    Row("sweep-gpt", "Sweep of 8 GPTs, 2 steps", "sweep", partial(beside_one, 8, gpt), PEERS_OF_SWEEPS, 0, 3),
)
