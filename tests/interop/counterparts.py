"""Networks and their counterparts in PyTorch, layer by layer, and random ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from tests.oracle import floats, integers

PAIR, MAPS, SEQUENCES = floats(2, 6), floats(2, 6, 5, 4), floats(2, 7, 3)


@dataclass(frozen=True)
class Counterpart:
    """A network here and there.

    Attributes:
        name: unique; the name of the oracle.
        ours: makes it here.
        theirs: makes it of `torch.nn`.
        x: an input as it is here.
        maps: whether PyTorch has its channels, and those of an output of more than two axes, first.
        call: calls the module of PyTorch.
    """

    name: str
    ours: Callable[[], jn.Net]
    theirs: Callable[[Any], Any]
    x: Any
    maps: bool = False
    call: Callable[[Any, Any], Any] = lambda module, x: module(x)

    def __str__(self) -> str:
        return self.name


def named(nn: Any, **modules: Any) -> Any:
    """Return modules one after another under their names; of `(y, carry)`, y is handed on."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, module in modules.items():
                self.add_module(name, module)

        def forward(self, x: Any) -> Any:
            for module in self.children():
                x = module(x)
                x = x[0] if isinstance(x, tuple) else x
            return x

    return Named()


def joined(nn: Any, **modules: Any) -> Any:
    """Return modules side by side under their names, with their outputs joined along the second axis."""
    import torch

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, module in modules.items():
                self.add_module(name, module)

        def forward(self, x: Any) -> Any:
            return torch.cat([module(x) for module in self.children()], 1)

    return Joined()


