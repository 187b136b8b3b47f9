"""Options of the ResNets: scanned stages, zero scales, deep features, sizes and mistakes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.core.net import Net, spec
from jaxnets.models.blocks import basic, projection, stages, stem
from tests.models.row import image
from tests.models.weights import draw
from tests.oracle import floats

models = jn.models
X = floats(2, 64, 64, 3)


SCANS: dict[str, Callable[..., Net]] = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet101": models.resnet101,
    "wide_resnet50_2": models.wide_resnet50_2,
    "resnext101_32x8d": models.resnext101_32x8d,
    "resnet34_v2": models.resnet34_v2,
    "resnet152_v2": models.resnet152_v2,
    "resnet_cifar_a": lambda **options: models.resnet_cifar(20, **options),
    "resnet_cifar_c": lambda **options: models.resnet_cifar(14, shortcut="C", **options),
    "resnet_cifar_8": lambda **options: models.resnet_cifar(8, **options),  # nothing to scan
    "plain_cifar": lambda **options: models.plain_cifar(32, **options),
}


# The golden trees of tests/models/test_every_model.py hold scanned networks of every kind too.
@pytest.mark.parametrize("name", SCANS)
@pytest.mark.slow_cases(*SCANS.keys() - {"resnet_cifar_a", "resnet_cifar_8"})
def test_scanned_stages_have_the_parameters_of_unrolled_ones(name: str):
    make, key = SCANS[name], jax.random.key(0)
    short, long = make(scan=True), make()
    trees, wanted = jax.eval_shape(short.init, key, image(32)), jax.eval_shape(long.init, key, image(32))
    assert jax.eval_shape(lambda trees: tuple(jn.to_unstacked(short, tree) for tree in trees), trees) == wanted
    assert jax.eval_shape(lambda trees: tuple(jn.to_stacked(short, tree) for tree in trees), wanted) == trees


@pytest.mark.slow
def test_scanned_stages_compute_the_same():
    def make(scan: bool) -> Net:
        def block(features: int, stride: int, first: bool) -> Net:
            return jn.residual(basic(features, stride), projection(features, stride) if first else None, jax.nn.relu)

        return jn.serial(conv1=stem(4, 3), **stages([3, 2], 4, block, scan=scan), avgpool=jn.global_avg_pool)

    short, long = make(True), make(False)
    x, weights = jnp.asarray(floats(4, 8, 8, 3)), jnp.asarray(floats(4, 8))

    def run(net: Net, params: Any, state: Any, x: Any) -> Any:
        def total(params: Any, x: Any) -> Any:
            y, after = net.apply(params, state, x, train=True)
            return (y * weights.astype(y.dtype)).sum(), (y, after)

        return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(params, x)

    with jax.enable_x64(True):
        params, state, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (*draw(long, x), x))
        (dparams, dx), (y, after) = run(short, jn.to_stacked(short, params), jn.to_stacked(short, state), x)
        found = (jn.to_unstacked(short, dparams), dx), (y, jn.to_unstacked(short, after))
        expected = run(long, params, state, x)
    assert spec(found) == spec(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize(
    ("make", "width"),
    [(models.resnet18, 512), (models.resnet34, 512), (models.resnet50, 2048), (models.resnet50_v2, 2048)],
)
@pytest.mark.slow_cases("resnet34-512", "resnet50-2048", "resnet50_v2-2048")
def test_widths_of_deep_features(make: Callable[..., Net], width: int):
    net = make().upto("avgpool")
    trees = jax.eval_shape(net.init, jax.random.key(0), image(33))
    assert jax.eval_shape(net.apply, *trees, image(33))[0].shape == (1, width)


def test_deep_features_are_what_the_last_layer_reads():
    net, x = models.plain_cifar(8), X[:, :8, :8]
    params, state = draw(net, x)
    run = jax.jit(lambda *args: (net.upto("avgpool").apply(*args)[0], net.apply(*args)[0]))
    features, logits = map(np.asarray, run(params, state, x))
    assert features.shape == (2, 64)
    np.testing.assert_allclose(features @ params["fc"]["kernel"] + params["fc"]["bias"][None], logits, rtol=1e-5)


@pytest.mark.slow
def test_upto_reaches_into_a_block_whose_shortcut_starts_behind_its_activation():
    net, x = models.resnet50_v2(10), X[:, :16, :16]
    params, state = draw(net.upto("layer1"), x)
    block = net["layer1/0"]
    assert block.label == "residual(behind relu1)"

    @jax.jit
    def run(params, state, x):
        before, _ = net.upto("maxpool").apply(params, state, x)
        own, own_state = (tree["layer1"]["0"]["norm1"] for tree in (params, state))
        h = jax.nn.relu(block["norm1"].apply(own, own_state, before)[0])
        shortcut, _ = block["downsample"].apply(params["layer1"]["0"]["downsample"], {}, h)
        return h, net.upto("layer1/0/relu1").apply(params, state, x), shortcut

    h, (found, after), shortcut = run(params, state, x)
    np.testing.assert_array_equal(found, h)
    assert spec(after) == spec(state)
    cut = net.upto("layer1/0/conv1")
    found, after = jax.eval_shape(lambda *args: cut.apply(*args, train=True), params, state, x)
    assert found.shape == (2, 4, 4, 64)
    assert spec(after) == spec(state)
    found = jax.jit(lambda *args: net.upto("layer1/0/downsample").apply(*args)[0])(params, state, x)
    np.testing.assert_allclose(found, shortcut, rtol=1e-6, atol=1e-6)


ZEROED: dict[str, tuple[Callable[..., Net], str]] = {
    "resnet18": (models.resnet18, "bn2/scale"),
    "resnet34": (models.resnet34, "bn2/scale"),
    "resnet50": (models.resnet50, "bn3/scale"),
    "resnet101": (models.resnet101, "bn3/scale"),
    "resnet152": (models.resnet152, "bn3/scale"),
    "resnext50_32x4d": (models.resnext50_32x4d, "bn3/scale"),
    "resnext101_64x4d": (models.resnext101_64x4d, "bn3/scale"),
    "wide_resnet50_2": (models.wide_resnet50_2, "bn3/scale"),
    "wide_resnet101_2": (models.wide_resnet101_2, "bn3/scale"),
    "resnet_cifar": (lambda **options: models.resnet_cifar(20, **options), "bn2/scale"),
    "resnet18_v2": (models.resnet18_v2, "conv2/kernel"),
    "resnet34_v2": (models.resnet34_v2, "conv2/kernel"),
    "resnet50_v2": (models.resnet50_v2, "conv3/kernel"),
    "resnet101_v2": (models.resnet101_v2, "conv3/kernel"),
    "resnet152_v2": (models.resnet152_v2, "conv3/kernel"),
}


@pytest.mark.parametrize("name", ZEROED)
@pytest.mark.slow_cases(*ZEROED.keys() - {"resnet18", "resnet50", "resnet_cifar", "resnet18_v2", "resnet50_v2"})
def test_last_layers_start_at_zero_where_asked(name: str):
    make, path = ZEROED[name]
    layer, leaf = path.split("/")
    for zero in (False, True):
        net = make(zero_init_residual=zero)
        for place in ("layer1/0", "layer3/1"):
            params, _ = net[place][layer].init(jax.random.key(0), image(2, 1))
            assert (np.asarray(params[leaf]) == 0).all() == zero


@pytest.mark.parametrize(
    ("make", "channels", "after"), [(models.resnet18, 64, jax.nn.relu), (models.resnet50_v2, 256, lambda x: x)]
)
def test_such_blocks_start_as_the_identity(make: Callable[..., Net], channels: int, after: Callable):
    block = make(zero_init_residual=True)["layer1/1"]
    x = floats(1, 2, 2, channels)
    y, expected = jax.jit(lambda x: (block.apply(*block.init(jax.random.key(0), x), x)[0], after(x)))(x)
    np.testing.assert_array_equal(y, expected)


def test_kernels_start_by_hes_rule_over_the_features():
    net = models.resnet18()["layer2/0"]
    params, _ = jax.jit(net.init, static_argnums=1)(jax.random.key(0), image(8, 64))
    for kernel, fan_out in ((params["conv1"]["kernel"], 9 * 128), (params["downsample"]["0"]["kernel"], 128)):
        deviation = np.std(kernel) / np.sqrt(2 / fan_out)
        assert abs(deviation - 1) < 4 / np.sqrt(2 * kernel.size)


WRONG: list[Any] = ["2", 1.5, "D", None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: models.resnet50(version=WRONG[0]),
            r'^resnet50 expects version "1" or "1.5", got \'2\'; take resnet50_v2',
        ),
        (lambda: models.resnet101(version=WRONG[1]), r'^resnet101 expects version "1" or "1.5", got 1.5'),
        (lambda: models.resnet_cifar(18), r"^resnet_cifar expects a depth of 6 n \+ 2 with n ≥ 1, .* got 18"),
        (lambda: models.plain_cifar(2), r"^plain_cifar expects a depth of 6 n \+ 2 with n ≥ 1, .* got 2"),
        (
            lambda: models.resnet_cifar(20, shortcut=WRONG[2]),
            r'^resnet_cifar expects shortcut "A", "B" or "C", got \'D\'',
        ),
        (lambda: models.resnet_cifar(20, shortcut=WRONG[3]), "got None; the network without shortcuts is plain_cifar"),
        (lambda: models.resnet18(0), "features ≥ 1"),
    ],
)
def test_wrong_options_are_told(make: Callable[[], Net], message: str):
    with pytest.raises(jn.NetError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [models.resnet18, models.resnet50_v2, lambda: models.resnet_cifar(8)],
    ids=["resnet18", "resnet50_v2", "resnet_cifar"],
)
@pytest.mark.slow_cases("resnet18", "resnet50_v2")
def test_every_size_down_to_one_place_is_taken_and_none_is_told(make: Callable[[], Net]):
    net, key = make(), jax.random.key(0)
    for shape in ((2, 1, 1, 1), (2, 7, 40, 5)):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        params, state = jax.eval_shape(net.init, key, x)
        assert jax.eval_shape(net.apply, params, state, x)[0].shape[0] == 2
    for shape, place in (((2, 0, 32, 3), "conv1: conv"), ((2, 3072), "resnet"), ((32, 32, 3), "resnet")):
        with pytest.raises(jn.NetError, match=rf"^{place}.* expects"):
            jax.eval_shape(net.init, key, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_training_on_one_place_names_the_layer_without_statistics():
    net, x = models.resnet18(), image(32)
    trees = jax.eval_shape(net.init, jax.random.key(0), x)
    with pytest.raises(jn.NetError, match=r"^layer4/0/bn1: batch_norm\(\) expects more than one value"):
        jax.eval_shape(lambda params, state, x: net.apply(params, state, x, train=True), *trees, x)
