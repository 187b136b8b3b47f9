"""Pooling as array functions: against loops, ties and NaN, and every derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxnets.ops import pool as ops
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


@given(settings())
def test_max_pool_equals_loops_and_the_first_maximum_gets_the_gradient(drawn):
    shape, *rest = drawn
    x = integers(*shape, high=3).astype(np.float64)  # few values: nearly every window has a tie
    g, y, dx = value_and_gradient(lambda x: ops.max_pool(x, *rest), x)
    expected, gradient = loops.max_pool(x, *rest, g=g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(dx, gradient, atol=1e-12)


@given(settings(), st.booleans())
def test_avg_pool_equals_loops(drawn, include):
    shape, window, stride, padding, dilation = drawn
    grid, x = (window, stride, padding, dilation), floats(*shape).astype(np.float64)
    counted = padding if include else ((0, 0),) * len(window)
    g, y, dx = value_and_gradient(lambda x: ops.avg_pool(x, *grid, counted), x)
    expected, gradient = loops.avg_pool(x, *grid, counted, g)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(dx, gradient, atol=1e-12)


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3))
def test_adaptive_avg_pool_equals_means_of_bins(axes):
    spatial, sizes = zip(*axes)
    assume(np.prod(spatial) * np.prod(sizes) < 4000)
    x = floats(2, *spatial, 2).astype(np.float64)
    expected = np.empty((2, *sizes, 2))
    for place in np.ndindex(*sizes):
        bins = [
            slice(int(np.floor(i * n / k)), int(np.ceil((i + 1) * n / k))) for i, n, k in zip(place, spatial, sizes)
        ]
        expected[(slice(None), *place)] = x[(slice(None), *bins)].mean(tuple(range(1, 1 + len(sizes))))
    with jax.enable_x64(True):
        y = jax.jit(lambda x: ops.adaptive_avg_pool(x, sizes))(x)
    np.testing.assert_allclose(y, expected, atol=1e-12)


GRIDS = {
    "tiles": ((2,), (2,), ((0, 0),), (1,)),
    "overlapping": ((3,), (1,), ((1, 1),), (1,)),
    "dilated": ((3,), (2,), ((1, 1),), (2,)),
    "long": ((9,), (2,), ((4, 4),), (1,)),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_max_pool_hands_nan_on(grid):
    x = np.zeros((1, 12, 1), np.float32)
    x[0, 5] = np.nan
    expected, _ = loops.max_pool(np.where(np.isnan(x), np.inf, x), *grid, g=np.zeros((1, 12, 1)))
    np.testing.assert_array_equal(np.isnan(ops.max_pool(jnp.asarray(x), *grid)), np.isinf(expected))
    assert np.isinf(expected).any()


def test_the_gradient_of_nan_goes_to_the_first_nan():
    x = jnp.array([1.0, jnp.nan, 2, jnp.nan]).reshape(1, 4, 1)
    dx = jax.grad(lambda x: ops.max_pool(x, (4,), (4,), ((0, 0),), (1,)).sum())(x)
    np.testing.assert_array_equal(dx.ravel(), [0.0, 1, 0, 0])


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_minus_infinity_is_a_value(grid):
    x = jnp.full((1, 12, 1), -jnp.inf)
    assert bool((ops.max_pool(x, *grid) == -jnp.inf).all())


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_max_pool_has_every_derivative(grid):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(48).reshape(2, 12, 2), jnp.float64)  # far from ties
        gradient = jax.jit(jax.grad(lambda x: (ops.max_pool(x, *grid) ** 3).sum()))
        check_second(gradient, x)
        several = jnp.stack([x, -x])
        together, alone = jax.vmap(gradient)(several), [gradient(each) for each in several]
        np.testing.assert_array_equal(together, np.stack(alone))


STEM = ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1))  # as in ResNet


@pytest.mark.parametrize("pool", [lambda x: ops.max_pool(x, *STEM), lambda x: ops.avg_pool(x, *STEM)])
def test_derivatives_under_transformations_are_the_same(pool):
    def loss(x):
        return (pool(x) ** 3).sum()

    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(2 * 5 * 6 * 1).reshape(2, 5, 6, 1) / 10.0)
        several = jnp.stack([x, -x])

        @jax.jit
        def compute(x, several):
            in_loop = jax.lax.map(jax.grad(loss), several)
            return jax.vmap(jax.grad(loss))(several), in_loop, jax.grad(jax.checkpoint(loss))(x), jax.hessian(loss)(x)

        together, in_loop, checkpointed, hessian = compute(x, several)
        np.testing.assert_allclose(together, in_loop, rtol=1e-14)
        np.testing.assert_allclose(checkpointed, together[0], rtol=1e-14)
        # pool(x) is homogeneous of degree 1, so the loss is of degree 3: ∇²L x = 2 ∇L, ∇L · x = 3 L.
        np.testing.assert_allclose(np.tensordot(hessian, x, 4), 2 * checkpointed, atol=1e-9)
        np.testing.assert_allclose(np.vdot(checkpointed, x), 3 * loss(x), rtol=1e-12)


def test_exported_for_every_platform_and_any_batch():
    (b,) = jax.export.symbolic_shape("b")
    pools = jax.grad(lambda x: (ops.max_pool(x, *STEM) ** 2).sum() + (ops.avg_pool(x, *STEM) ** 2).sum())
    shape = jax.ShapeDtypeStruct((b, 5, 6, 2), jnp.float32)
    exported = jax.export.export(jax.jit(pools), platforms=["cpu", "cuda", "tpu"])(shape)
    x = floats(3, 5, 6, 2)
    np.testing.assert_allclose(exported.call(x), pools(x), rtol=1e-6)


def test_maxima_of_half_precision_are_those_of_float32():
    x = jnp.asarray(np.random.default_rng(0).permutation(120).reshape(2, 6, 5, 2), jnp.bfloat16)
    both = jax.jit(jax.value_and_grad(lambda x: ops.max_pool(x, *STEM).astype(jnp.float32).sum()))
    (y, dx), (wide, wide_dx) = both(x), both(x.astype(jnp.float32))
    assert (y, dx.dtype) == (wide, jnp.bfloat16)
    np.testing.assert_array_equal(dx.astype(jnp.float32), wide_dx)


def test_the_residuals_are_a_byte_per_window():
    x = jnp.ones((2, 8, 8, 3))
    residuals = jax.tree.leaves(jax.vjp(lambda x: ops.max_pool(x, *STEM), x)[1])
    assert sum(each.nbytes for each in residuals) < 2 * 5 * 5 * 3 + 200


@pytest.mark.parametrize("window", [(3,), (9,)])
def test_avg_pool_has_every_derivative(window):
    with jax.enable_x64(True):
        x = jnp.asarray(floats(2, 12, 2), jnp.float64)
        pad = ((window[0] // 2, 0),)
        gradient = jax.jit(jax.grad(lambda x: (ops.avg_pool(x, window, window, pad, (1,)) ** 3).sum()))
        check_second(gradient, x)


def test_means_of_half_precision_are_summed_in_float32():
    x = jnp.ones((1, 600, 1), jnp.bfloat16)  # bfloat16 counts to 256
    for window in ((4,), (600,)):
        y = ops.avg_pool(x, window, window, ((0, 0),), (1,))
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(y, np.float32), 1.0)
    np.testing.assert_array_equal(np.asarray(ops.adaptive_avg_pool(x, (2,)), np.float32), 1.0)
