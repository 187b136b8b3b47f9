"""GoogLeNet and Inception v3 against torchvision and the paper's table, heads included."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxnets as jn
from jaxnets.models.googlenet import BLOCKS
from tests.models.agreement import agree
from tests.oracle import floats
from tests.peers import torchvision_models

KEY = jax.random.key(0)


def spec(size: int, channels: int = 3) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)


@pytest.mark.slow
def test_googlenet_and_its_heads_are_torchvisions():
    net = jn.models.googlenet(10, auxiliary=True, dropout=0.0, auxiliary_dropout=0.0)

    def make() -> Any:
        options = {"aux_logits": True, "init_weights": False, "dropout": 0.0, "dropout_aux": 0.0}
        return torchvision_models().GoogLeNet(10, **options)

    flattened = {"aux1/fc1": (4, 4, 128), "aux2/fc1": (4, 4, 128)}
    agree("models/googlenet", net, floats(3, 64, 52, 3), make, flattened, ("aux2", "aux1"))


@pytest.mark.slow
def test_inception_v3_is_torchvisions():
    def make() -> Any:
        return torchvision_models().Inception3(10, aux_logits=False, init_weights=False, dropout=0.0)

    agree("models/inception_v3", jn.models.inception_v3(10, dropout=0.0), floats(2, 107, 91, 3), make)


@pytest.mark.slow
def test_the_head_of_inception_v3_is_torchvisions():
    def make() -> Any:
        torchvision_models()
        from torchvision.models.inception import InceptionAux

        return InceptionAux(768, 10)

    head = jn.models.inception_v3(10, auxiliary=True)["AuxLogits"]
    agree("models/inception_v3_head", head, floats(2, 17, 18, 768), make)


def published() -> Any:
    """Return the first rows of the paper's table in PyTorch, with a linear output behind inception (3b)."""
    from torch import nn
    from torch.nn import functional as F

    def conv(cin: int, cout: int, window: int, **options: Any) -> Any:
        layer = nn.Sequential()
        layer.add_module("conv", nn.Conv2d(cin, cout, window, **options))
        layer.add_module("relu", nn.ReLU())
        return layer

    class Block(nn.Module):
        def __init__(self, cin: int, ones: int, *rest: int) -> None:
            super().__init__()
            reduce3, threes, reduce5, fives, pooled = rest
            self.branch1 = conv(cin, ones, 1)
            self.branch2 = nn.Sequential(conv(cin, reduce3, 1), conv(reduce3, threes, 3, padding=1))
            self.branch3 = nn.Sequential(conv(cin, reduce5, 1), conv(reduce5, fives, 5, padding=2))
            self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(cin, pooled, 1))

        def forward(self, x: Any) -> Any:
            import torch

            return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)

    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = conv(3, 64, 7, stride=2, padding=3)
            self.conv2, self.conv3 = conv(64, 64, 1), conv(64, 192, 3, padding=1)
            channels = 192
            for name in ("inception3a", "inception3b"):
                row = BLOCKS[name]
                self.add_module(name, Block(channels, *row))
                channels = row[0] + row[2] + row[4] + row[5]
            self.fc = nn.Linear(channels, 10)

        def forward(self, x: Any) -> Any:
            pool, norm = nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5)
            x = pool(norm(self.conv3(self.conv2(norm(pool(self.conv1(x)))))))
            x = self.get_submodule("inception3b")(self.get_submodule("inception3a")(x))
            return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    return Published()


@pytest.mark.slow
def test_googlenet_2014_follows_the_papers_table():
    """Up to inception (3b); the other blocks are the same function of the table, and differ by sizes alone."""
    layers = dict(jn.models.googlenet_2014().children)
    rows = {name: layers[name] for name in list(layers)[: list(layers).index("maxpool3")]}
    net = jn.serial(**rows, avgpool=jn.global_avg_pool, fc=jn.dense(10))
    agree("models/googlenet_2014", net, floats(2, 48, 39, 3), published)


