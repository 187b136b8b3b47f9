"""A learned factor for each channel: values, gradients, precision, its name in PyTorch, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch, to_torch
from tests.oracle import floats

X, SCALE, G = floats(3, 4, 5, 2), floats(2, seed=1), floats(3, 4, 5, 2, seed=2)


def test_values_and_gradients_follow_the_formula():
    net = jn.layer_scale()
    y, back = jax.vjp(lambda params, x: net.apply(params, {}, x)[0], {"scale": SCALE}, X)
    dparams, dx = back(jnp.asarray(G))
    np.testing.assert_allclose(y, X * SCALE, rtol=1e-6)
    np.testing.assert_allclose(dx, G * SCALE, rtol=1e-6)
    np.testing.assert_allclose(dparams["scale"], np.einsum("nhwc,nhwc->c", G, X), rtol=1e-5, atol=1e-5)


def test_the_factor_starts_where_it_is_asked_to():
    for init, value in (({}, 1e-6), ({"scale_init": jax.nn.initializers.constant(0.1)}, 0.1)):
        params, state = jn.layer_scale(**init).init(jax.random.key(0), X)
        assert state == {}
        np.testing.assert_array_equal(params["scale"], np.full(2, value, np.float32))


def test_the_output_has_the_inputs_precision():
    params = {"scale": jnp.asarray(SCALE)}
    y, _ = jn.layer_scale().apply(params, {}, jnp.asarray(X, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize("scan", [False, True])
def test_in_pytorch_it_is_a_parameter_of_the_block(scan: bool):
    block = jn.residual(jn.serial(block=jn.conv(2, 1), layer_scale=jn.layer_scale()))
    net = jn.serial(jn.repeat(block, 2) if scan else jn.serial(block, block))
    tensors = {}
    for k in range(2):
        name = f"{k}" if scan else f"0.{k}"
        tensors[f"{name}.block.weight"] = floats(2, 2, 1, 1, seed=k)
        tensors[f"{name}.block.bias"] = floats(2, seed=k)
        tensors[f"{name}.layer_scale"] = floats(2, 1, 1, seed=k)
    params, state = from_torch(net, tensors, X)
    inner = params["0"]["layer_scale"] if scan else params["0"]["1"]["layer_scale"]
    np.testing.assert_array_equal(inner["scale"][1] if scan else inner["scale"], floats(2, 1, 1, seed=1).ravel())
    back = to_torch(net, params, state, X)
    assert set(back) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(back[name], value)
    with pytest.raises(jn.NetError, match=r"misshapen .*layer_scale \(3, 1, 1\) for \(2, 1, 1\)"):
        from_torch(net, tensors | {next(n for n in tensors if "scale" in n): floats(3, 1, 1)}, X)


def test_mistakes_are_told():
    net = jn.layer_scale()
    with pytest.raises(jn.NetError, match=r"^layer_scale\(\) expects floating input, got int32"):
        net.init(jax.random.key(0), jnp.ones((2, 3), jnp.int32))
    with pytest.raises(jn.NetError, match=r"^layer_scale\(\) expects \(batch, \.\.\., channels\), got \(3,\)"):
        net.init(jax.random.key(0), jnp.ones(3))
    with pytest.raises(jn.NetError, match=r"^layer_scale\(\) has scale \(2,\), but input \(1, 3\) needs scale \(3,\)"):
        net.apply({"scale": SCALE}, {}, jnp.ones((1, 3)))
    with pytest.raises(jn.NetError, match=r"write scale_init= with one of jax.nn.initializers"):
        jn.layer_scale(**{"init_values": 1e-5})  # type: ignore[arg-type]  # the name in timm
