"""Transposed convolution as an array function: against loops, and every derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxnets.ops import conv_transpose as ops
from tests.ops import loops
from tests.ops.derivatives import check_second
from tests.oracle import floats


@st.composite
def settings(draw):
    """Draw (input, kernel, stride, padding, output_padding, dilation, groups) with an output of at least one place."""
    rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))

    def each(strategy):
        return tuple(draw(st.lists(strategy, min_size=rank, max_size=rank)))

    window, stride, dilation = each(st.integers(1, 4)), each(st.integers(1, 3)), each(st.integers(1, 2))
    padding = each(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
    spatial = each(st.integers(1, 4))
    assume(min(ops.transposed_sizes(spatial, window, stride, padding, more, dilation)) > 0)
    channels, features = groups * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x = floats(draw(st.integers(1, 2)), *spatial, channels).astype(np.float64)
    kernel = floats(*window, channels, features, seed=1).astype(np.float64)
    return x, kernel, stride, padding, more, dilation, groups


@given(settings())
def test_conv_transpose_equals_loops(drawn):
    x, kernel, *rest = drawn
    with jax.enable_x64(True):
        got = jax.jit(lambda x, kernel: ops.conv_transpose(x, kernel, *rest))(x, kernel)
    np.testing.assert_allclose(got, loops.conv_transpose(*drawn), atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose_has_every_derivative(groups):
    with jax.enable_x64(True):
        x = jnp.asarray(floats(2, 3, 2, 4), jnp.float64)
        kernel = jnp.asarray(floats(3, 2, 4, 4 // groups), jnp.float64)

        def loss(kernel, x):
            return (ops.conv_transpose(x, kernel, (2, 1), ((1, 0), (0, 0)), (1, 0), (1, 2), groups) ** 3).sum()

        gradient = jax.jit(jax.grad(loss, (0, 1)))
        check_second(gradient, kernel, x)
        kernels = jnp.stack([kernel, -kernel])
        together = jax.vmap(gradient, (0, None))(kernels, x)[0]
        alone = [gradient(kernel, x)[0] for kernel in kernels]
        np.testing.assert_allclose(together, np.stack(alone), rtol=1e-12, atol=1e-12)
