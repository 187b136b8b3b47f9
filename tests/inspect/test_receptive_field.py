"""Receptive fields, against published ones and against the support of what networks compute."""

import time

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxnets as jn
from jaxnets.inspect import receptive_field
from tests.models.weights import draw
from tests.once import once
from tests.oracle import floats


def image(*size: int, channels: int = 3, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *size, channels), dtype)


def slim_alexnet() -> jn.Net:
    """TF-Slim's alexnet_v2, one channel wide."""
    return jn.serial(
        conv1=jn.conv(1, 11, stride=4),
        pool1=jn.max_pool(3, stride=2),
        conv2=jn.conv(1, 5, padding="SAME"),
        pool2=jn.max_pool(3, stride=2),
        conv3=jn.conv(1, 3, padding="SAME"),
        conv4=jn.conv(1, 3, padding="SAME"),
        conv5=jn.conv(1, 3, padding="SAME"),
        pool5=jn.max_pool(3, stride=2),
    )


def slim_vgg(*counts: int) -> jn.Net:
    layers = {}
    for block, count in enumerate(counts, start=1):
        layers |= {f"conv{block}_{place}": jn.conv(1, 3, padding="SAME") for place in range(1, count + 1)}
        layers[f"pool{block}"] = jn.max_pool(2)
    return jn.serial(**layers)


def slim_resnet(*counts: int) -> jn.Net:
    """TF-Slim's resnet_v1: the last unit of a block has its stride, and the shortcut is subsampled."""

    def unit(stride: int) -> jn.Net:
        body = jn.serial(jn.conv(1, 1), jn.conv(1, 3, stride=stride, padding=1), jn.conv(1, 1))
        return jn.residual(body, jn.max_pool(1, stride=stride) if stride > 1 else None, jax.nn.relu)

    blocks = [
        jn.serial(*(unit(1) for _ in range(count - 1)), unit(2 if number < 3 else 1))
        for number, count in enumerate(counts)
    ]
    return jn.serial(jn.conv(1, 7, stride=2, padding=3), jn.max_pool(3, stride=2, padding="SAME"), *blocks)


