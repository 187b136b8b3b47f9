from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from tests.layers.near import near, pull
from tests.oracle import floats, witness

SIZES = [2.0**-10, 0.25, 0.5, 1.0, 2.0, 20.0, 300.0, 2.0**100]  # all of them exact in bfloat16
GRID = np.array([*(-size for size in reversed(SIZES)), 0.0, *SIZES])
ACTIVATIONS = {
    "scaled_tanh": (jn.activations.scaled_tanh, lambda F, x: 1.7159 * (x * 2 / 3).tanh()),
    "hard_shrink": (jn.activations.hard_shrink, lambda F, x: F.hardshrink(x)),
    "hard_shrink_2": (partial(jn.activations.hard_shrink, threshold=2.0), lambda F, x: F.hardshrink(x, 2.0)),
    "soft_shrink": (jn.activations.soft_shrink, lambda F, x: F.softshrink(x)),
    "soft_shrink_2": (partial(jn.activations.soft_shrink, threshold=2.0), lambda F, x: F.softshrink(x, 2.0)),
    "hard_tanh": (jn.activations.hard_tanh, lambda F, x: F.hardtanh(x)),
    "hard_tanh_ends": (partial(jn.activations.hard_tanh, low=0.25, high=20.0), lambda F, x: F.hardtanh(x, 0.25, 20.0)),
    "hard_sigmoid": (
        jn.activations.hard_sigmoid,
        lambda F, x: F.relu6(x + 3) / 6,
    ),  # F.hardsigmoid has a slope of float32
    "hard_sigmoid_slope": (
        partial(jn.activations.hard_sigmoid, slope=0.5, offset=0.25),
        lambda F, x: F.hardtanh(0.5 * x + 0.25, 0.0, 1.0),
    ),
    "selu": (jn.activations.selu, lambda F, x: F.selu(x)),
    "selu_free": (partial(jn.activations.selu, alpha=0.5, scale=3.0), lambda F, x: 3 * F.elu(x, 0.5)),
    "tanh_shrink": (jn.activations.tanh_shrink, lambda F, x: F.tanhshrink(x)),
    "threshold": (jn.activations.threshold, lambda F, x: F.threshold(x, 1.0, 0.0)),
    "threshold_value": (
        partial(jn.activations.threshold, threshold=-0.5, value=7.0),
        lambda F, x: F.threshold(x, -0.5, 7.0),
    ),
}


def torch_values(function):
    import torch

    x = torch.tensor(GRID, requires_grad=True)
    y = function(torch.nn.functional, x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    return {"y": y.detach().numpy(), "dy": x.grad.numpy()}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_agrees_with_torch_up_to_extreme_inputs(name, dtype):
    ours, theirs = ACTIVATIONS[name]
    expected = witness(f"activations/{name}", lambda: torch_values(theirs))
    with jax.enable_x64(dtype == jnp.float64):

        @jax.jit
        def run(x):
            y, back = jax.vjp(ours, x)
            return y, back(jnp.ones_like(y))[0]

        y, dy = run(GRID.astype(dtype))
        assert y.dtype == dy.dtype == dtype
        tolerance = 4 * float(jnp.finfo(dtype).eps)
        for found, wanted in ((y, expected["y"]), (dy, expected["dy"])):
            np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=tolerance, atol=tolerance)


@given(x=st.floats(-1e6, 1e6, width=32), limit=st.floats(0.0, 100.0, width=32), value=st.floats(-9, 9, width=32))
def test_thresholds_are_as_defined(x, limit, value):
    """Each against its definition as a case distinction; the limits may be traced."""
    hard, soft, cut = (float(y) for y in _all(jnp.float32(x), jnp.float32(limit), jnp.float32(value)))
    assert hard == (x if abs(x) > limit else 0.0)
    assert soft == (
        np.float32(x) - np.float32(limit) if x > limit else np.float32(x) + np.float32(limit) if x < -limit else 0.0
    )
    assert cut == (x if x > limit else value)


