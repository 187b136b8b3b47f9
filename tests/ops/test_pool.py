"""Pooling as array functions: against loops, ties and NaN, and every derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxnets.ops import pool as ops
from tests.once import once
from tests.ops import loops
from tests.ops.derivatives import check_second
from tests.oracle import floats, integers


@st.composite
def settings(draw):
    """Draw (input shape, window, stride, padding, dilation); some windows exceed the limit for slices."""
    rank = draw(st.integers(1, 3))

    def each(strategy):
        return tuple(draw(st.lists(strategy, min_size=rank, max_size=rank)))

    dilation = each(st.integers(1, 2))
    window = each(st.integers(1, 3) if rank > 1 else st.sampled_from([1, 2, 3, 8, 9, 11]))
    stride = tuple(draw(st.sampled_from([1, 2, w])) for w in window)
    padding = tuple((draw(st.integers(0, w // 2)), draw(st.integers(0, w // 2))) for w in window)
    spatial = [d * (w - 1) + 1 + draw(st.integers(0, 4)) for w, d in zip(window, dilation)]
    return (draw(st.integers(1, 2)), *spatial, draw(st.integers(1, 2))), window, stride, padding, dilation


def value_and_gradient(pool, x):
    with jax.enable_x64(True):
        g = floats(*jax.eval_shape(pool, x).shape, seed=9).astype(np.float64)
        y, dx = jax.jit(lambda x, g: (pool(x), jax.vjp(pool, x)[1](g)[0]))(x, g)
        return g, np.asarray(y), np.asarray(dx)


@pytest.mark.slow
@given(settings())
def test_max_pools_of_any_shape_equal_loops(drawn):
    shape, *rest = drawn
    x = integers(*shape, high=3).astype(np.float64)  # few values: nearly every window has a tie
    g, y, dx = value_and_gradient(lambda x: ops.max_pool(x, *rest), x)
    expected, gradient = loops.max_pool(x, *rest, g=g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(dx, gradient, atol=1e-12)


@pytest.mark.slow
@given(settings(), st.booleans())
def test_avg_pools_of_any_shape_equal_loops(drawn, include):
    shape, window, stride, padding, dilation = drawn
    grid, x = (window, stride, padding, dilation), floats(*shape).astype(np.float64)
    counted = padding if include else ((0, 0),) * len(window)
    g, y, dx = value_and_gradient(lambda x: ops.avg_pool(x, *grid, counted), x)
    expected, gradient = loops.avg_pool(x, *grid, counted, g)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(dx, gradient, atol=1e-12)


def means_of_bins(x, sizes):
    """Return the mean of each bin, by the definition of adaptive pooling."""
    y = np.empty((len(x), *sizes, x.shape[-1]))
    for place in np.ndindex(*sizes):
        axes = zip(place, x.shape[1:-1], sizes)
        bins = [slice(int(np.floor(i * n / k)), int(np.ceil((i + 1) * n / k))) for i, n, k in axes]
        y[(slice(None), *place)] = x[(slice(None), *bins)].mean(tuple(range(1, 1 + len(sizes))))
    return y


ADAPTED = {
    "fewer": ((5,), (3,)),
    "more": ((4,), (7,)),
    "many": ((7,), (11,)),
    "2-D": ((7, 4), (3, 1)),
    "3-D": ((4, 2, 3), (1, 5, 2)),
}


@jax.enable_x64(True)
def test_adaptive_avg_pool_equals_means_of_bins():
    inputs = {name: floats(2, *spatial, 2).astype(np.float64) for name, (spatial, _) in ADAPTED.items()}
    found = jax.jit(lambda xs: {name: ops.adaptive_avg_pool(x, ADAPTED[name][1]) for name, x in xs.items()})(inputs)
    for name, x in inputs.items():
        np.testing.assert_allclose(found[name], means_of_bins(x, ADAPTED[name][1]), atol=1e-12, err_msg=name)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3))
def test_adaptive_avg_pools_of_any_shape_equal_means_of_bins(axes):
    spatial, sizes = zip(*axes)
    assume(np.prod(spatial) * np.prod(sizes) < 4000)
    x = floats(2, *spatial, 2).astype(np.float64)
    with jax.enable_x64(True):
        y = jax.jit(lambda x: ops.adaptive_avg_pool(x, sizes))(x)
    np.testing.assert_allclose(y, means_of_bins(x, sizes), atol=1e-12)


def maxima_of_bins(x, sizes, g):
    """Return the maximum of each bin, and the gradient, all of which goes to the first of equal maxima."""
    y, dx = np.empty((len(x), *sizes, x.shape[-1])), np.zeros(x.shape)
    for place in np.ndindex(*sizes):
        axes = zip(place, x.shape[1:-1], sizes)
        bins = [slice(int(np.floor(i * n / k)), int(np.ceil((i + 1) * n / k))) for i, n, k in axes]
        for example, channel in np.ndindex(len(x), x.shape[-1]):
            inside, at = x[(example, *bins, channel)], (example, *place, channel)
            best = np.unravel_index(inside.argmax(), inside.shape)
            y[at] = inside[best]
            dx[(example, *(b.start + k for b, k in zip(bins, best)), channel)] += g[at]
    return y, dx


def assert_maxima_of_bins(spatial, sizes):
    x = integers(2, *spatial, 2, high=3).astype(np.float64)  # few values, hence ties
    g, y, dx = value_and_gradient(lambda x: ops.adaptive_max_pool(x, sizes), x)
    expected, gradient = maxima_of_bins(x, sizes, g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(dx, gradient, atol=1e-12)


@pytest.mark.parametrize("name", ADAPTED)
def test_adaptive_max_pool_equals_maxima_of_bins(name):
    assert_maxima_of_bins(*ADAPTED[name])


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3))
def test_adaptive_max_pools_of_any_shape_equal_maxima_of_bins(axes):
    spatial, sizes = zip(*axes)
    assume(np.prod(spatial) * np.prod(sizes) < 4000)
    assert_maxima_of_bins(spatial, sizes)


GRIDS = {
    "tiles": ((2,), (2,), ((0, 0),), (1,)),
    "overlapping": ((3,), (1,), ((1, 1),), (1,)),
    "dilated": ((3,), (2,), ((1, 1),), (2,)),
    "long": ((9,), (2,), ((4, 4),), (1,)),
}
each_grid = pytest.mark.parametrize("grid", GRIDS)


@functools.cache
def answers(name):
    """Return all that is asked of one grid, in one program: values, derivatives and means."""
    grid = GRIDS[name]
    draw = np.random.default_rng(0)
    ties, apart = draw.integers(0, 3, (2, 12, 2)).astype(np.float64), draw.permutation(48).reshape(2, 12, 2) / 2
    special = np.zeros((2, 12, 1))
    special[0, 5], special[1] = np.nan, -np.inf
    pools = {
        "max": lambda x: ops.max_pool(x, *grid),
        "avg": lambda x: ops.avg_pool(x, *grid, ((0, 0),)),
        "avg with padding": lambda x: ops.avg_pool(x, *grid, grid[2]),
    }
    g = floats(*jax.eval_shape(pools["max"], ties).shape, seed=9).astype(np.float64)

    def compute(ties, special, apart, g):
        pulled = {kind: (pool(ties), jax.vjp(pool, ties)[1](g)[0]) for kind, pool in pools.items()}
        gradient = jax.grad(lambda x: (pools["max"](x) ** 3).sum())
        several = jnp.stack([apart, -apart])
        return pulled, pools["max"](special), (jax.vmap(gradient)(several), jax.lax.map(gradient, several))

    with jax.enable_x64(True):
        return ties, g, jax.tree.map(np.asarray, once(compute, ties, special, apart, g))


@each_grid
def test_pools_equal_loops_and_the_first_maximum_gets_the_gradient(grid):
    """Of few values: nearly every window has a tie."""
    x, g, (found, _, _) = answers(grid)
    padding = GRIDS[grid][2]
    expected = {
        "max": loops.max_pool(x, *GRIDS[grid], g=g),
        "avg": loops.avg_pool(x, *GRIDS[grid], ((0, 0),), g),
        "avg with padding": loops.avg_pool(x, *GRIDS[grid], padding, g),
    }
    np.testing.assert_array_equal(found["max"][0], expected["max"][0])
    for kind, (y, dx) in expected.items():
        np.testing.assert_allclose(found[kind][0], y, atol=1e-12, err_msg=kind)
        np.testing.assert_allclose(found[kind][1], dx, atol=1e-12, err_msg=kind)


@each_grid
def test_max_pool_hands_nan_on_and_minus_infinity_is_a_value(grid):
    y = answers(grid)[2][1]
    x = np.zeros((1, 12, 1))
    x[0, 5] = np.inf
    expected, _ = loops.max_pool(x, *GRIDS[grid], g=np.zeros((1, 12, 1)))
    np.testing.assert_array_equal(np.isnan(y[:1]), np.isinf(expected))
    assert np.isinf(expected).any()
    assert (y[1] == -np.inf).all()


@each_grid
def test_gradients_of_max_pool_under_vmap(grid):
    together, alone = answers(grid)[2][2]
    np.testing.assert_array_equal(together, alone)


@each_grid
@pytest.mark.slow_cases("tiles", "dilated", "long")
@jax.enable_x64(True)
def test_max_pool_has_every_derivative(grid):
    x = np.random.default_rng(0).permutation(48).reshape(2, 12, 2).astype(np.float64)  # far from ties
    check_second(jax.grad(lambda x: (ops.max_pool(x, *GRIDS[grid]) ** 3).sum()), x)


def test_the_gradient_of_nan_goes_to_the_first_nan():
    x = np.array([1.0, np.nan, 2, np.nan], np.float32).reshape(1, 4, 1)
    dx = jax.jit(jax.grad(lambda x: ops.max_pool(x, (4,), (4,), ((0, 0),), (1,)).sum()))(x)
    np.testing.assert_array_equal(np.ravel(dx), [0.0, 1, 0, 0])


STEM = ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1))  # as in ResNet


@pytest.mark.parametrize("pool", [ops.max_pool, ops.avg_pool], ids=["max", "avg"])
@pytest.mark.slow_cases("max")
@jax.enable_x64(True)
def test_derivatives_under_transformations_are_the_same(pool):
    def loss(x):
        return (pool(x, *STEM) ** 3).sum()

    def compute(x):
        gradient, several = jax.grad(loss), jnp.stack([x, -x])
        checkpointed, hessian = jax.grad(jax.checkpoint(loss))(x), jax.hessian(loss)(x)
        return loss(x), jax.vmap(gradient)(several), jax.lax.map(gradient, several), checkpointed, hessian

    x = np.random.default_rng(0).permutation(2 * 5 * 6 * 1).reshape(2, 5, 6, 1) / 10.0
    value, together, in_loop, checkpointed, hessian = map(np.asarray, once(compute, x))
    np.testing.assert_allclose(together, in_loop, rtol=1e-14)
    np.testing.assert_allclose(checkpointed, together[0], rtol=1e-14)
    # pool(x) is homogeneous of degree 1, so the loss is of degree 3: ∇²L x = 2 ∇L, ∇L · x = 3 L.
    np.testing.assert_allclose(np.tensordot(hessian, x, 4), 2 * checkpointed, atol=1e-9)
    np.testing.assert_allclose(np.vdot(checkpointed, x), 3 * value, rtol=1e-12)


def test_exported_for_every_platform_and_any_batch():
    (b,) = jax.export.symbolic_shape("b")
    pools = jax.jit(jax.grad(lambda x: (ops.max_pool(x, *STEM) ** 2).sum() + (ops.avg_pool(x, *STEM) ** 2).sum()))
    shape = jax.ShapeDtypeStruct((b, 5, 6, 2), jnp.float32)
    exported = jax.export.export(pools, platforms=["cpu", "cuda", "tpu"])(shape)
    x = floats(3, 5, 6, 2)
    np.testing.assert_allclose(exported.call(x), pools(x), rtol=1e-6)


def test_maxima_of_half_precision_are_those_of_float32():
    def both(x):
        return jax.value_and_grad(lambda x: ops.max_pool(x, *STEM).astype(jnp.float32).sum())(x)

    x = np.random.default_rng(0).permutation(120).reshape(2, 6, 5, 2).astype(jnp.bfloat16)
    (y, dx), (wide, wide_dx) = once(lambda x: (both(x), both(x.astype(jnp.float32))), x)
    assert (y, dx.dtype) == (wide, jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(dx, np.float32), wide_dx)


def test_the_residuals_are_a_byte_per_window():
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    residuals = jax.eval_shape(lambda x: jax.vjp(lambda x: ops.max_pool(x, *STEM), x)[1], x)
    bytes_ = sum(each.size * each.dtype.itemsize for each in jax.tree.leaves(residuals))
    assert 2 * 4 * 4 * 3 <= bytes_ < 2 * 5 * 5 * 3 + 200


@pytest.mark.parametrize("window", [(3,), (9,)])
@jax.enable_x64(True)
def test_avg_pool_has_every_derivative(window):
    pad = ((window[0] // 2, 0),)
    check_second(
        jax.grad(lambda x: (ops.avg_pool(x, window, window, pad, (1,)) ** 3).sum()), floats(2, 12, 2).astype(np.float64)
    )


def test_means_of_half_precision_are_summed_in_float32():
    @jax.jit
    def means(x):
        windows = [ops.avg_pool(x, window, window, ((0, 0),), (1,)) for window in ((4,), (600,))]
        return *windows, ops.adaptive_avg_pool(x, (2,))

    for y in means(np.ones((1, 600, 1), jnp.bfloat16)):  # bfloat16 counts to 256
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(y, np.float32), 1.0)
