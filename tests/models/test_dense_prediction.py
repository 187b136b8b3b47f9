"""FCN, U-Net and landmarks: against PyTorch, by arithmetic, and in training."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.models.agreement import agree
from tests.once import once
from tests.oracle import floats, witness

KEY = jax.random.key(0)


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def out(net: jn.Net, *shape: int) -> tuple[int, ...]:
    params, state = jax.eval_shape(net.init, KEY, spec(*shape))
    return jax.eval_shape(net.apply, params, state, spec(*shape))[0].shape


def transposed(cin: int, cout: int, window: int, *, bias: bool, **options: Any) -> Any:
    """Return PyTorch's transposed convolution with a weight laid out as a convolution's."""
    import torch
    from torch import nn

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(cout, cin, window, window))
            if bias:
                self.bias = nn.Parameter(torch.zeros(cout))

        def forward(self, x: Any) -> Any:
            given = self.bias if bias else None
            return nn.functional.conv_transpose2d(x, self.weight.transpose(0, 1), given, **options)

    return Transposed()


def torch_unet(channels: int, classes: int, widths: tuple[int, ...], padding: int, norm: bool) -> Any:
    import torch
    from torch import nn

    def pair(cin: int, cout: int) -> Any:
        layers = nn.Sequential()
        for place, n in ((1, cin), (2, cout)):
            layers.add_module(f"conv{place}", nn.Conv2d(n, cout, 3, padding=padding, bias=not norm))
            if norm:
                layers.add_module(f"bn{place}", nn.BatchNorm2d(cout))
            layers.add_module(f"relu{place}", nn.ReLU())
        return layers

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            before = channels
            for level, width in enumerate(widths[:-1], start=1):
                self.add_module(f"encoder{level}", pair(before, width))
                before = width
            self.bottleneck = pair(before, widths[-1])
            for level in range(len(widths) - 1, 0, -1):
                wide, narrow = widths[level], widths[level - 1]
                self.add_module(f"upconv{level}", transposed(wide, narrow, 2, bias=True, stride=2))
                self.add_module(f"decoder{level}", pair(2 * narrow, narrow))
            self.conv = nn.Conv2d(widths[0], classes, 1)

        def forward(self, x: Any) -> Any:
            beside = []
            for level in range(1, len(widths)):
                beside.append(self.get_submodule(f"encoder{level}")(x))
                x = nn.functional.max_pool2d(beside[-1], 2)
            x = self.bottleneck(x)
            for level in range(len(widths) - 1, 0, -1):
                x, bridge = self.get_submodule(f"upconv{level}")(x), beside[level - 1]
                high, across = bridge.shape[2] - x.shape[2], bridge.shape[3] - x.shape[3]
                if padding:
                    x = nn.functional.pad(x, (0, across, 0, high))
                else:
                    h, w = high // 2, across // 2
                    bridge = bridge[:, :, h : h + x.shape[2], w : w + x.shape[3]]
                x = self.get_submodule(f"decoder{level}")(torch.cat([bridge, x], 1))
            return self.conv(x)

    return UNet()


def test_unet_is_pytorchs_at_odd_sizes():
    net = jn.models.unet(3, widths=(4, 8, 16))
    agree("models/unet", net, floats(2, 13, 10, 2), lambda: torch_unet(2, 3, (4, 8, 16), 1, True))


@pytest.mark.slow
def test_unet_of_the_paper_is_pytorchs():
    net = jn.models.unet(2, widths=(4, 8, 16), padding="VALID", batch_norm=False)
    agree("models/unet_valid", net, floats(2, 44, 49, 1), lambda: torch_unet(1, 2, (4, 8, 16), 0, False))


@pytest.mark.slow
def test_unet_has_the_sizes_of_the_papers_figure():
    net = jn.models.unet(2, padding="VALID", batch_norm=False)
    assert out(net, 1, 572, 572, 1) == (1, 388, 388, 2)
    for child, size, channels in (
        ("encoder1", 568, 64),
        ("pool4", 32, 512),
        ("bottleneck", 28, 1024),
        ("upconv4", 56, 512),
    ):
        assert out(net.upto(child), 1, 572, 572, 1) == (1, size, size, channels)


def torch_fcn(widths: tuple[int, ...], classes: int) -> Any:
    from torch import nn
    from torch.nn import functional as F

    class FCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for place, (cin, cout) in enumerate(zip((3, *widths), widths, strict=False), start=1):
                self.add_module(f"conv{place}", nn.Conv2d(cin, cout, 3, padding=1))
            self.fc6, self.fc7 = nn.Conv2d(widths[-1], 6, 3, padding=1), nn.Conv2d(6, 6, 1)
            self.score = nn.Conv2d(6, classes, 1)
            self.score_pool2, self.score_pool1 = nn.Conv2d(widths[1], classes, 1), nn.Conv2d(widths[0], classes, 1)
            self.upscore_pool2 = transposed(classes, classes, 4, bias=False, stride=2, padding=1)
            self.upscore_pool1 = transposed(classes, classes, 4, bias=False, stride=2, padding=1)
            self.upscore = transposed(classes, classes, 4, bias=False, stride=2, padding=1)

        def forward(self, x: Any) -> Any:
            pools, y = [], x
            for place in range(1, len(widths) + 1):
                y = F.max_pool2d(F.relu(self.get_submodule(f"conv{place}")(y)), 2)
                pools.append(y)
            y = self.score(F.relu(self.fc7(F.relu(self.fc6(y)))))
            y = like(self.upscore_pool2(y), pools[1]) + self.score_pool2(pools[1])
            y = like(self.upscore_pool1(y), pools[0]) + self.score_pool1(pools[0])
            return like(self.upscore(y), x)

    def like(y: Any, target: Any) -> Any:
        missing = [target.shape[axis] - y.shape[axis] for axis in (3, 2)]
        return F.pad(y, (0, missing[0], 0, missing[1]), mode="replicate")

    return FCN()


@pytest.mark.slow
def test_fcn_is_pytorchs_where_sizes_do_not_halve_evenly():
    options = {"skips": ("pool2", "pool1"), "stride": 8, "features": 6, "dropout": 0.0}
    net = jn.models.fcn(3, jn.models.cnn((4, 5, 6))["features"], **options)
    agree("models/fcn", net, floats(2, 23, 17, 3), lambda: torch_fcn((4, 5, 6), 3))


def interpolated(scale: int) -> dict[str, np.ndarray]:
    import torch

    x = torch.tensor(floats(1, 5, 6, 2)).permute(0, 3, 1, 2)
    y = torch.nn.functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    return {"y": y.permute(0, 2, 3, 1).numpy()}


@pytest.mark.parametrize("scale", [1, 2, 3, pytest.param(8, marks=pytest.mark.slow)])
def test_upsampling_starts_as_pytorchs_bilinear_interpolation(scale: int):
    """Away from the border, where PyTorch repeats the edge and a transposed convolution has zeros beyond."""
    net = jn.models.fcn(2, jn.serial(jn.max_pool(1)), skips=(), stride=scale)["upscore"]
    y = np.asarray(once(lambda key, x: net.apply(net.init(key, x)[0], {}, x)[0], KEY, floats(1, 5, 6, 2)))
    theirs = witness(f"models/bilinear_{scale}", lambda: interpolated(scale))["y"]
    assert y.shape == theirs.shape
    edge = scale // 2
    inner = slice(edge, -edge or None)
    np.testing.assert_allclose(y[:, inner, inner], theirs[:, inner, inner], rtol=0, atol=2e-6)


def test_bilinear_kernel_keeps_channels_and_groups_apart():
    kernel, x = np.asarray(jn.initializers.bilinear_kernel(None, (4, 2, 2))), floats(1, 4, 3)
    np.testing.assert_array_equal(kernel[:, 0, 1], 0)
    np.testing.assert_array_equal(kernel[:, 1, 1], [0.25, 0.75, 0.75, 0.25])
    options = {"stride": 2, "padding": 1, "use_bias": False, "kernel_init": jn.initializers.bilinear_kernel}
    whole, apart = jn.conv_transpose(3, 4, **options), jn.conv_transpose(3, 4, groups=3, **options)
    left, right = once(lambda key, x: [net.apply(net.init(key, x)[0], {}, x)[0] for net in (whole, apart)], KEY, x)
    np.testing.assert_allclose(left, right, atol=1e-6)
    with pytest.raises(jn.NetError, match="bilinear_kernel expects as many features as channels, got 3 and 2"):
        jn.initializers.bilinear_kernel(None, (4, 2, 3))


@pytest.mark.parametrize("heights", [(9, 14), range(8, 17)], ids=["some", "all"])
@pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])
@pytest.mark.slow_cases("floor-all", "ceil-all", "floor-some")
def test_fcn_gives_a_class_for_each_place_of_any_size(ceil: bool, heights: Iterable[int]):
    stages = {}
    for place in (1, 2, 3):
        stages |= {f"conv{place}": jn.conv(4, 3, padding=1), f"pool{place}": jn.max_pool(2, ceil_mode=ceil)}
    for skips in ((), ("pool2",), ("pool2", "pool1")):
        net = jn.models.fcn(3, jn.serial(**stages), skips=skips, stride=8, features=4)
        for height in heights:
            assert out(net, 1, height, 29 - height, 1) == (1, height, 29 - height, 3)


@pytest.mark.slow
def test_fcn_takes_a_classifiers_layers_and_weights():
    vgg = jn.models.vgg11()
    net, x = jn.models.fcn(21, vgg["features"], skips=("15", "10")), spec(1, 64, 70, 3)
    params, _ = jax.eval_shape(net.init, KEY, x)
    features = jax.eval_shape(vgg.init, KEY, spec(1, 64, 64, 3))[0]["features"]
    assert {name: params[name] for name in features} == features
    resnet = jn.models.resnet18().upto("layer4")
    assert out(jn.models.fcn(21, resnet, skips=("layer3", "layer2")), 1, 65, 97, 3) == (1, 65, 97, 21)


def test_the_skips_of_a_new_fcn_change_nothing():
    """Their scores start at zero (section 4.3 of the paper), so that FCN-8s starts from FCN-32s."""
    backbone = jn.models.cnn((4, 4))["features"]
    fine = jn.models.fcn(3, backbone, skips=("pool1",), stride=4, features=4, dropout=0.0)
    x = floats(1, 8, 8, 1)

    def cuts(key: jax.Array) -> list[jax.Array]:
        params, state = fine.init(key, x)
        return [fine.upto(child).apply(params, state, x)[0] for child in ("fuse_pool1", "upscore_pool1")]

    y, coarse = once(cuts, KEY)
    np.testing.assert_array_equal(y, coarse)
    assert np.abs(y).max() > 0


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "one width": (lambda: jn.models.unet(widths=(4,)), "unet expects at least two widths, got"),
    "padding": (lambda: jn.models.unet(padding="same"), "unet expects padding 'SAME' or 'VALID', got 'same'"),  # type: ignore[arg-type]
    "unet, 8 places": (lambda: out(jn.models.unet(), 1, 16, 8, 1), "^pool4: max_pool.*width 1 for kernel_size 2"),
    "unet, VALID": (
        lambda: out(jn.models.unet(padding="VALID"), 1, 140, 124, 1),
        "^bottleneck/conv2: conv.*width 2 for kernel_size 3",
    ),
    "fcn, 16 places": (lambda: out(jn.models.fcn(), 1, 32, 16, 3), "^pool5: max_pool.*width 1 for kernel_size 2"),
    "no backbone": (lambda: jn.models.fcn(2, jn.conv(3, 3)), r"fcn expects a serial as backbone, got conv\(3, 3\)"),
    "no such skip": (
        lambda: jn.models.fcn(2, skips=("pool7",)),
        "fcn expects skips among conv1, .*, got pool7",
    ),
    "uneven stride": (
        lambda: jn.models.fcn(2, stride=10),
        r"fcn expects a stride divisible by 2\^2, for 2 skips, got 10",
    ),
    "skips turned round": (
        lambda: out(jn.models.fcn(2, skips=("pool3", "pool4")), 1, 64, 64, 3),
        r"^crop_pool3: .*expects maps of nearly one size, got \(4, 4\) for \(8, 8\)",
    ),
    "another stride": (
        lambda: out(jn.models.fcn(2, stride=16), 1, 64, 64, 3),
        r"^crop: .*got \(32, 32\) for \(64, 64\); skips names maps of 2",
    ),
    "no head": (lambda: jn.models.landmarks(2, head="points"), "landmarks expects head 'dense' or 'heatmap'"),  # type: ignore[arg-type]
    "no points": (lambda: jn.models.landmarks(0), "landmarks expects num_points ≥ 1, got 0"),
    "landmarks, 4 places": (lambda: out(jn.models.landmarks(2), 1, 8, 4, 1), "^features/pool3: max_pool.*width 1"),
    "flat heatmaps": (lambda: jn.models.soft_argmax(jnp.ones((2, 3))), "soft_argmax expects .batch, height, width"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_by_their_place(name: str):
    wrong, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        wrong()


def test_soft_argmax_is_the_mean_place():
    maps = floats(2, 3, 5, 4)
    share = np.exp(maps.astype(np.float64))
    share /= share.sum(axis=(1, 2), keepdims=True)
    rows, columns = (2 * np.arange(3) + 1) / 3 - 1, (2 * np.arange(5) + 1) / 5 - 1
    expected = np.zeros((2, 4, 2))
    for row in range(3):
        for column in range(5):
            expected += share[:, row, column, :, None] * np.array([columns[column], rows[row]])
    np.testing.assert_allclose(jn.models.soft_argmax(jnp.asarray(maps)), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.promotes
def test_landmarks_learn_where_a_spot_lies():
    """One bright place in each image; the right answer is known, half a step is 0.0625."""
    key = jax.random.key(1)
    places = jax.random.randint(key, (64, 2), 0, 16)
    images = jnp.zeros((64, 16, 16, 1)).at[jnp.arange(64), places[:, 1], places[:, 0], 0].set(1.0)
    points = ((2 * places + 1) / 16 - 1)[:, None]
    net = jn.models.landmarks(1, jn.conv(8, 3, padding=1), head="heatmap")
    objective = jn.objective(jn.losses.squared_error)
    program = jn.train.program(net, objective, optax.adam(0.1), (images, points), epochs=60, batch_size=64)
    _, history = jax.jit(lambda program, key: program(key))(program, key)
    assert history["loss"][0] > 0.2
    assert history["loss"][-1] < 0.0625**2


@pytest.mark.slow
@pytest.mark.promotes
def test_segmentation_learns_with_places_left_out():
    """Dark places against bright ones, and the label 255, which is no class, in the first row."""
    images = jnp.asarray(floats(16, 8, 6, 1))
    labels = (images[..., 0] < 0.5).astype(jnp.int32).at[:, 0].set(255)
    net = jn.conv(2, 1)
    objective = jn.objective(jn.losses.ignoring(jn.losses.cross_entropy, 255))
    metrics = {
        "iou": jn.metrics.ignoring(jn.metrics.intersection_over_union(2), 255),
        "accuracy": jn.metrics.ignoring(jn.metrics.accuracy, 255),
    }
    data = (images, labels)
    program = jn.train.program(net, objective, optax.adam(0.3), data, epochs=40, batch_size=16, metrics=metrics)
    _, history = jax.jit(lambda program, key: program(key))(program, KEY)
    assert history["iou"][0] < 0.7
    assert history["iou"][-1] > 0.9
    assert history["accuracy"][-1] > 0.95
    assert history["cross_entropy"][-1] < history["cross_entropy"][0]