PUBLISHED = {
    "alexnet_v2": (slim_alexnet(), 195, 32, 64),
    "vgg_a": (slim_vgg(1, 1, 2, 2, 2), 150, 32, 59),
    "vgg_16": (slim_vgg(2, 2, 3, 3, 3), 212, 32, 90),
    "resnet_v1_50": (slim_resnet(3, 4, 6, 3), 483, 32, 239),
    "resnet_v1_101": (slim_resnet(3, 4, 23, 3), 1027, 32, 511),
    "resnet_v1_152": (slim_resnet(3, 8, 36, 3), 1507, 32, 751),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.slow_cases("resnet_v1_101", "resnet_v1_152")
def test_published_fields(name):
    """Araujo, Norris and Sim (2019), table 1. The size of the input does not matter."""
    net, size, stride, padding = PUBLISHED[name]
    field = receptive_field(net, image(224, 224))
    assert (field.size, field.stride, field.padding) == ((size, size), (stride, stride), (padding, padding))
    assert field.center == (((size - 1) / 2 - padding),) * 2
    assert field.unknown == ()


def test_fields_of_alexnet_by_layer():
    layers = receptive_field(slim_alexnet(), image(224, 224)).layers
    wanted = {"conv1": 11, "pool1": 19, "conv2": 51, "conv3": 99, "conv4": 131, "conv5": 163}
    assert {name: layers[name].size for name in wanted} == {name: (size, size) for name, size in wanted.items()}


def test_fields_of_vgg_by_layer():
    layers = receptive_field(slim_vgg(2, 2, 3, 3, 3), image(64, 64)).layers
    wanted = {"conv1_1": 3, "pool1": 6, "pool2": 16, "pool3": 44, "pool4": 100}
    assert {name: layers[name].size for name in wanted} == {name: (size, size) for name, size in wanted.items()}


RESNETS = {
    "resnet18": (jn.models.resnet18, 64, "layer4", 435),
    "resnet34": (jn.models.resnet34, 64, "layer4", 899),
    "resnet50": (jn.models.resnet50, 64, "layer4", 427),
    "resnet101": (lambda: jn.models.resnet101(scan=True), 64, "layer4", 971),
    "resnet152": (lambda: jn.models.resnet152(scan=True), 32, "layer4", 1451),
    "resnet_cifar_20": (lambda: jn.models.resnet_cifar(20), 32, "layer3", 81),
    "resnet_cifar_56": (lambda: jn.models.resnet_cifar(56), 32, "layer3", 249),
    "resnet_cifar_110": (lambda: jn.models.resnet_cifar(110, scan=True), 32, "layer3", 501),
}


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.slow_cases("resnet34", "resnet50", "resnet101", "resnet152", "resnet_cifar_56", "resnet_cifar_110")
def test_fields_of_resnets(name):
    """At 32 pixels the last stage of ResNet-152 has one unit, whose stride is still known."""
    make, side, layer, size = RESNETS[name]
    field = receptive_field(make(), image(side, side)).layers[layer]
    step = 4 if side == 32 and layer == "layer3" else 32
    assert (field.size, field.stride, field.padding) == ((size,) * 2, (step,) * 2, ((size - 1) // 2,) * 2)


@pytest.mark.slow
def test_resnet152_takes_seconds():
    net = jn.models.resnet152()
    started = time.process_time()
    assert receptive_field(net, image(224, 224)).whole
    assert time.process_time() - started < 10  # CPU time, about 2 s


def test_every_layer_has_a_field_and_dense_layers_see_everything():
    field = receptive_field(jn.models.lenet5(), image(28, 28, channels=1))
    assert list(field.layers) == list(jn.models.lenet5().children)
    assert [name for name, each in field.layers.items() if each.whole] == ["fc1", "relu3", "fc2", "relu4", "fc3"]
    assert (field.size, field.stride, field.whole) == ((28, 28), (None, None), True)
    unit = field.layers["flatten"]  # flattening keeps the field of a unit, but not its axes
    assert (unit.size, unit.stride) == ((16, 16), (None, None))


def test_layers_without_operations_have_the_field_of_their_input():
    net = jn.serial(
        jn.dropout(0.5),
        jn.conv(2, 3),
        jn.dropout(0.5),
        jn.residual(jn.serial(jn.conv(2, 3, padding=1), jn.dropout(0.5))),
    )
    layers = receptive_field(net, image(9, 9)).layers
    assert {path: each.size[0] for path, each in layers.items()} == {"0": 1, "1": 3, "2": 3, "3": 5, "3/0": 5, "3/1": 5}


def test_heads_that_run_in_training_only_have_no_field():
    body = jn.serial(conv=jn.conv(2, 3), out=jn.conv(2, 1))
    net = jn.auxiliary_heads(body, aux=(jn.serial(jn.avg_pool(2), jn.conv(1, 1)), "conv"))
    assert list(receptive_field(net, image(9, 9)).layers) == ["conv", "out"]


def test_a_repeat_has_the_field_of_its_last_copy():
    block = jn.serial(conv=jn.conv(2, 3, padding=1), relu=jax.nn.relu)
    fields = receptive_field(jn.serial(jn.conv(2, 1), jn.repeat(block, 5)), image(9, 9)).layers
    assert fields["1/conv"].size == fields["1"].size == (11, 11)


def test_settings_that_differ_by_axis_and_signals_in_time():
    net = jn.conv(2, (3, 5), stride=(2, 1), padding=((1, 0), (4, 0)), dilation=(1, 2))
    field = receptive_field(net, image(11, 12))
    assert (field.size, field.stride, field.padding) == ((3, 9), (2, 1), (1, 4))
    causal = jn.serial(*(jn.conv(2, 2, padding=((2**k, 0),), dilation=2**k) for k in range(4)))  # WaveNet's stack
    assert receptive_field(causal, image(40)).size == (16,)
    words = receptive_field(
        jn.serial(jn.embed(10, 4), jn.conv(2, 3, padding="SAME")), jax.ShapeDtypeStruct((1, 7), jnp.int32)
    )
    assert (words.size, words.stride) == ((3,), (1,))


def test_recurrent_layers_see_all_earlier_steps():
    field = receptive_field(jn.recurrent(jn.gru_cell(3)), image(5))
    np.testing.assert_array_equal(field.intervals[0], [[0] * 5, range(5)])
    assert (field.size, field.stride, field.whole) == ((5,), (None,), False)
    assert receptive_field(jn.bidirectional(jn.gru_cell(3)), image(5)).whole


def test_upsampling_has_fractional_strides():
    net = jn.serial(
        jn.max_pool(2), up=jn.conv_transpose(2, 4, stride=2, padding=1), more=jn.conv_transpose(2, 2, stride=2)
    )
    layers = receptive_field(net, image(16, 16)).layers
    assert (layers["up"].size, layers["up"].stride) == ((4, 4), (1, 1))
    assert (layers["more"].size, layers["more"].stride) == ((4, 4), (0.5, 0.5))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3), name="first")(x))
        x = linen.max_pool(x, (2, 2), (2, 2))
        return linen.Conv(4, (5, 5), (2, 2), padding="VALID", name="second")(x)


