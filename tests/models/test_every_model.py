"""What is known of every model without running it: its parameter tree and its counts."""

import jax
import jax.numpy as jnp
import pytest

import jaxnets as jn
from jaxnets import models
from tests.models import (
    classics,
    convolutional,
    dense_prediction,
    generative,
    inceptions,
    lenets,
    recurrents,
    resnets,
    transformers,
)
from tests.models.row import Row
from tests.oracle import golden

ROWS: list[Row] = [
    *classics.ROWS,
    *generative.ROWS,
    *dense_prediction.ROWS,
    *inceptions.ROWS,
    *lenets.ROWS,
    *resnets.ROWS,
    *convolutional.ROWS,
    *recurrents.ROWS,
    *transformers.ROWS,
]

each_row = pytest.mark.parametrize("row", ROWS, ids=str)

# Smaller networks of the same families stay in the quick suite, and so do the deepest ones with their stages scanned.
large = pytest.mark.slow_cases(
    *("googlenet", "googlenet_heads", "googlenet_2014", "googlenet_2014_heads", "inception_v3", "inception_v3_heads"),
    *("inception_v2", "inception_v4", "inception_resnet_v2"),
    *("resnet34", "resnet50", "resnet101", "resnet152", "resnet50_v1", "resnet101_v1", "resnet152_v1"),
    *("resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *("resnet34_v2", "resnet50_v2", "resnet101_v2", "resnet152_v2", "resnet18_gray_10"),
    *("resnet_cifar_32", "resnet_cifar_44", "resnet_cifar_56", "resnet_cifar_110", "resnet_cifar_110_scan"),
    *("vit_b_16_scan", "vit_b_32", "vit_l_16"),
    *("gpt2", "gpt2_medium", "gpt2_large", "bert", "bert_classes", "bert_span"),
    *("mobilenet_v2_1.4", "efficientnet_b0", "densenet121", "convnext_tiny"),
    *("plain_cifar_110", "vgg13", "vgg13_bn", "vgg16_bn", "vgg19", "vgg19_bn"),
)


def test_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


@each_row
@large
def test_parameter_tree_is_golden_and_counts_are_exact(row: Row, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxnets.core.net.DEEP", 10**9)  # how values are drawn takes time, and changes no shape
    net = row.make()
    params, state = jax.eval_shape(net.init, jax.random.key(0), row.x)
    rows = [
        f"{kind} {path} {leaf.shape} {leaf.dtype}"
        for kind, tree in (("params", params), ("state", state))
        for path, leaf in jn.paths.paths(tree).items()
    ]
    golden(f"models/{row.name}", "\n".join([repr(net), *rows]) + "\n")
    assert jn.inspect.count_parameters(params) == row.parameters
    if row.multiply_adds is not None:
        assert jn.inspect.multiply_adds(net, row.x, params=params, state=state) == row.multiply_adds


IMAGES_ALONE = [
    row
    for row in (
        *classics.ROWS,
        *dense_prediction.ROWS,
        *inceptions.ROWS,
        *lenets.ROWS,
        *resnets.ROWS,
        *convolutional.ROWS,
    )
    # The first take any axes, `visual_questions` a pair.
    if not row.name.startswith(("linear", "mlp", "perceptron", "visual")) and len(row.x.shape) == 4
]
KEY = jax.random.key(0)


@pytest.mark.parametrize("row", IMAGES_ALONE, ids=str)
@large
def test_a_forgotten_axis_is_told(row: Row):
    x = jax.ShapeDtypeStruct(row.x.shape[:-1], row.x.dtype)
    words = (
        r"^\w+ expects \(batch, height, width, channels\), got \(1, \d+, \d+\); add the missing .* x\[\.\.\., None\]"
    )
    net = row.make()
    with pytest.raises(jn.NetError, match=words):
        jax.eval_shape(net.init, KEY, x)
    with pytest.raises(jn.NetError, match="^pre/net: " + words[1:]):
        jax.eval_shape(lambda x: jn.serial(pre=jn.serial(net=net)).apply({}, {}, x), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_in_front_are_warned_of_with_the_transpose_to_write(channels: int):
    net, x = models.resnet_cifar(8), jax.ShapeDtypeStruct((2, channels, 28, 28), jnp.float32)
    said = (
        rf"^resnet_cifar: \(2, {channels}, 28, 28\) looks like \(batch, channels, height, width\), but channels are "
        r"the last axis here: x\.transpose\(0, 2, 3, 1\)$"
    )
    with pytest.warns(UserWarning, match=said) as caught:
        params, state = jax.eval_shape(net.init, KEY, x)
    assert len(caught) == 1
    for applied in (net, net.upto("layer1")):
        with pytest.warns(UserWarning, match=said) as caught:
            jax.eval_shape(applied.apply, params, state, x)
        assert len(caught) == 1
    assert params["conv1"]["kernel"].shape == (3, 3, 28, 16)  # which is what went wrong without a word


def test_what_is_no_image_with_channels_in_front_is_not_warned_of():
    """Warnings are errors here: features of one place, stripes, gray images, color of three rows."""
    net = models.resnet_cifar(8)
    for shape in ((2, 1, 1, 64), (2, 1, 40, 1), (2, 1, 1, 5), (2, 3, 3, 8), (2, 3, 50, 3), (2, 8, 8, 8)):
        jax.eval_shape(net.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))
    with pytest.warns(UserWarning, match=r"\(batch, channels, length\).*x\.transpose\(0, 2, 1\)"):
        jax.eval_shape(models.cnn((4,), spatial_axes=1).init, KEY, jax.ShapeDtypeStruct((2, 3, 40), jnp.float32))


OTHER_AXES = [
    (lambda axes: models.cnn((4, 8), spatial_axes=axes), "cnn"),
    (lambda axes: models.unet(widths=(4, 8), spatial_axes=axes), "unet"),
    (lambda axes: models.conv_autoencoder((*(8, 6, 4)[:axes], 2), (4,), 3), "conv_autoencoder"),
    (lambda axes: models.conv_vae((*(8, 6, 4)[:axes], 2), (4,), 3), "conv_vae"),
]


@pytest.mark.parametrize(("make", "name"), OTHER_AXES)
def test_sequences_and_volumes_are_taken_where_asked_for(make, name):
    for axes in (1, 2, 3):
        net = make(axes)
        for other in (1, 2, 3):
            x = jax.ShapeDtypeStruct((2, *(8, 6, 4)[:other], 2), jnp.float32)
            if axes == other:
                params, state = jax.eval_shape(net.init, KEY, x)
                jax.eval_shape(net.apply, params, state, x)
                continue
            with pytest.raises(jn.NetError, match=rf"^{name} expects \(batch, [a-z, ]+\), got \(2, 8"):
                jax.eval_shape(net.init, KEY, x)
    with pytest.raises(jn.NetError, match=r"^(cnn|unet) expects spatial_axes 1, 2 or 3, got 4"):
        (models.unet if name == "unet" else models.cnn)(spatial_axes=4)