@pytest.mark.slow
def test_published_sizes_at_224():
    """The output sizes of table 1, and 4 × 4 × 512 and 4 × 4 × 528 in the heads (section 5)."""
    net = jn.models.googlenet_2014(auxiliary=True)
    rows = jn.summary(net, spec(224), columns=["output"], train=True).rows
    outputs = {row.path: row.output for row in rows}
    for layer, size, channels in (
        ("conv1", 112, 64),
        ("maxpool1", 56, 64),
        ("conv3", 56, 192),
        ("maxpool2", 28, 192),
        ("inception3a", 28, 256),
        ("inception3b", 28, 480),
        ("maxpool3", 14, 480),
        ("inception4e", 14, 832),
        ("maxpool4", 7, 832),
        ("inception5b", 7, 1024),
        ("aux1/pool", 4, 512),
        ("aux2/pool", 4, 528),
    ):
        assert outputs[layer] == ((1, size, size, channels),)


HEADS: dict[str, tuple[Callable[..., jn.Net], int, list[tuple[str, str, str]]]] = {
    "googlenet": (
        jn.models.googlenet,
        64,
        [("aux1", "inception4a", "inception4b"), ("aux2", "inception4d", "inception4e")],
    ),
    "inception_v3": (jn.models.inception_v3, 299, [("AuxLogits", "Mixed_6e", "Mixed_7a")]),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.slow_cases("inception_v3")
def test_heads_read_where_the_paper_has_them(name: str):
    """Of the layers that have the head's number of channels, the last before it is needed and the next is not."""
    make, size, heads = HEADS[name]
    net = make(10, auxiliary=True)
    params, state = jax.eval_shape(net.init, KEY, spec(size))
    for head, last, following in heads:
        cut = net.upto(head)

        def without(name: str, cut: jn.Net = cut) -> Any:
            return jax.eval_shape(cut.apply, {k: v for k, v in params.items() if k != name}, state, spec(size))[0]

        assert without(following).shape == (1, 10)
        with pytest.raises(jn.NetError, match=f"^{last}: .*missing parameters"):
            without(last)


LEAST: dict[str, tuple[Callable[[], jn.Net], int, str]] = {
    "googlenet": (jn.models.googlenet, 15, "maxpool3: max_pool"),
    "googlenet_2014": (jn.models.googlenet_2014, 31, "maxpool4: max_pool"),
    "googlenet_2014_heads": (lambda: jn.models.googlenet_2014(auxiliary=True), 79, "aux1/pool: avg_pool"),
    "inception_v3": (jn.models.inception_v3, 75, "Mixed_7a/branch3x3_2/conv: conv"),
    "inception_v3_heads": (lambda: jn.models.inception_v3(auxiliary=True), 299, "AuxLogits/conv1/conv: conv"),
}


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.slow
def test_the_least_image_is_taken(name: str):
    make, fits, _ = LEAST[name]
    jax.eval_shape(make().init, KEY, spec(fits))


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.slow_cases("googlenet", "googlenet_2014_heads", "inception_v3_heads")
def test_too_small_an_image_is_an_error_that_names_the_layer(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxnets.core.net.DEEP", 10**9)  # how values are drawn takes time, and changes no error
    make, fits, layer = LEAST[name]
    net = make()
    with pytest.raises(jn.NetError, match=rf"^{layer}.*at least as large as the kernel"):
        jax.eval_shape(net.init, KEY, spec(fits - 1))


@pytest.mark.slow
def test_heads_ask_for_a_key_by_their_own_name():
    net = jn.models.googlenet(10, auxiliary=True, dropout=0.0)
    params, state = jax.eval_shape(net.init, KEY, spec(64))
    with pytest.raises(jn.NetError, match=r"^aux1/dropout: .*needs a key"):
        jax.eval_shape(lambda p, s: net.apply(p, s, jnp.ones((2, 64, 64, 3)), train=True), params, state)
