"""Settings that weights of Flax do not show: where the module is given, a difference is an error that is right."""

import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

import jaxnets as jn
from jaxnets.interop import from_flax, settings
from tests.interop.counterparts import MAPS, SEQUENCES
from tests.interop.refusal import refused
from tests.interop.test_flax import LAYERS, Cells, Layers, variables
from tests.models.weights import draw
from tests.once import once
from tests.oracle import floats, integers

WIDE = floats(2, 7, 6, 4)

FLAX: dict[str, tuple[Any, Any, Any, Any, str]] = {
    "layer_norm": (
        jn.layer_norm(),
        jn.layer_norm(epsilon=1e-6),
        nn.LayerNorm(),
        1e-3 * floats(2, 6),
        "layers_0: LayerNorm has epsilon=1e-06, got 1e-05",
    ),
    "conv": (
        jn.conv(2, 2, stride=2),
        jn.conv(2, 2, padding="SAME"),
        nn.Conv(2, (2,)),
        SEQUENCES,
        "layers_0: Conv has stride=(1,), got (2,), layers_0: Conv has padding=((0, 1),), got ((0, 0),)",
    ),
    "causal": (
        jn.conv(2, 3),
        jn.conv(2, 3, padding=((4, 0),), dilation=2),
        nn.Conv(2, (3,), padding="CAUSAL", kernel_dilation=2),
        SEQUENCES,
        "layers_0: Conv has padding=((4, 0),), got ((0, 0),), layers_0: Conv has dilation=(2,), got (1,)",
    ),
    "conv_transpose": (
        jn.conv_transpose(4, 3, stride=2),
        jn.conv_transpose(4, 3, stride=2, padding=((1, 0), (1, 0))),
        nn.ConvTranspose(4, (3, 3), (2, 2), padding=((1, 2), (1, 2)), transpose_kernel=True),
        WIDE,
        "layers_0: ConvTranspose has padding=((1, 0), (1, 0)), got ((0, 0), (0, 0))",
    ),
    "group_norm": (
        jn.group_norm(2),
        jn.group_norm(4, epsilon=1e-6),
        nn.GroupNorm(4),
        1e-3 * MAPS,
        "layers_0: GroupNorm has epsilon=1e-06, got 1e-05, layers_0: GroupNorm has groups=4, got 2",
    ),
    "rms_norm": (
        jn.rms_norm(epsilon=1e-3),
        jn.rms_norm(),
        nn.RMSNorm(),
        1e-2 * MAPS,
        "layers_0: RMSNorm has epsilon=1e-06, got 0.001",
    ),
    "batch_norm": (
        jn.batch_norm(),
        jn.batch_norm(decay=0.99, unbiased=False),
        nn.BatchNorm(use_running_average=True),
        MAPS,
        "layers_0: BatchNorm has decay=0.99, got 0.9, layers_0: BatchNorm has unbiased=False, got True",
    ),
    "another norm": (
        jn.layer_norm(epsilon=1e-6),
        jn.group_norm(1, epsilon=1e-6),
        nn.GroupNorm(1),
        MAPS,
        "layers_0 is layer_norm, but the module is GroupNorm",
    ),
}


def same_outputs(net: jn.Net, module: nn.Module, given: Any, x: np.ndarray) -> None:
    trees = from_flax(net, given, x, module=module)
    y, want = once(
        lambda trees, given, x: (net.apply(trees[0], trees[1], x)[0], module.apply(given, x)), trees, given, x
    )
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


@pytest.mark.promotes
@pytest.mark.parametrize("name", FLAX)
def test_what_the_message_says_makes_flaxs_outputs(name: str):
    wrong, right, layer, x, message = FLAX[name]
    theirs = nn.Sequential([layer])
    given = variables(theirs, x)
    refused(message, lambda: from_flax(jn.serial(layers_0=wrong), given, x, module=theirs))
    net = jn.serial(layers_0=right)
    same_outputs(net, theirs, given, x)


@pytest.mark.promotes
@pytest.mark.parametrize("padding", ["SAME", "VALID", 1, ((1, 2),)], ids=str)
@pytest.mark.parametrize("sizes", [(3, 1, 1), (2, 3, 1), (4, 2, 1), (3, 2, 2)], ids=str)
@pytest.mark.slow_cases(
    *(f"{sizes}-{padding}" for sizes in ("(3, 1, 1)", "(4, 2, 1)") for padding in ("SAME", "VALID", "1"))
)
def test_a_transposed_convolution_of_flax_is_ours_with_the_padding_that_is_named(sizes, padding):
    window, stride, dilation = sizes
    turns = {"transpose_kernel": stride == 2}
    theirs = nn.ConvTranspose(3, (window,), (stride,), kernel_dilation=dilation, padding=padding, **turns)
    x = floats(2, 5, 3)
    given, found = variables(theirs, x), settings.theirs_of(theirs)
    assert found
    named = dict(found.values)
    if named["padding"][0][0] < 0:
        assert sizes == (2, 3, 1)  # Flax adds places in front, which no transposed convolution has
        return
    net = jn.conv_transpose(3, named.pop("kernel_size"), **named)
    same_outputs(net, theirs, given, x)


