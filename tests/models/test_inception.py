"""GoogLeNet and the Inceptions against torchvision, timm and the papers' tables, heads included."""

import collections
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.models.googlenet import BLOCKS
from jaxnets.models.inception_v2 import BLOCKS as BLOCKS_V2
from tests.models.agreement import agree
from tests.models.weights import _LEAVES
from tests.oracle import floats, witness
from tests.peers import PEERS, timm_model, torchvision_models

KEY = jax.random.key(0)
inception_v4 = importlib.import_module("jaxnets.models.inception_v4")  # the module, which has a function's name
inception_resnet = importlib.import_module("jaxnets.models.inception_resnet")


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


TIMM_MODULES = {
    # Each kind of module at the least size; the networks are these one after another.
    "stem_4a": ("inception_v4", "Mixed4a", inception_v4.stem_4a, (9, 8, 160)),
    "module_a": ("inception_v4", "InceptionA", inception_v4.module_a, (4, 5, 384)),
    "reduction_a": ("inception_v4", "ReductionA", lambda: inception_v4.reduction_a(192, 224, 256, 384), (5, 6, 384)),
    "module_b": ("inception_v4", "InceptionB", inception_v4.module_b, (4, 3, 1024)),
    "reduction_b": ("inception_v4", "ReductionB", inception_v4.reduction_b, (5, 4, 1024)),
    "module_c": ("inception_v4", "InceptionC", inception_v4.module_c, (2, 3, 1536)),
    "mixed_5b": ("inception_resnet_v2", "Mixed_5b", inception_resnet.mixed_5b, (4, 5, 192)),
    "block_35": ("inception_resnet_v2", "Block35", inception_resnet.block_35, (4, 5, 320)),
    "block_17": ("inception_resnet_v2", "Block17", inception_resnet.block_17, (3, 4, 1088)),
    "mixed_7a": ("inception_resnet_v2", "Mixed_7a", inception_resnet.mixed_7a, (5, 4, 1088)),
    "block_8": ("inception_resnet_v2", "Block8", inception_resnet.block_8, (2, 3, 2080)),
}
SCALES = {"block_35": 0.17, "block_17": 0.1, "block_8": 0.2}


@pytest.mark.parametrize("name", TIMM_MODULES)
@pytest.mark.slow_cases(*(each for each in TIMM_MODULES if each not in ("block_35", "stem_4a")))
def test_modules_are_timms(name: str):
    file, theirs, ours, shape = TIMM_MODULES[name]

    def make() -> Any:
        timm_model("resnet18")  # which imports what timm needs
        module = importlib.import_module(f"timm.models.{file}")
        scale = {"scale": SCALES[name]} if name in SCALES else {}
        conv_block = partial(module.ConvNormAct, padding=0, norm_kwargs={"eps": 1e-3})
        return getattr(module, theirs)(conv_block=conv_block, **scale)

    agree(f"models/inception_{name}", ours(), floats(2, *shape), make)


NAMES = {"inception_v4": jn.models.inception_v4, "inception_resnet_v2": jn.models.inception_resnet_v2}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_all_tensors_have_the_names_and_shapes_of_timms(name: str):
    """And the scales are those of the networks."""

    def ask() -> dict[str, Any]:
        import torch

        with torch.device("meta"):
            model = timm_model(name)
        rows = [
            f"{each} {tuple(value.shape)}" for each, value in model.state_dict().items() if "num_batches" not in each
        ]
        scales = [module.scale for module in model.modules() if hasattr(module, "scale")]
        return {"rows": np.frombuffer("\n".join(sorted(rows)).encode(), np.uint8), "scales": np.array(scales)}

    want = witness(f"models/{name}_tensors", ask, installed=PEERS)
    net = NAMES[name]()
    shapes = jax.eval_shape(net.init, KEY, spec(299))
    ours = []
    for path, leaf in (jn.paths.paths(shapes[0]) | jn.paths.paths(shapes[1])).items():
        module, _, leaf_name = path.rpartition("/")
        shape = leaf.shape if leaf.ndim < 2 else (leaf.shape[-1], leaf.shape[-2], *leaf.shape[:-2])
        ours.append(f"{module.replace('/', '.')}.{_LEAVES[leaf_name]} {shape}")
    assert sorted(ours) == want["rows"].tobytes().decode().split("\n")
    blocks = [net[f"{stage}/{n}"] for stage, count in (("repeat", 10), ("repeat_1", 20), ("repeat_2", 9))
              for n in range(count)] if len(want["scales"]) else []  # fmt: skip
    blocks += [net["block8"]] if blocks else []
    one = [block.children["sum"].apply({}, {}, (jnp.zeros(1), jnp.ones(1)))[0].item() for block in blocks]
    np.testing.assert_allclose(one, want["scales"], rtol=1e-6)
    assert not blocks or ["act" in block.children for block in blocks] == [True] * 39 + [False]