def residual(nn: Any, body: dict[str, Any], shortcut: Any) -> Any:
    """Return modules under their names with a shortcut around them."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, module in body.items():
                self.add_module(name, module)
            self.downsample = shortcut

        def forward(self, x: Any) -> Any:
            y = x
            for name in body:
                y = getattr(self, name)(y)
            return y + self.downsample(x)

    return Residual()


def decoder() -> jn.Net:
    return jn.serial(
        jn.dense(24, use_bias=False),
        jn.batch_norm(),
        jax.nn.relu,
        jn.unflatten((2, 3, 4)),
        jn.conv_transpose(3, 3, stride=2),
        jnp.tanh,
        jn.flatten,
        jn.dense(2),
    )


def block(nn: Any) -> Any:
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())


def our_block() -> jn.Net:
    return jn.serial(jn.conv(4, 3, padding=1), jn.batch_norm(), jax.nn.relu)


def recurrent(kind: str, layers: int, both_ways: bool) -> Counterpart:
    cell = {"LSTM": jn.lstm_cell, "GRU": jn.gru_cell, "RNN": jn.rnn_cell}[kind](3)

    def ours() -> jn.Net:
        if not both_ways:
            return jn.serial(rnn=jn.recurrent(*[cell] * layers), fc=jn.dense(2))
        both = [jn.bidirectional(cell) for _ in range(layers)]
        return jn.serial(rnn=both[0] if layers == 1 else jn.serial(*both), fc=jn.dense(2))

    def theirs(nn: Any) -> Any:
        rnn = getattr(nn, kind)(3, 3, layers, batch_first=True, bidirectional=both_ways)
        return named(nn, rnn=rnn, fc=nn.Linear(6 if both_ways else 3, 2))

    return Counterpart(f"{kind.lower()}_{layers}{'_both_ways' * both_ways}", ours, theirs, SEQUENCES)


RECURRENT = [recurrent(kind, n, both) for kind in ("LSTM", "GRU", "RNN") for n in (1, 2) for both in (False, True)]
RECURRENT.append(
    Counterpart(
        "gru_3_both_ways_in_one",
        lambda: jn.serial(rnn=jn.bidirectional(jn.gru_cell(3), layers=3), fc=jn.dense(2)),
        lambda nn: named(nn, rnn=nn.GRU(3, 3, 3, batch_first=True, bidirectional=True), fc=nn.Linear(6, 2)),
        SEQUENCES,
    )
)

LAYERS = [
    Counterpart("dense", lambda: jn.dense(3), lambda nn: nn.Linear(6, 3), PAIR),
    Counterpart("conv_1d", lambda: jn.conv(4, 3), lambda nn: nn.Conv1d(3, 4, 3), SEQUENCES, maps=True),
    Counterpart(
        "conv_grouped",
        lambda: jn.conv(6, (3, 2), groups=2, stride=2),
        lambda nn: nn.Conv2d(4, 6, (3, 2), groups=2, stride=2),
        MAPS,
        maps=True,
    ),
    Counterpart(
        "conv_3d",
        lambda: jn.conv(2, (3, 2, 1), use_bias=False),
        lambda nn: nn.Conv3d(3, 2, (3, 2, 1), bias=False),
        floats(2, 4, 3, 2, 3),
        maps=True,
    ),
    Counterpart(
        "depthwise_conv",
        lambda: jn.depthwise_conv(3, 2, padding=1),
        lambda nn: nn.Conv2d(4, 8, 3, padding=1, groups=4),
        MAPS,
        maps=True,
    ),
    Counterpart(
        "conv_transpose",
        lambda: jn.conv_transpose(6, (3, 2), stride=2, padding=1, output_padding=1, groups=2),
        lambda nn: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, output_padding=1, groups=2),
        MAPS,
        maps=True,
    ),
    Counterpart(
        "conv_transpose_1d",
        lambda: jn.conv_transpose(4, 3),
        lambda nn: nn.ConvTranspose1d(3, 4, 3),
        SEQUENCES,
        maps=True,
    ),
    Counterpart("batch_norm", jn.batch_norm, lambda nn: nn.BatchNorm2d(4), MAPS, maps=True),
    Counterpart("layer_norm", jn.layer_norm, lambda nn: nn.LayerNorm(3), SEQUENCES),
    Counterpart("rms_norm", jn.rms_norm, lambda nn: nn.RMSNorm(3, eps=1e-6), SEQUENCES),
    Counterpart(
        "layer_norm_maps", lambda: jn.layer_norm(axis=(1, 2, 3)), lambda nn: nn.LayerNorm((4, 6, 5)), MAPS, maps=True
    ),
    Counterpart("group_norm", lambda: jn.group_norm(2), lambda nn: nn.GroupNorm(2, 4), MAPS, maps=True),
    Counterpart("prelu", lambda: jn.prelu(per_channel=True), lambda nn: nn.PReLU(4), MAPS, maps=True),
    Counterpart("prelu_shared", jn.prelu, lambda nn: nn.PReLU(), MAPS, maps=True),
    Counterpart("embed", lambda: jn.embed(9, 4), lambda nn: nn.Embedding(9, 4), integers(2, 5, high=9)),
]

FLATTENED = [
    Counterpart(
        "flatten_input",
        lambda: jn.serial(flatten=jn.flatten, fc=jn.dense(3)),
        lambda nn: named(nn, flatten=nn.Flatten(), fc=nn.Linear(120, 3)),
        MAPS,
        maps=True,
    ),
    Counterpart(
        "flatten_1d",
        lambda: jn.serial(jn.conv(4, 3), jax.nn.relu, jn.flatten, jn.dense(3)),
        lambda nn: nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)),
        SEQUENCES,
        maps=True,
    ),
    Counterpart(  # no map: PyTorch has the features of a sequence last too
        "flatten_sequence",
        lambda: jn.serial(jn.recurrent(jn.rnn_cell(4)), jn.flatten, jn.dense(3)),
        lambda nn: named(nn, **{"0": nn.RNN(3, 4, batch_first=True), "1": nn.Flatten(), "2": nn.Linear(28, 3)}),
        SEQUENCES,
    ),
    Counterpart(  # what stands between flatten and the matrix moves too
        "flatten_norm",
        lambda: jn.serial(
            jn.conv(3, 2),
            jn.flatten,
            jn.batch_norm(),
            jn.dropout(0.5),
            jn.prelu(per_channel=True),
            jn.layer_norm(),
            jn.dense(3),
        ),
        lambda nn: nn.Sequential(
            nn.Conv2d(4, 3, 2),
            nn.Flatten(),
            nn.BatchNorm1d(60),
            nn.Dropout(),
            nn.PReLU(60),
            nn.LayerNorm(60),
            nn.Linear(60, 3),
        ),
        MAPS,
        maps=True,
    ),
    Counterpart(  # two flattened maps side by side, and a plain one
        "flatten_branches",
        lambda: jn.serial(
            jn.branches(
                jn.concatenate,
                a=jn.serial(jn.conv(2, 2), jn.flatten),
                b=jn.serial(jn.max_pool(2), jn.flatten),
                c=jn.global_avg_pool,
            ),
            jn.dense(3),
        ),
        lambda nn: nn.Sequential(
            joined(
                nn,
                a=nn.Sequential(nn.Conv2d(4, 2, 2), nn.Flatten()),
                b=nn.Sequential(nn.MaxPool2d(2), nn.Flatten()),
                c=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            ),
            nn.Linear(40 + 24 + 4, 3),
        ),
        MAPS,
        maps=True,
    ),
    Counterpart(
        "unflatten",
        decoder,
        lambda nn: nn.Sequential(
            nn.Linear(6, 24, bias=False),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Unflatten(1, (4, 2, 3)),
            nn.ConvTranspose2d(4, 3, 3, stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(3 * 5 * 7, 2),
        ),
        PAIR,
    ),
]

COMPOSED = [
    Counterpart(
        "residual",
        lambda: jn.residual(jn.serial(conv1=jn.conv(5, 1), bn1=jn.batch_norm()), jn.serial(jn.conv(5, 1))),
        lambda nn: residual(
            nn, {"conv1": nn.Conv2d(4, 5, 1), "bn1": nn.BatchNorm2d(5)}, nn.Sequential(nn.Conv2d(4, 5, 1))
        ),
        MAPS,
        maps=True,
    ),
    Counterpart(  # places 1, 2 and 3 of six, and of the rest, the last
        "repeat",
        lambda: jn.serial(
            jn.conv(4, 1), jn.repeat(our_block(), 3), jn.conv(4, 1), body=jn.remat(jn.repeat(our_block(), 2))
        ),
        lambda nn: named(
            nn,
            **{"0": nn.Conv2d(4, 4, 1), "1": block(nn), "2": block(nn), "3": block(nn), "4": nn.Conv2d(4, 4, 1)},
            body=nn.Sequential(block(nn), block(nn)),
        ),
        MAPS,
        maps=True,
    ),
]


def random(seed: int) -> Counterpart:
    """Draw a chain of convolutions, norms, activations and pools, and matrices behind a flatten."""
    draw = np.random.default_rng(seed)
    height, width, channels = shape = tuple(int(n) for n in draw.integers((5, 5, 1), (9, 9, 5)))
    ours: list[Any] = []
    theirs: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def add(layer: Any, kind: str, *sizes: Any, **options: Any) -> None:
        ours.append(layer)
        theirs.append((kind, sizes, options))

    for _ in range(draw.integers(1, 4)):
        window, padding, groups = int(draw.integers(1, 4)), int(draw.integers(0, 2)), int(draw.integers(1, 3))
        groups = groups if channels % groups == 0 else 1
        window = min(window, height + 2 * padding, width + 2 * padding)
        features = groups * int(draw.integers(1, 4))
        add(
            jn.conv(features, window, padding=padding, groups=groups),
            "Conv2d",
            *(channels, features, window),
            padding=padding,
            groups=groups,
        )
        channels, height, width = features, *(n + 2 * padding - window + 1 for n in (height, width))
        if draw.integers(2):
            add(jn.batch_norm(), "BatchNorm2d", channels)
        add(*((jax.nn.relu, "ReLU"), (jnp.tanh, "Tanh"))[draw.integers(2)])
        if draw.integers(2) and min(height, width) > 3:
            add(*((jn.max_pool(2), "MaxPool2d", 2), (jn.avg_pool(2), "AvgPool2d", 2))[draw.integers(2)])
            height, width = height // 2, width // 2
    add(jn.flatten, "Flatten")
    features = height * width * channels
    if draw.integers(2):
        add(jn.batch_norm(), "BatchNorm1d", features)
    add(jn.dense(5), "Linear", features, 5)
    add(jnp.tanh, "Tanh")
    add(jn.dense(3), "Linear", 5, 3)
    return Counterpart(
        f"random_{seed}",
        lambda: jn.serial(*ours),
        lambda nn: nn.Sequential(*(getattr(nn, kind)(*sizes, **options) for kind, sizes, options in theirs)),
        floats(2, *shape, seed=seed),
        maps=True,
    )


ALL = [*LAYERS, *FLATTENED, *COMPOSED, *RECURRENT, *(random(seed) for seed in range(6))]
