"""Transposed convolution as an array function: against loops, and every derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxnets.ops.conv import transpose as ops
from tests.once import once
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


@pytest.mark.slow
@given(settings())
def test_conv_transpose_of_any_shape_equals_loops(drawn):
    x, kernel, *rest = drawn
    with jax.enable_x64(True):
        got = jax.jit(lambda x, kernel: ops.conv_transpose(x, kernel, *rest))(x, kernel)
    np.testing.assert_allclose(got, loops.conv_transpose(*drawn), atol=1e-12)


def by_transposition(x, kernel, stride, padding, output_padding, dilation, groups):
    """Compute it as the linear transpose of XLA's own convolution, with JAX's own derivatives."""
    sizes = ops.transposed_sizes(x.shape[1:-1], kernel.shape[:-2], stride, padding, output_padding, dilation)
    layout = ("NHWC", "HWIO", "NHWC")

    def forward(y):
        turned = jnp.swapaxes(kernel, -2, -1)
        whole = jax.lax.conv_general_dilated(
            y, turned, stride, padding, rhs_dilation=dilation, dimension_numbers=layout, feature_group_count=groups
        )
        return jax.lax.slice(whole, (0,) * x.ndim, x.shape)  # output_padding may make room for one window more

    shape = jax.ShapeDtypeStruct((len(x), *sizes, kernel.shape[-1] * groups), x.dtype)
    return jax.linear_transpose(forward, shape)(x)[0]


DERIVED = {
    "phases": ((3, 2), (2, 3), ((1, 0), (0, 1)), (1, 2), (1, 1), 1),
    "groups": ((4, 3), (2, 1), ((1, 1), (0, 2)), (0, 1), (1, 2), 2),
    "transposition": ((3, 2), (2, 1), ((1, 0), (0, 0)), (1, 0), (2, 1), 2),
}


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.slow_cases("groups", "transposition")
@jax.enable_x64(True)
def test_every_derivative_is_that_of_the_transposition(name):
    window, *grid, groups = DERIVED[name]
    shapes = (2, 3, 2, 4), (*window, 4, 4 // groups)
    x, kernel = (floats(*shape).astype(np.float64) for shape in shapes)
    directions = tuple(np.cos(np.arange(1.0 * a.size)).reshape(a.shape) for a in (x, kernel))

    def derivatives(transposed, x, kernel, directions):
        def loss(x, kernel):
            return (transposed(x, kernel, *grid, groups) ** 3).sum()

        gradient = jax.grad(loss, (0, 1))
        return {
            "value": transposed(x, kernel, *grid, groups),
            "forward": jax.jvp(lambda x, k: transposed(x, k, *grid, groups), (x, kernel), directions)[1],
            "reverse": gradient(x, kernel),
            "forward over reverse": jax.jvp(gradient, (x, kernel), directions)[1],
            "reverse over reverse": jax.vjp(gradient, x, kernel)[1](directions),
            "vmap of kernels": jax.vmap(gradient, (None, 0))(x, jnp.stack([kernel, -kernel])),
        }

    def both(*given):
        return [derivatives(transposed, *given) for transposed in (ops.conv_transpose, by_transposition)]

    chosen, plain = once(both, x, kernel, directions)
    for way, values in plain.items():
        for a, b in zip(jax.tree.leaves(chosen[way]), jax.tree.leaves(values), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, np.abs(b).max()), err_msg=way)


GEOMETRIES = {
    **{name: ((2, 3, 2, 4), *rest) for name, rest in DERIVED.items()},
    "1-D": ((2, 4, 2), (4,), (3,), ((1, 2),), (1,), (2,), 1),
    "3-D": ((1, 2, 3, 1, 2), (2, 1, 3), (1, 2, 2), ((0, 1), (0, 0), (1, 1)), (0, 1, 0), (1, 1, 2), 2),
}


@jax.enable_x64(True)
def test_conv_transpose_equals_loops():
    given = {}
    for name, (shape, window, *_, groups) in GEOMETRIES.items():
        shapes = shape, (*window, shape[-1], 4 // groups)
        given[name] = [floats(*each, seed=seed).astype(np.float64) for seed, each in enumerate(shapes)]
    found = jax.jit(lambda given: {name: ops.conv_transpose(*of, *GEOMETRIES[name][2:]) for name, of in given.items()})(
        given
    )
    for name, of in given.items():
        expected = loops.conv_transpose(*of, *GEOMETRIES[name][2:])
        np.testing.assert_allclose(found[name], expected, atol=1e-12, err_msg=name)


@pytest.mark.slow
@jax.enable_x64(True)
def test_second_derivatives_agree_with_differences():
    window, *grid, groups = DERIVED["phases"]
    x, kernel = (floats(*shape).astype(np.float64) for shape in ((2, 3, 2, 2), (*window, 2, 2)))
    check_second(jax.grad(lambda k, x: (ops.conv_transpose(x, k, *grid, groups) ** 3).sum(), (0, 1)), kernel, x)


def test_half_precision_and_export():
    x, kernel = (floats(*shape).astype(jnp.bfloat16) for shape in ((1, 3, 2), (3, 2, 2)))
    net = jax.jit(lambda x, k: ops.conv_transpose(x, k, (2,), ((1, 1),), (1,), (1,)))
    y = jax.export.export(net, platforms=["cpu", "cuda"])(x, kernel).call(x, kernel)
    exact, weights = (np.asarray(array, np.float64) for array in (x, kernel))
    expected = loops.conv_transpose(exact, weights, (2,), ((1, 1),), (1,), (1,))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-7, atol=2**-7)
