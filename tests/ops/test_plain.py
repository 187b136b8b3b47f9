"""`plain`: programs with standard operations alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats

NETS = {
    "3x3": jn.conv(5, 3, padding=1),
    "1x1, stride": jn.conv(5, 1, stride=2),
    "depthwise": jn.depthwise_conv(3),
    "transposed": jn.conv_transpose(5, 3, stride=2),
    "folded": jn.fold_batch_norm(jn.serial(conv=jn.conv(5, 3), relu=jax.nn.relu), {}, {})[0],
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_convolutions_are_those_of_lax(net: jn.Net):
    x = jnp.asarray(floats(2, 6, 7, 4))
    params, _ = net.init(jax.random.key(0), x)

    def loss(params):
        return (net.apply(params, {}, x)[0] ** 2).sum()

    gradient = jax.jit(jax.grad(loss))
    expected, usual = gradient(params), str(jax.make_jaxpr(jax.grad(loss))(params))
    with jn.ops.plain():
        found, program = gradient(params), str(jax.make_jaxpr(jax.grad(loss))(params))
    ours = ("conv_forward", "conv_to_input", "conv_to_kernel", "conv_fused")
    assert not any(name in program for name in ours)
    assert program.count("conv_general_dilated") >= 2
    assert program != usual
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    # What was traced inside is not used outside.
    assert str(jax.make_jaxpr(jax.grad(loss))(params)) == usual


@pytest.mark.parametrize("net", [jn.max_pool(3, stride=2, padding=1), jn.avg_pool(2)], ids=["max", "mean"])
def test_pooling_is_that_of_lax(net: jn.Net):
    x = jnp.asarray(floats(2, 6, 7, 4))

    def loss(x):
        return (net.apply({}, {}, x)[0] ** 2).sum()

    expected, usual = jax.grad(loss)(x), str(jax.make_jaxpr(loss)(x))
    with jn.ops.plain():
        found, program = jax.grad(loss)(x), str(jax.make_jaxpr(loss)(x))
    assert "reduce_window" in program
    assert "reduce_window" not in usual
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