@pytest.mark.parametrize("sizes", [(3, 1, 1), (2, 3, 1), (4, 3, 1), (3, 2, 2)], ids=str)
def test_padding_said_by_a_word_is_what_it_is_in_numbers(sizes):
    window, stride, dilation = sizes
    x = floats(2, 6, 3)
    for make, options in ((jn.conv_transpose, {"stride": stride}), (jn.conv, {})):
        net = make(3, window, padding="SAME", dilation=dilation, **options)
        found = settings.ours_of(net, 1)
        assert found
        names = {"padding", "output_padding"} if make is jn.conv_transpose else {"padding"}
        numbers = {name: found.values[name] for name in names}
        again = make(3, window, dilation=dilation, **options, **numbers)
        ways = jax.jit(lambda params, x, nets=(again, net): [each.apply(params, {}, x)[0] for each in nets])
        np.testing.assert_array_equal(*ways(draw(net, x)[0], x))


@pytest.mark.promotes
def test_every_module_of_a_flax_network_is_compared():
    x = floats(2, 6, 5, 4)
    refused(
        "1: BatchNorm has decay=0.99, got 0.9, 1: BatchNorm has unbiased=False, got True",
        lambda: from_flax(LAYERS, variables(Layers(), x), x, rename={"stem": "0"}, module=Layers()),
    )
    cells = jn.recurrent(jn.rnn_cell(4, activation=jax.nn.relu), jn.lstm_cell(4), reverse=True)
    first = jn.serial(jn.embed(7, 3), jn.recurrent(jn.lstm_cell(4)), jn.recurrent(jn.gru_cell(4)))
    net = jn.serial(*first.children.values(), cells, jn.bidirectional(jn.lstm_cell(3)))
    steps = integers(2, 5, high=7)
    for line in (
        "3/0: SimpleCell has activation='tanh', got 'relu'",
        "3/0: RNN has reverse=False, got True",
        "3/1: RNN has reverse=False, got True",
    ):
        with pytest.raises(jn.NetError, match=re.escape(line)):
            from_flax(net, variables(Cells(), steps), steps, module=Cells())


@pytest.mark.promotes
def test_a_module_that_takes_more_than_x_is_called_by_a_function():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: Any, *, train: bool) -> Any:
            return nn.Dropout(0.3, deterministic=not train, name="drop")(nn.Dense(2, name="fc")(x))

    net, x, model = jn.serial(fc=jn.dense(2), drop=jn.dropout(0.1)), floats(1, 3), Model()
    given = model.init(jax.random.key(0), x, train=False)
    with pytest.raises(jn.NetError, match=r"can't call the module: .*train.*functools\.partial\(module\.init"):
        from_flax(net, given, x, module=model)
    call = partial(model.init, train=False)
    refused("drop: Dropout has rate=0.3, got 0.1", lambda: from_flax(net, given, x, module=call))


@pytest.mark.promotes
def test_modules_of_nnx_are_compared():
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.rest = nnx.List([nnx.LayerNorm(4, rngs=rngs)])

    model, x = Model(nnx.Rngs(0)), floats(2, 5, 5, 3)
    given = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    net = jn.serial(conv=jn.conv(4, 3), rest=jn.serial(jn.layer_norm()))
    refused(
        "conv: Conv has padding=((1, 1), (1, 1)), got ((0, 0), (0, 0)), rest/0: LayerNorm has epsilon=1e-06, got 1e-05",
        lambda: from_flax(net, given, x, module=model),
    )
    net = jn.serial(conv=jn.conv(4, 3, padding=1), rest=jn.serial(jn.layer_norm(epsilon=1e-6)))
    trees = from_flax(net, given, x, module=model)
    y, want = jax.jit(lambda trees, x: (net.apply(trees[0], trees[1], x)[0], model.rest[0](model.conv(x))))(trees, x)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "net", "message"),
    [
        (
            nn.LayerNorm(reduction_axes=(1, 2)),
            jn.layer_norm(epsilon=1e-6),
            "has reduction_axes=(1, 2), which layer_norm",
        ),
        (nn.LayerNorm(feature_axes=(1, 2)), jn.layer_norm(axis=(1, 2), epsilon=1e-6), "has reduction_axes=-1, which"),
        (nnx.BatchNorm(4, epsilon=1e-3, rngs=nnx.Rngs(0)), jn.batch_norm(decay=0.99), "has epsilon=0.001, got 1e-05"),
        (nnx.BatchNorm(4, rngs=nnx.Rngs(0)), jn.batch_norm(unbiased=False), "has decay=0.99, got 0.9;"),
        (nnx.BatchNorm(4, rngs=nnx.Rngs(0)), jn.batch_norm(decay=0.99), "it: BatchNorm has unbiased=False, got True;"),
        (
            nnx.ConvTranspose(4, 4, (3, 3), transpose_kernel=True, rngs=nnx.Rngs(0)),
            jn.conv_transpose(4, 3),
            "has padding=((1, 1), (1, 1)), got ((0, 0), (0, 0))",
        ),
    ],
    ids=["reduced axes", "feature axes", "ε in NNX", "momentum in NNX", "variance in NNX", "transposed in NNX"],
)
@pytest.mark.promotes
def test_settings_of_norms_and_kernels_are_compared(module: Any, net: jn.Net, message: str):
    x = floats(2, 5, 4, 4)
    if isinstance(module, nn.Module):
        given: Any = variables(module, x)
    else:
        given = nnx.to_pure_dict(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    with pytest.raises(jn.NetError, match=re.escape(message)):
        from_flax(net, given, x, module=module)
