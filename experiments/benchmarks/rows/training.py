"""Training one network: epochs and steps, the first step with its compilation, and initialization."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from experiments.benchmarks import data, networks, ours
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows.row import LOOPED, OTHER_WAYS, OURS, SCANNED, Makers, Row
from experiments.benchmarks.work import Contestant, Work
from jaxnets import models

DECODERS = ("transformers", "Flax NNX, scanned")
SOME = ("PyTorch, CUDA graphs", "onnxruntime", *DECODERS)  # in few rows
EVERYBODY = (*OTHER_WAYS, *(name for name in PEERS if name not in SOME))
COMPILED = tuple(name for name in EVERYBODY if name != "Keras")
EAGER = tuple(name for name in COMPILED if name != "PyTorch, compiled")  # where compiling takes minutes or fails
ON_JAX = ("Flax Linen", "Flax NNX", "Equinox", "Haiku")


def epochs(work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return us, an epoch a call, step by step, and the peers."""
    work = cache(work)
    makers = {OURS: lambda: ours.train(work(), scan=True), LOOPED: lambda: ours.train(work(), scan=False)}
    return _asked(makers, names) | _peers(work, names)


def steps(work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return us, a step a call, all of them in one scan, and the peers."""
    work = cache(work)
    makers = {OURS: lambda: ours.train(work(), scan=False), SCANNED: lambda: ours.train(work(), scan=True)}
    return _asked(makers, names) | _peers(work, names)


def firsts(work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return us and the peers, a single step each."""
    work = cache(work)
    return {
        OURS: lambda: ours.train(work(), scan=False),
        "jaxnets, scan=True": lambda: ours.train(_scanned_depth(work()), scan=False),
        **_peers(work, names),
    }


def starts(work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return the contestants that initialize a network."""
    work = cache(work)
    peers = {name: lambda peer=PEERS[name]: peer.call("start", work()) for name in names}
    return {
        OURS: lambda: ours.start(work(), jit=False),
        "jaxnets, under jit": lambda: ours.start(work(), jit=True),
        **peers,
    }


def _asked(makers: dict[str, Callable[[], Contestant]], names: Sequence[str]) -> dict[str, Callable[[], Contestant]]:
    return {name: make for name, make in makers.items() if name == OURS or name in names}


def _peers(work: Callable[[], Work], names: Sequence[str]) -> dict[str, Callable[[], Contestant]]:
    return {name: lambda peer=PEERS[name]: peer.call("train", work()) for name in names if name in PEERS}


def _scanned_depth(work: Work) -> Work:
    made: Any = work.net
    return replace(work, net=partial(made, scan=True))


def mlp() -> Work:
    """Return an MLP on digits; 20 epochs a turn, as one takes milliseconds."""
    return Work(networks.mlp(64), *data.digits(), 32, epochs=20)


def lenet() -> Work:
    """Return LeNet-5 on all digits."""
    return Work(networks.lenet(), *data.mnist(), 64, net=models.lenet5)


def cnn() -> Work:
    """Return a CNN of two convolutions, on a third of the digits."""
    return Work(networks.cnn(32, 64), *data.mnist(1280), 64, net=models.cnn)


def resnet20() -> Work:
    """Return ResNet-20 on four batches."""
    net = partial(models.resnet_cifar, 20, shortcut="B")
    return Work(networks.resnet20(), data.noise(256, 32, 32, 3), data.classes(256), 64, net=net)


def vgg11() -> Work:
    """Return VGG-11 with batch norm on four batches."""
    return Work(networks.vgg11(), data.noise(128, 32, 32, 3), data.classes(128), 32)


def resnet50(batch: int, steps: int, size: int = 64, depth: int = 50) -> Work:
    """Return a ResNet of the paper's table on some batches."""
    blocks, net = {50: ((3, 4, 6, 3), models.resnet50), 152: ((3, 8, 36, 3), models.resnet152)}[depth]
    x, y = data.noise(steps * batch, size, size, 3), data.classes(steps * batch, 1000)
    return Work(networks.resnet(*blocks), x, y, batch, net=net)


def vowels() -> Work:
    """Return an LSTM on Japanese vowels; 4 epochs a turn."""
    return Work(networks.sequence("lstm", 64, 9), *data.vowels(), 32, epochs=4)


def gradient(cell: str, steps: int = 4) -> Work:
    """Return a recurrent layer whose outputs are trained towards zero by plain gradient descent."""
    x = data.noise(32 * steps, 128, 128)
    return Work(networks.sequence(cell, 256), x, data.noise(32 * steps, 128, 256), 32, "sgd")


def gpt(examples: int = 128, length: int = 128) -> Work:
    """Return a language model of characters on a text, four batches by default."""
    layers = networks.gpt(length)
    return Work(layers, *data.text(examples, length), 32, net=partial(ours.single, layers))


def autoencoder() -> Work:
    """Return a convolutional autoencoder on 16 batches of digits."""
    x, _ = data.mnist(1024)
    return Work(networks.autoencoder(28, 32, 64), x, x, 64, net=partial(models.conv_autoencoder, (28, 28, 1)))


ROWS = (
    Row("mlp", "MLP on digits, batch 32, epoch", "epoch", partial(epochs, mlp), EVERYBODY, full=15),
    Row("lenet", "LeNet-5, mnist5k, batch 64, epoch", "epoch", partial(epochs, lenet), EVERYBODY),
    Row("lstm", "LSTM on japanese_vowels, batch 32, epoch", "epoch", partial(epochs, vowels), EVERYBODY, quick=0),
    Row("cnn", "2-conv CNN (32, 64), batch 64, epoch of 1,280", "epoch", partial(epochs, cnn), EVERYBODY, full=5),
    Row(
        "resnet20", "ResNet-20, 32×32, batch 64, epoch of 256", "epoch", partial(epochs, resnet20), EVERYBODY,
        quick=0, full=5,
    ),
    Row("vgg11", "VGG-11-BN, 32×32, batch 32, step", "step", partial(steps, vgg11), COMPILED, quick=0, full=5),
    Row(
        "resnet50-2", "ResNet-50, 64×64, batch 2, step", "step", partial(steps, partial(resnet50, 2, 4)), EAGER,
        quick=0, full=5,
    ),
    Row(
        "resnet50-16", "ResNet-50, 64×64, batch 16, step", "step", partial(steps, partial(resnet50, 16, 2)), EAGER,
        quick=0, full=5, platform="cpu",
    ),
    Row(
        "lstm-gradient", "LSTM, B32 T128 D128 H256, gradient", "step", partial(steps, partial(gradient, "lstm")), EAGER
    ),
    Row(
        "gru-gradient", "GRU, B32 T128 D128 H256, gradient", "step", partial(steps, partial(gradient, "gru")), EAGER,
        quick=0,
    ),
    Row(
        "autoencoder", "Convolutional autoencoder, batch 64, step", "step", partial(steps, autoencoder), COMPILED,
        quick=0,
    ),
    Row(
        "gpt", "GPT of 6 blocks, 6 heads, 192 features, B32 T128, step", "step", partial(steps, gpt),
        tuple(name for name in EVERYBODY if name != "Haiku"), quick=0, full=5,
    ),
)  # fmt: skip

FIRSTS = (
    Row(
        "compile-50", "Compile of a step, ResNet-50", "first step", partial(firsts, partial(resnet50, 2, 1)), ON_JAX,
        quick=0, full=2, forgets=True,
    ),
    Row(
        "compile-152", "Compile of a step, ResNet-152", "first step",
        partial(firsts, partial(resnet50, 2, 1, depth=152)), ON_JAX, quick=0, full=1, forgets=True,
    ),
    Row(
        "start-152", "First initialization, ResNet-152", "initialization",
        partial(starts, partial(resnet50, 2, 1, depth=152)), ("Flax Linen", "Haiku"), quick=0, full=2, forgets=True,
    ),
)  # fmt: skip