def test_flax_modules():
    field = receptive_field(Linen(), image(32, 32))
    assert (field.size, field.stride, field.padding) == ((12, 12), (4, 4), (1, 1))
    assert field.layers["Linen/first"].size == (3, 3)
    module = nnx.Conv(3, 4, (3, 3), (2, 2), rngs=nnx.Rngs(0))
    assert receptive_field(module, image(32, 32)).stride == (2, 2)


def test_a_plain_function():
    def blur(x, kernel):
        with jax.named_scope("blur"):
            y = jnp.stack([kernel[k] * jnp.roll(x, k, axis=1) for k in range(3)]).sum(0)
        return y[:, 2::2, ::-1]

    field = receptive_field(blur, image(9, 6), jnp.ones(3))
    assert list(field.layers) == ["blur"]
    rows, columns = field.intervals
    np.testing.assert_array_equal(rows, [[0, 2, 4, 6], [2, 4, 6, 8]])
    np.testing.assert_array_equal(columns, [range(5, -1, -1)] * 2)
    channels_first = receptive_field(lambda x: x[:, :, 1:, ::3], jnp.ones((1, 3, 8, 9)), axes=(2, 3))
    assert (channels_first.stride, channels_first.padding) == ((1, 3), (-1, 0))


def test_boxes_of_units():
    field = receptive_field(slim_alexnet(), image(224, 224)).layers["conv5"]
    assert field.units == (12, 12)
    assert field.box(0, 0) == ((-64, 98), (-64, 98))
    assert field.box(6, -1) == ((32, 194), (112, 274))
    up = receptive_field(jn.conv_transpose(1, 3, stride=2), image(4, 4))
    assert up.box(0, 8) == ((0, 0), (3, 3))
    with pytest.raises(jn.NetError, match=r"12 × 12 units, got \(12, 0\)"):
        field.box(12, 0)


def test_an_operation_without_a_rule_sees_everything_and_is_reported():
    field = receptive_field(lambda x: jnp.linalg.cholesky(x[..., 0]), jnp.ones((1, 8, 8, 1)))
    assert (field.unknown, field.size[0], field.stride[0]) == (("cholesky",), 8, None)
    field = receptive_field(lambda x: jnp.fft.fft(x, axis=1).real, jnp.ones((1, 8, 5, 1)))
    assert (field.unknown, field.size, field.stride) == ((), (8, 1), (None, 1))


def test_mistakes():
    with pytest.raises(jn.NetError, match=r"does not depend on \(1, 4, 4, 3\)"):
        receptive_field(lambda x: jnp.ones(3), image(4, 4))
    with pytest.raises(jn.NetError, match="one array"):
        receptive_field(jn.dense(3), jn.Padded(jnp.ones((1, 4, 3)), jnp.array([2])))


def check_intervals(field: jn.inspect.ReceptiveField, dependence: np.ndarray) -> None:
    """Check the intervals against a boolean dependence `(height, width, rows, columns, channels)`."""
    for interval, others in zip(field.intervals, ((1, 3, 4), (0, 2, 4))):
        seen = np.asarray(dependence.any(others))
        first, last = seen.argmax(0), len(seen) - 1 - seen[::-1].argmax(0)
        hull = np.where(seen.any(0), [first, last], [[1], [0]])
        np.testing.assert_array_equal(np.broadcast_to(interval, hull.shape), hull)


sizes = st.tuples(st.integers(1, 3), st.integers(1, 3))
pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)
ones = jax.nn.initializers.ones