def test_inception_v2_is_the_papers_table():
    """Figure 5, whose columns are written out here: multiply-adds and widths, added up by hand."""
    places, adds, width, rows = 28 * 28, 112 * 112 * 49 * 3 * 64, 192, []
    adds += 56 * 56 * (64 * 64 + 9 * 64 * 192)
    for ones, reduced, threes, double_reduced, double, pooled in BLOCKS_V2.values():
        after = places if ones else places // 4
        adds += places * width * (ones + reduced + double_reduced + pooled)
        adds += after * 9 * reduced * threes + 9 * double * (places * double_reduced + after * double)
        width, places = ones + threes + double + (pooled if ones else width), after
        rows.append(width)
    assert rows == [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]
    net = jn.models.inception_v2()
    params, state = jax.eval_shape(net.init, KEY, spec(224))
    assert jn.inspect.multiply_adds(net, spec(224), params=params, state=state) == adds + 1024 * 1000
    sizes = [net.upto(name) for name in ("maxpool2", "inception3c", "inception5b")]
    shapes = [jax.eval_shape(part.apply, params, state, spec(224))[0].shape[1:] for part in sizes]
    assert shapes == [(28, 28, 192), (14, 14, 576), (7, 7, 1024)]


def inception_v2_in_torch() -> Any:
    """Return one module of each kind in PyTorch."""
    from torch import nn

    def unit(before: int, after: int, window: int, stride: int = 1) -> Any:
        conv = nn.Conv2d(before, after, window, stride, window // 2, bias=False)
        parts = {"conv": conv, "bn": nn.BatchNorm2d(after), "relu": nn.ReLU()}
        return nn.Sequential(collections.OrderedDict(parts))

    class Module(nn.Module):
        def __init__(self, before: int, row: tuple[int, ...], last: bool):
            super().__init__()
            ones, reduced, threes, double_reduced, double, pooled = row
            stride = 1 if ones else 2
            self.branch1 = unit(before, ones, 1) if ones else None
            self.branch2 = nn.Sequential(unit(before, reduced, 1), unit(reduced, threes, 3, stride))
            self.branch3 = nn.Sequential(
                unit(before, double_reduced, 1), unit(double_reduced, double, 3), unit(double, double, 3, stride)
            )
            same = nn.MaxPool2d(3, 1, 1) if last else nn.AvgPool2d(3, 1, 1)
            halved = nn.MaxPool2d(3, 2, ceil_mode=True)
            self.branch4 = nn.Sequential(same, unit(before, pooled, 1)) if ones else halved

        def forward(self, x: Any) -> Any:
            import torch

            parts = (self.branch1, self.branch2, self.branch3, self.branch4)
            return torch.cat([part(x) for part in parts if part is not None], 1)

    rows = BLOCKS_V2
    chain = [("inception4e", 608, False), ("inception5a", 1056, False), ("inception5b", 1024, True)]
    return nn.Sequential(
        collections.OrderedDict({name: Module(before, rows[name], last) for name, before, last in chain})
    )


@pytest.mark.slow
def test_modules_of_inception_v2_are_those_of_pytorch():
    whole = jn.models.inception_v2()
    net = jn.serial(**{name: whole[name] for name in ("inception4e", "inception5a", "inception5b")})
    agree("models/inception_v2_modules", net, floats(2, 6, 4, 608), inception_v2_in_torch)


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
