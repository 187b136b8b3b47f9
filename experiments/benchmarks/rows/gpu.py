"""Training on one GPU: single networks, and populations of small ones. Noise, as only its size matters."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from experiments.benchmarks import data, networks, ours
from experiments.benchmarks.architecture import Conv, Dense, Mean, Norm, Relu
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows import training
from experiments.benchmarks.rows.row import LOOPED, OURS, SCANNED, Makers, Row
from experiments.benchmarks.work import Work

ONE_BY_ONE = "jaxnets, one by one"
FEW = 4  # trials that are trained one by one; times are given for a trial


def rows(*, tiny: bool = False) -> tuple[Row, ...]:
    """Return the rows; `tiny` ones are for trying the command out, on any machine."""
    mlps, cnns = ((2,), (2,)) if tiny else ((64, 256, 1024), (8, 16, 32, 64))
    made = (
        Row("mlp-gpu", "MLP, batch 32, epoch of 1,797", "epoch", partial(training.epochs, partial(mlp, 20, tiny)),
            (LOOPED, "PyTorch", "PyTorch, compiled", "PyTorch, CUDA graphs", "Flax Linen")),
        Row("lstm-gpu", "LSTM, B64 T128 D512 H512, gradient", "step", partial(training.steps, partial(lstm, 1, tiny)),
            (SCANNED, "PyTorch", "Flax Linen")),
        Row("lstm-2-gpu", "Two LSTMs, B64 T128 D512 H512, gradient", "step",
            partial(training.steps, partial(lstm, 2, tiny)), (SCANNED, "PyTorch", "Flax Linen")),
        Row("resnet50-gpu", "ResNet-50, 224×224, batch 128, bfloat16, step", "step",
            partial(training.steps, partial(resnet50, tiny)), ("Flax Linen", "PyTorch", "PyTorch, compiled")),
        *(Row(f"population-{trials}-mlps", f"{trials:,} MLPs, 4 epochs, trial", "trial",
              partial(population, trials, partial(mlp, 4, tiny)), ("PyTorch",)) for trials in mlps),
        *(Row(f"population-{trials}-cnns", f"{trials:,} CNNs, 20 steps, trial", "trial",
              partial(population, trials, partial(cnn, tiny)), ("PyTorch",)) for trials in cnns),
    )  # fmt: skip
    return tuple(replace(row, title=f"{row.title} (tiny)" if tiny else row.title, quick=0, full=5, platform="gpu")
                 for row in made)  # fmt: skip


def mlp(epochs: int, tiny: bool) -> Work:
    """Return an MLP on as many vectors as there are digits."""
    examples = 64 if tiny else 1797
    return Work(networks.mlp(64), data.noise(examples, 64), data.classes(examples), 32, epochs=epochs)


def cnn(tiny: bool) -> Work:
    """Return a CNN on 20 batches; tiny, on two."""
    if not tiny:
        return Work(networks.cnn(32, 64), data.noise(1280, 28, 28, 1), data.classes(1280), 64)
    return Work(networks.cnn(2, hidden=2), data.noise(4, 6, 6, 1), data.classes(4), 2)


def lstm(layers: int, tiny: bool) -> Work:
    """Return LSTMs, one after another, trained on four batches by plain gradient descent."""
    batch, length, width = (2, 3, 4) if tiny else (64, 128, 512)
    x = data.noise(4 * batch, length, width)
    return Work(networks.sequence("lstm", width) * layers, x, np.zeros_like(x), batch, "sgd")


def resnet50(tiny: bool) -> Work:
    """Return ResNet-50 as it is trained on a GPU, on four batches; tiny, one convolution."""
    if not tiny:
        return replace(training.resnet50(128, 4, 224), optimizer="momentum", precision="bfloat16")
    layers = (Conv(8, 3, padding=1, bias=False), Norm(), Relu(), Mean(), Dense(10))
    return Work(layers, data.noise(4, 8, 8, 3), data.classes(4), 2, "momentum", precision="bfloat16")


def population(trials: int, work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return us, side by side in one program and one by one, and the peers one by one."""
    work, rates = cache(work), np.logspace(-4, -2, trials)
    peers = {name: lambda peer=PEERS[name]: peer.call("sweep", work(), rates[:FEW]) for name in names}
    return {
        OURS: lambda: ours.sweep(work(), rates, "vmap"),
        ONE_BY_ONE: lambda: ours.one_by_one(work(), min(FEW, trials)),
        **peers,
    }
