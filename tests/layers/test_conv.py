"""Convolution layers: values and gradients against PyTorch, and what they say when they are used wrong."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near, pull
from tests.oracle import floats, witness


@dataclass(frozen=True)
class Row:
    """One setting: `pad` and `crop` say what PyTorch pads before and crops after, as pairs for each axis."""

    net: jn.Net
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    pad: tuple[tuple[int, int], ...] = ()
    crop: tuple[tuple[int, int], ...] = ()


CONV = {
    "1d": Row(jn.conv(3, 3), (2, 7, 2), (3, 2, 3)),
    "1d_causal": Row(jn.conv(3, 3, padding=((2, 0),)), (2, 5, 2), (3, 2, 3), pad=((2, 0),)),
    "1d_dilated": Row(jn.conv(3, 2, dilation=3, stride=2), (2, 9, 2), (2, 2, 3), {"dilation": 3, "stride": 2}),
    "2d": Row(jn.conv(3, (3, 2)), (2, 5, 4, 2), (3, 2, 2, 3)),
    "2d_lenet": Row(jn.conv(2, 5, padding=2), (2, 6, 5, 1), (5, 5, 1, 2), {"padding": 2}),
    "2d_strided": Row(
        jn.conv(3, 3, stride=(2, 1), padding=(1, 0)), (2, 6, 5, 2), (3, 3, 2, 3), {"stride": (2, 1), "padding": (1, 0)}
    ),
    "2d_asymmetric": Row(
        jn.conv(2, 3, padding=((0, 1), (2, 0)), stride=2), (2, 6, 5, 2), (3, 3, 2, 2), {"stride": 2}, ((0, 1), (2, 0))
    ),
    "2d_same": Row(jn.conv(2, 3, padding="SAME"), (2, 4, 5, 2), (3, 3, 2, 2), {"padding": "same"}),
    "2d_same_even": Row(jn.conv(2, 4, padding="SAME"), (2, 5, 5, 1), (4, 4, 1, 2), pad=((1, 2), (1, 2))),
    "2d_same_strided": Row(
        jn.conv(2, 3, padding="SAME", stride=2), (2, 6, 5, 2), (3, 3, 2, 2), {"stride": 2}, ((0, 1), (1, 1))
    ),
    "2d_grouped": Row(jn.conv(4, 3, groups=2, padding=1), (2, 4, 5, 6), (3, 3, 3, 4), {"groups": 2, "padding": 1}),
    "2d_1x1": Row(jn.conv(3, 1), (2, 3, 4, 2), (1, 1, 2, 3)),
    "2d_1x1_strided": Row(
        jn.conv(3, 1, stride=2, padding=((1, 0), (0, 0))), (2, 4, 5, 2), (1, 1, 2, 3), {"stride": 2}, ((1, 0), (0, 0))
    ),
    "2d_no_bias": Row(jn.conv(3, 2, use_bias=False), (2, 4, 4, 2), (2, 2, 2, 3)),
    "2d_depthwise": Row(jn.depthwise_conv(3, padding=1), (2, 4, 5, 3), (3, 3, 1, 3), {"groups": 3, "padding": 1}),
    "2d_depthwise_twice": Row(
        jn.depthwise_conv(2, 2, stride=2), (2, 4, 5, 3), (2, 2, 1, 6), {"groups": 3, "stride": 2}
    ),
    "3d": Row(
        jn.conv(2, 2, stride=(1, 2, 1), dilation=(2, 1, 1)),
        (2, 4, 5, 3, 2),
        (2, 2, 2, 2, 2),
        {"stride": (1, 2, 1), "dilation": (2, 1, 1)},
    ),
}
TRANSPOSE = {
    "1d": Row(jn.conv_transpose(3, 3), (2, 4, 2), (3, 2, 3)),
    "1d_strided": Row(
        jn.conv_transpose(3, 4, stride=3, padding=1, output_padding=2),
        (2, 4, 2),
        (4, 2, 3),
        {"stride": 3, "padding": 1, "output_padding": 2},
    ),
    "1d_long_output_padding": Row(
        jn.conv_transpose(2, 2, dilation=3, output_padding=2),
        (2, 4, 2),
        (2, 2, 2),
        {"dilation": 3, "output_padding": 2},
    ),
    "2d": Row(
        jn.conv_transpose(3, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2)),
        (2, 3, 4, 2),
        (3, 2, 2, 3),
        {"stride": 2, "padding": (1, 0), "dilation": (1, 2)},
    ),
    "2d_dcgan": Row(
        jn.conv_transpose(2, 4, stride=2, padding=1), (2, 3, 3, 2), (4, 4, 2, 2), {"stride": 2, "padding": 1}
    ),
    "2d_grouped": Row(
        jn.conv_transpose(4, 3, groups=2, stride=2), (2, 3, 3, 6), (3, 3, 6, 2), {"groups": 2, "stride": 2}
    ),
    "2d_asymmetric": Row(
        jn.conv_transpose(2, 3, padding=((0, 1), (2, 0))), (2, 3, 4, 2), (3, 3, 2, 2), crop=((0, 1), (2, 0))
    ),
    "2d_same": Row(
        jn.conv_transpose(2, 3, stride=2, padding="SAME"),
        (2, 3, 4, 2),
        (3, 3, 2, 2),
        {"stride": 2},
        (),
        ((0, 1), (0, 1)),
    ),
    "2d_same_gaps": Row(
        jn.conv_transpose(2, 2, stride=3, padding="SAME"),
        (2, 3, 2, 2),
        (2, 2, 2, 2),
        {"stride": 3, "output_padding": 1},
    ),
    "2d_1x1": Row(jn.conv_transpose(3, 1, use_bias=False), (2, 3, 4, 2), (1, 1, 2, 3)),
    "3d": Row(jn.conv_transpose(2, 2, stride=2), (2, 2, 3, 2, 2), (2, 2, 2, 2, 2), {"stride": 2}),
}
ROWS = {("conv", name): row for name, row in CONV.items()} | {
    ("conv_transpose", name): row for name, row in TRANSPOSE.items()
}


@pytest.mark.parametrize(("kind", "name"), ROWS)
@pytest.mark.slow_cases(
    *("conv-1d", "conv-2d_lenet", "conv-2d_strided", "conv-2d_same_strided", "conv-2d_1x1", "conv-2d_depthwise_twice"),
    *("conv_transpose-1d", "conv_transpose-1d_long_output_padding", "conv_transpose-2d_dcgan"),
    *("conv_transpose-2d_same_gaps", "conv_transpose-3d"),
)
def test_values_and_gradients_match_pytorch(kind: str, name: str):
    row = ROWS[kind, name]
    x, kernel = floats(*row.x), floats(*row.kernel, seed=1, scale=0.5)
    params = {"kernel": kernel}
    made, _ = jax.eval_shape(row.net.init, jax.random.key(0), x)
    if "bias" in made:
        params["bias"] = floats(*made["bias"].shape, seed=2)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, made)
    g = floats(*jax.eval_shape(row.net.apply, made, {}, x)[0].shape, seed=3)
    rank = x.ndim - 2

    def compute() -> dict[str, np.ndarray]:
        import torch

        def first(array: np.ndarray) -> Any:  # (batch, *spatial, channels) to (batch, channels, *spatial)
            return torch.tensor(np.moveaxis(array, -1, 1)).requires_grad_()

        tx, tg = first(x), first(g)
        order = (-1, -2) if kind == "conv" else (-2, -1)
        weight = torch.tensor(np.moveaxis(kernel, order, (0, 1))).requires_grad_()
        bias = torch.tensor(params["bias"]).requires_grad_() if "bias" in params else None
        flat = [edge for pair in reversed(row.pad) for edge in pair]
        padded = torch.nn.functional.pad(tx, flat) if flat else tx
        y = getattr(torch.nn.functional, f"{kind}{rank}d")(padded, weight, bias, **row.options)
        y = y[(..., *(slice(low, y.shape[axis + 2] - high) for axis, (low, high) in enumerate(row.crop)))]
        y.backward(tg)
        assert tx.grad is not None
        assert weight.grad is not None
        answers = {
            "y": np.moveaxis(y.detach().numpy(), 1, -1),
            "dx": np.moveaxis(tx.grad.numpy(), 1, -1),
            "dkernel": np.moveaxis(weight.grad.numpy(), (0, 1), order),
        }
        return answers | ({} if bias is None or bias.grad is None else {"dbias": bias.grad.numpy()})

    answers = witness(f"layers/{kind}_{name}", compute)
    ours = pull(row.net, params, {}, x, g)
    assert ours.pop("state") == {}
    near(ours, answers)


@pytest.mark.parametrize(
    "net", [jn.conv(512, 3, groups=4), jn.conv_transpose(512, 3, groups=4)], ids=["conv", "transpose"]
)
def test_initial_kernels_have_variance_one_over_fan_in(net: jn.Net):
    params, _ = net.init(jax.random.key(3), jax.ShapeDtypeStruct((1, 9, 9, 64), jnp.float32))
    np.testing.assert_allclose(float(jnp.var(params["kernel"])) * 9 * 64 / 4, 1.0, rtol=0.02)
    assert not params["bias"].any()


def test_initializers_are_used():
    ones, twos = jax.nn.initializers.ones, jax.nn.initializers.constant(2.0)
    x = jnp.ones((1, 3, 3, 4))
    for net in (
        jn.conv(2, 3, kernel_init=ones, bias_init=twos),
        jn.conv_transpose(2, 3, padding=2, kernel_init=ones, bias_init=twos),
    ):
        y, _ = net.apply(*net.init(jax.random.key(0), x), x)
        np.testing.assert_array_equal(y, np.full((1, 1, 1, 2), 9 * 4 + 2.0))


def test_labels_are_as_written():
    assert repr(jn.conv(64, 3)) == "conv(64, 3)"
    assert repr(jn.conv(6, 5, padding=2)) == "conv(6, 5, padding=2)"
    assert repr(jn.depthwise_conv(3, 2, padding="SAME")) == "depthwise_conv(3, 2, padding='SAME')"
    assert repr(jn.conv_transpose(3, 4, stride=2, padding=1)) == "conv_transpose(3, 4, stride=2, padding=1)"


@pytest.mark.parametrize("make", [jn.conv, jn.depthwise_conv], ids=["conv", "depthwise"])
def test_padded_sequences_see_zeros_past_their_ends(make):
    lengths = [2, 5, 3]
    values = floats(3, 5, 2)
    junk = np.where(np.arange(5)[None, :, None] < np.array(lengths)[:, None, None], values, np.float32(np.nan))
    net = make(4, 3, padding="SAME") if make is jn.conv else make(3, padding="SAME")
    params, state = net.init(jax.random.key(0), values)

    @jax.jit
    def run(params, padded, values):
        alone = [net.apply(params, state, values[k : k + 1, :n])[0] for k, n in enumerate(lengths)]
        return net.apply(params, state, padded)[0], alone

    y, alone = run(params, jn.Padded(jnp.asarray(junk), jnp.asarray(lengths)), values)
    for k, n in enumerate(lengths):
        near(y.values[k, :n], alone[k][0], 1e-6)
    with pytest.raises(jn.NetError, match="must keep batch and time"):
        jn.conv(4, 3).apply(jn.conv(4, 3).init(jax.random.key(0), values)[0], {}, jn.Padded(values, y.lengths))
