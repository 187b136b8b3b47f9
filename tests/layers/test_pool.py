"""Pooling layers: values and gradients against PyTorch, and what they say when they are used wrong."""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near, pull
from tests.oracle import floats, integers, witness


@dataclass(frozen=True)
class Row:
    """One setting, the function of PyTorch with its options, and what that pads with before."""

    net: Any
    x: tuple[int, ...]
    function: str
    options: dict[str, Any] = field(default_factory=dict)
    pad: tuple[tuple[int, int], ...] = ()
    ties: bool = False


INF = float("inf")
ROWS = {
    "max_1d": Row(jn.max_pool(2), (2, 7, 2), "max_pool1d", {"kernel_size": 2}),
    "max_2d": Row(jn.max_pool(2), (2, 4, 5, 2), "max_pool2d", {"kernel_size": 2}, ties=True),
    "max_2d_overlapping": Row(
        jn.max_pool(3, stride=2, padding=1),
        (2, 7, 6, 2),
        "max_pool2d",
        {"kernel_size": 3, "stride": 2, "padding": 1},
        ties=True,
    ),
    "max_2d_ceil": Row(
        jn.max_pool(3, stride=2, ceil_mode=True),
        (2, 6, 7, 2),
        "max_pool2d",
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    ),
    "max_2d_ceil_dropped": Row(
        jn.max_pool(2, stride=3, padding=1, ceil_mode=True),
        (2, 5, 6, 2),
        "max_pool2d",
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    ),
    "max_2d_ceil_small": Row(
        jn.max_pool(4, ceil_mode=True), (2, 3, 5, 1), "max_pool2d", {"kernel_size": 4, "ceil_mode": True}
    ),
    "max_2d_dilated": Row(
        jn.max_pool((2, 3), stride=1, dilation=(3, 1)),
        (2, 6, 5, 2),
        "max_pool2d",
        {"kernel_size": (2, 3), "stride": 1, "dilation": (3, 1)},
        ties=True,
    ),
    "max_2d_asymmetric": Row(
        jn.max_pool(3, stride=1, padding=((0, 1), (2, 0))),
        (2, 4, 5, 1),
        "max_pool2d",
        {"kernel_size": 3, "stride": 1},
        ((0, 1), (2, 0)),
    ),
    "max_2d_same": Row(
        jn.max_pool(3, stride=2, padding="SAME"),
        (2, 6, 5, 1),
        "max_pool2d",
        {"kernel_size": 3, "stride": 2},
        ((0, 1), (1, 1)),
    ),
    "max_2d_long": Row(
        jn.max_pool((1, 11), stride=1, padding=(0, 5)),
        (2, 2, 13, 1),
        "max_pool2d",
        {"kernel_size": (1, 11), "stride": 1, "padding": (0, 5)},
        ties=True,
    ),
    "max_3d": Row(jn.max_pool(2, stride=1), (2, 3, 2, 4, 2), "max_pool3d", {"kernel_size": 2, "stride": 1}, ties=True),
    "avg_1d": Row(jn.avg_pool(3, stride=2), (2, 8, 2), "avg_pool1d", {"kernel_size": 3, "stride": 2}),
    "avg_2d": Row(jn.avg_pool(2), (2, 4, 5, 2), "avg_pool2d", {"kernel_size": 2}),
    "avg_2d_padded": Row(
        jn.avg_pool(3, stride=2, padding=1), (2, 5, 6, 2), "avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}
    ),
    "avg_2d_true": Row(
        jn.avg_pool(3, stride=2, padding=1, count_include_pad=False),
        (2, 5, 6, 2),
        "avg_pool2d",
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    ),
    "avg_2d_ceil": Row(
        jn.avg_pool(3, stride=2, padding=1, ceil_mode=True),
        (2, 6, 7, 2),
        "avg_pool2d",
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    "avg_2d_ceil_true": Row(
        jn.avg_pool((3, 2), stride=(2, 3), padding=1, ceil_mode=True, count_include_pad=False),
        (2, 6, 5, 2),
        "avg_pool2d",
        {"kernel_size": (3, 2), "stride": (2, 3), "padding": 1, "ceil_mode": True, "count_include_pad": False},
    ),
    "avg_2d_ceil_dropped": Row(
        jn.avg_pool(2, stride=3, padding=1, ceil_mode=True),
        (2, 5, 6, 2),
        "avg_pool2d",
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    ),
    "avg_2d_asymmetric": Row(
        jn.avg_pool(3, stride=1, padding=((0, 1), (2, 0))),
        (2, 4, 5, 1),
        "avg_pool2d",
        {"kernel_size": 3, "stride": 1},
        ((0, 1), (2, 0)),
    ),
    "avg_2d_long": Row(jn.avg_pool((1, 11)), (2, 2, 13, 1), "avg_pool2d", {"kernel_size": (1, 11)}),
    "avg_2d_dilated": Row(
        jn.avg_pool((2, 3), stride=(1, 2), padding=1, dilation=(3, 2)),
        (2, 6, 7, 2),
        "unfold",
        {"kernel_size": (2, 3), "stride": (1, 2), "padding": 1, "dilation": (3, 2)},
    ),
    "avg_3d": Row(
        jn.avg_pool(2, padding=1, count_include_pad=False),
        (2, 3, 2, 4, 1),
        "avg_pool3d",
        {"kernel_size": 2, "padding": 1, "count_include_pad": False},
    ),
    "adaptive_1d": Row(jn.adaptive_avg_pool(3), (2, 7, 2), "adaptive_avg_pool1d", {"output_size": 3}),
    "adaptive_2d": Row(jn.adaptive_avg_pool((2, 5)), (2, 6, 7, 2), "adaptive_avg_pool2d", {"output_size": (2, 5)}),
    "adaptive_2d_up": Row(jn.adaptive_avg_pool(5), (2, 3, 4, 1), "adaptive_avg_pool2d", {"output_size": 5}),
    "adaptive_2d_kept": Row(
        jn.adaptive_avg_pool((None, 7)), (2, 6, 5, 2), "adaptive_avg_pool2d", {"output_size": (None, 7)}
    ),
    "adaptive_3d": Row(jn.adaptive_avg_pool(2), (2, 3, 2, 5, 1), "adaptive_avg_pool3d", {"output_size": 2}),
    "adaptive_max_1d": Row(jn.adaptive_max_pool(3), (2, 7, 2), "adaptive_max_pool1d", {"output_size": 3}, ties=True),
    "adaptive_max_2d": Row(
        jn.adaptive_max_pool((2, 5)), (2, 6, 7, 2), "adaptive_max_pool2d", {"output_size": (2, 5)}, ties=True
    ),
    "adaptive_max_2d_up": Row(jn.adaptive_max_pool(5), (2, 3, 4, 1), "adaptive_max_pool2d", {"output_size": 5}),
    "adaptive_max_2d_kept": Row(
        jn.adaptive_max_pool((None, 7)), (2, 6, 5, 2), "adaptive_max_pool2d", {"output_size": (None, 7)}, ties=True
    ),
    "adaptive_max_3d": Row(
        jn.adaptive_max_pool(2), (2, 3, 2, 5, 1), "adaptive_max_pool3d", {"output_size": 2}, ties=True
    ),
    "global_avg": Row(jn.as_net(jn.global_avg_pool), (2, 3, 4, 2), "mean", {"dim": (2, 3)}),
    "global_max": Row(
        jn.as_net(jn.global_max_pool), (2, 3, 4, 2), "adaptive_max_pool2d", {"output_size": 1}, ties=True
    ),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.slow_cases(
    *("max_1d", "max_2d", "max_2d_overlapping", "max_2d_ceil_small", "max_2d_ceil_dropped", "max_2d_long"),
    *("avg_2d", "avg_2d_true", "avg_2d_ceil_true", "avg_2d_ceil_dropped", "avg_2d_long", "avg_3d"),
    *("adaptive_2d_kept", "adaptive_3d", "adaptive_max_2d_up", "adaptive_max_2d_kept", "adaptive_max_3d"),
)
def test_values_and_gradients_match_pytorch(name: str):
    row = ROWS[name]
    x = integers(*row.x, high=3).astype(np.float32) if row.ties else floats(*row.x)  # few values, hence ties
    g = floats(*jax.eval_shape(row.net.apply, {}, {}, x)[0].shape, seed=3)

    def compute() -> dict[str, np.ndarray]:
        import torch

        tx = torch.tensor(np.moveaxis(x, -1, 1)).requires_grad_()
        flat = [edge for pair in reversed(row.pad) for edge in pair]
        edge = -INF if row.function.startswith("max") else 0.0
        padded = torch.nn.functional.pad(tx, flat, value=edge) if flat else tx
        y = getattr(torch.nn.functional, row.function, None) or getattr(torch, row.function)
        y = y(padded, **row.options)
        if row.function == "unfold":  # (batch, channels · window, out)
            shape = np.moveaxis(g, -1, 1).shape
            y = y.reshape(*shape[:2], -1, math.prod(shape[2:])).mean(2).reshape(shape)
        y = y.reshape(np.moveaxis(g, -1, 1).shape)  # a global pool keeps no axes of length 1
        y.backward(torch.tensor(np.moveaxis(g, -1, 1)))
        assert tx.grad is not None
        return {"y": np.moveaxis(y.detach().numpy(), 1, -1), "dx": np.moveaxis(tx.grad.numpy(), 1, -1)}

    answers = witness(f"layers/pool_{name}", compute)
    ours = pull(row.net, {}, {}, x, g)
    assert ours.pop("state") == {}
    near(ours, answers, 1e-6)


@pytest.mark.parametrize("include", [True, False])
def test_dilated_means_by_hand(include: bool):
    """In float64, on one axis, with the padding in the mean or not."""
    x, out = floats(1, 7, 1), np.zeros(5)
    for i in range(5):
        seen = [i + j * 2 - 1 for j in range(3)]
        inside = [float(x[0, place, 0]) for place in seen if 0 <= place < 7]
        out[i] = sum(inside) / (3 if include else len(inside))
    y, _ = jn.avg_pool(3, stride=1, padding=1, dilation=2, count_include_pad=include).apply({}, {}, x)
    near(y[0, :, 0], out, 1e-6)


def test_an_axis_of_none_keeps_its_size_whatever_that_is():
    net = jn.adaptive_avg_pool((None, 1))
    for shape in ((2, 5, 4, 3), (2, 1, 7, 3)):
        x = floats(*shape)
        near(net.apply({}, {}, x)[0], x.mean(2, keepdims=True), 1e-6)
    assert repr(net) == "adaptive_avg_pool((None, 1))"
    for wrong in (None, (None, 0), (None, "7"), (None, None, None, None)):
        with pytest.raises(jn.NetError, match=r"expects output_size"):
            jn.adaptive_avg_pool(wrong)  # type: ignore[arg-type]
    with pytest.raises(jn.NetError, match=r"expects \(batch, height, width, channels\), got \(2, 5, 3\)"):
        net.apply({}, {}, floats(2, 5, 3))


def test_same_padding_that_does_not_count_matches_tensorflow():
    y, _ = jn.avg_pool(2, stride=2, padding="SAME", count_include_pad=False).apply({}, {}, jnp.ones((1, 5, 3, 1)))
    np.testing.assert_array_equal(y, np.ones((1, 3, 2, 1)))


@pytest.mark.parametrize("pool", [jn.global_avg_pool, jn.global_max_pool])
def test_global_pools_take_any_number_of_spatial_axes(pool):
    x = floats(2, 3, 4, 2, 5)
    expected = (np.mean if pool is jn.global_avg_pool else np.max)(x, axis=(1, 2, 3))
    near(pool(x), expected, 1e-6)
    near(pool(x[:, :, 0, 0]), (np.mean if pool is jn.global_avg_pool else np.max)(x[:, :, 0, 0], axis=1), 1e-6)
    assert repr(jn.serial(pool)) == f"serial\n└─ 0: {pool.__name__}"


def test_maxima_of_bins_keep_their_dtype_and_nan():
    x = jnp.asarray(floats(2, 7, 3, 2)).astype(jnp.bfloat16).at[0, 2, 1, 0].set(jnp.nan)
    y, _ = jn.adaptive_max_pool((3, 3)).apply({}, {}, x)
    assert y.dtype == jnp.bfloat16
    # Bins of 7 positions in 3: 0 to 2, 2 to 4, 4 to 6.
    assert np.argwhere(np.isnan(np.asarray(y, np.float32))).tolist() == [[0, 0, 1, 0], [0, 1, 1, 0]]
    near(y[1], np.stack([np.asarray(x[1, k : k + 3], np.float32).max(0) for k in (0, 2, 4)]), 0)


MISTAKES = {
    "size of zero": (
        lambda: jn.adaptive_max_pool(0),
        r"^adaptive_max_pool\(0\) expects output_size ≥ 1, got 0$",
    ),
    "no integer": (
        lambda: jn.adaptive_max_pool((2, 1.5)),  # type: ignore[arg-type]
        r"^adaptive_max_pool\(\(2, 1.5\)\) expects output_size as an integer or a tuple of integers, got \[2, 1.5\]$",
    ),
    "rank": (
        lambda: jn.adaptive_max_pool((2, 2)).apply({}, {}, jnp.ones((2, 5, 3))),
        r"^adaptive_max_pool\(\(2, 2\)\) expects \(batch, height, width, channels\), got \(2, 5, 3\); add the missing "
        r"axis, x\[None\] for the batch or x\[..., None\] for the channels$",
    ),
    "empty": (
        lambda: jn.adaptive_max_pool(2).apply({}, {}, jnp.ones((2, 0, 3))),
        r"^adaptive_max_pool\(2\) expects at least one position on every spatial axis, got \(2, 0, 3\)$",
    ),
    "integers": (
        lambda: jn.adaptive_max_pool(2).apply({}, {}, jnp.ones((2, 5, 3), int)),
        r"^adaptive_max_pool\(2\) expects floating input, got int32 \(2, 5, 3\); convert it, x.astype\(jnp.float32\) / "
        r"255 for images, or use jn.embed for indices$",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake: str):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()


def test_global_means_of_half_precision_are_summed_in_float32():
    y = jn.global_avg_pool(jnp.ones((1, 40, 40, 1), jnp.bfloat16))  # bfloat16 counts to 256
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0]) == 1.0


def test_labels_are_as_written():
    assert repr(jn.max_pool(2)) == "max_pool(2)"
    assert repr(jn.avg_pool((2, 3))) == "avg_pool((2, 3))"
    assert repr(jn.adaptive_avg_pool((1, 1))) == "adaptive_avg_pool((1, 1))"


@pytest.mark.parametrize(
    "net",
    [jn.max_pool(2), jn.avg_pool(2), jn.adaptive_avg_pool(2), jn.adaptive_max_pool(2)],
    ids=["max", "avg", "adaptive", "adaptive max"],
)
def test_padded_sequences_are_refused(net: jn.Net):
    sequences = jn.Padded(jnp.ones((2, 4, 3)), jnp.array([2, 4]))
    with pytest.raises(jn.NetError, match=r"inner: \w+_pool\(2\) takes no Padded sequences"):
        jn.serial(inner=net).apply({}, {}, sequences)


def test_errors_of_global_pools_called_as_functions_name_them():
    with pytest.raises(jn.NetError, match=r"^global_max_pool expects"):
        jn.global_max_pool(jnp.ones((2, 3)))