@st.composite
def layers(draw, depth: int = 0):
    kinds = ["conv", "max_pool", "avg_pool", "transpose", "flip", "repeat", *["residual", "branches"] * (depth < 2)]
    kind = draw(st.sampled_from(kinds))
    window, stride, dilation = draw(sizes), draw(sizes), draw(st.sampled_from([(1, 1), (2, 1), (1, 3)]))
    if kind == "conv":
        return jn.conv(2, window, stride=stride, padding=draw(pairs), dilation=dilation, kernel_init=ones)
    if kind == "max_pool":
        return jn.max_pool(window, stride=stride, dilation=dilation, ceil_mode=draw(st.booleans()))
    if kind == "avg_pool":
        return jn.avg_pool(window, stride=stride, padding=tuple(draw(st.integers(0, w // 2)) for w in window))
    if kind == "transpose":
        return jn.conv_transpose(2, window, stride=stride, dilation=dilation, kernel_init=ones)
    if kind == "flip":
        return lambda x: x[:, ::-1]
    same = jn.conv(2, window, padding="SAME", kernel_init=ones)
    if kind == "repeat":
        return jn.serial(jn.conv(2, 1, kernel_init=ones), jn.repeat(same, 2))
    if kind == "residual":
        return jn.residual(
            jn.serial(draw(layers(depth + 1)), jn.conv(2, 1, kernel_init=ones), fit), lambda x: x[..., :1]
        )
    return jn.branches(jn.concatenate, same, jn.max_pool(3, stride=1, padding=1))


def fit(y):
    return y


@hypothesis.given(st.lists(layers(), min_size=1, max_size=4), st.integers(5, 9), st.integers(5, 9))
@pytest.mark.slow
def test_intervals_are_the_support(chosen, height, width):
    """With all weights 1, a unit is nonzero for an image of one bright pixel if it depends on that pixel."""
    net = jn.serial(*chosen)
    x = image(height, width, channels=1)
    try:
        params, state = net.init(jax.random.key(0), x)
    except jn.NetError:  # a kernel larger than its input, or sides of a residual that differ in shape
        hypothesis.reject()
    pixels = jnp.eye(height * width).reshape(-1, height, width, 1)
    y = np.asarray(jax.jit(lambda x: net.apply(params, state, x)[0])(pixels))
    hypothesis.assume(y.any())  # with stride 3 a window may see only padding
    check_intervals(receptive_field(net, x), y.reshape(height, width, *y.shape[1:]) > 0)


NETS = {
    "dilated": jn.serial(
        jn.conv(2, 3, dilation=2, padding=2),
        jnp.tanh,
        jn.avg_pool(2, stride=1),
        jn.conv(1, (3, 1), stride=2, padding=1),
    ),
    "branches": jn.branches(jn.concatenate, jn.conv(1, 3, padding=1), jn.serial(jn.conv(1, 5, padding=2), jnp.tanh)),
    "hourglass": jn.serial(
        jn.conv(2, 3, stride=2, padding=1),
        jnp.tanh,
        jn.conv_transpose(2, 3, stride=2, padding=1),
        jn.avg_pool(3, stride=1),
    ),
    "resized": jn.serial(
        jn.avg_pool(2), lambda x: jax.image.resize(x, (1, 7, 9, x.shape[-1]), "linear"), jn.adaptive_avg_pool((3, 4))
    ),
    "nearest": jn.serial(jn.conv(1, 3), lambda x: jax.image.resize(x, (1, 14, 12, 1), "nearest"), jn.conv(1, 3)),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.slow_cases("resized")
def test_intervals_are_the_support_of_the_gradient(name):
    net, x = NETS[name], floats(1, 8, 9, 1, seed=3).astype(np.float64)
    with jax.enable_x64(True):
        params, state = jax.tree.map(lambda leaf: np.abs(leaf).astype(np.float64) + 0.1, draw(net, x))
        gradient = once(jax.jacrev(lambda x: net.apply(params, state, x)[0]), x)  # (1, *units, 1, height, width, 1)
        dependence = np.moveaxis(np.asarray(gradient)[0, ..., 0, :, :, 0] != 0, (-2, -1), (0, 1))
        check_intervals(receptive_field(net, x), dependence)