@jax.jit
def _all(x, limit, value):
    return (
        jn.activations.hard_shrink(x, limit),
        jn.activations.soft_shrink(x, limit),
        jn.activations.threshold(x, limit, value),
    )


def test_the_defaults_are_those_of_jax():
    x = jnp.linspace(-4.0, 4.0, 101)
    for name in ("hard_tanh", "hard_sigmoid", "selu"):
        near(getattr(jn.activations, name)(x), getattr(jax.nn, name)(x), 1e-6)


def test_parameters_may_be_traced_and_the_ends_must_differ():
    x = jnp.array([-2.0, 0.3, 5.0])
    found = jax.jit(
        lambda a, b: (
            jn.activations.hard_tanh(x, a, b),
            jn.activations.hard_sigmoid(x, a, b),
            jn.activations.selu(x, a, b),
        )
    )(0.2, 0.5)
    near(found[0], [0.2, 0.3, 0.5], 1e-6)
    near(found[1], [0.1, 0.56, 1.0], 1e-6)
    near(found[2], [0.5 * 0.2 * np.expm1(-2.0), 0.15, 2.5], 1e-6)
    with pytest.raises(jn.NetError, match=r"hard_tanh expects low < high, got 1.0 and 1.0"):
        jn.activations.hard_tanh(x, 1.0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan(name):
    assert np.isnan(ACTIVATIONS[name][0](jnp.array([np.nan]))).all()


def test_scaled_tanh_has_the_fixed_points_of_the_paper():
    near(jn.activations.scaled_tanh(jnp.array([-1.0, 1.0])), [-1.0, 1.0], 1e-4)
    curvature = jax.vmap(jax.grad(jax.grad(jn.activations.scaled_tanh)))(jnp.linspace(0.0, 3.0, 301))
    assert abs(float(jnp.argmax(jnp.abs(curvature))) / 100 - 1) < 0.03


def test_labels_in_a_net():
    net = jn.serial(
        jn.activations.scaled_tanh, partial(jn.activations.hard_shrink, threshold=2.0), jn.prelu(per_channel=True)
    )
    assert [child.label for child in net.children.values()] == [
        "scaled_tanh",
        "hard_shrink(threshold=2.0)",
        "prelu(per_channel=True)",
    ]


def torch_prelu(x, slope, g):
    import torch

    layer = torch.nn.PReLU(len(slope)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(slope))
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    y.backward(torch.tensor(g, dtype=torch.float64))
    return {"y": y.detach().numpy(), "dx": np.asarray(x.grad), "dnegative_slope": np.asarray(layer.weight.grad)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_prelu_agrees_with_torch(channels, dtype):
    x, g, slope = floats(5, 3), floats(5, 3, seed=1), floats(channels, seed=2)
    x[0, 0] = 0.0
    expected = witness(f"layers/prelu_{channels}", lambda: torch_prelu(x, slope, g))
    with jax.enable_x64(dtype is np.float64):
        net = jn.prelu(per_channel=channels == 3)
        params, _ = net.init(jax.random.key(0), x)
        near(params["negative_slope"], np.full(channels, 0.25), 0)
        out = pull(net, {"negative_slope": jnp.asarray(slope, dtype)}, {}, x.astype(dtype), g.astype(dtype))
        near(out, {**expected, "state": {}}, 1e-6 if dtype is np.float32 else 1e-14)


def prelu(x, **options):
    net = jn.prelu(**options)
    return net.apply(net.init(jax.random.key(0), jnp.ones((1, 4)))[0], {}, x)


MISTAKES = {
    "integers": (lambda: prelu(jnp.ones((2, 4), int)), r"prelu\(\) expects floating input, got int32"),
    "rank": (lambda: prelu(jnp.ones(4)), r"expects \(batch, ..., channels\), got \(4,\)"),
    "channels": (lambda: prelu(jnp.ones((2, 3)), per_channel=True), r"has negative_slope \(4,\), but .* \(3,\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
