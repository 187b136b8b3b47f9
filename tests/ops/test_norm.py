"""Normalization as an array function: every derivative of the plain formula, and large means."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.ops.norm import moments, normalize, normalize_rms
from tests.once import once
from tests.oracle import floats

jitted_moments = jax.jit(moments, static_argnums=1)
LAYOUTS = {
    "batch": ((5, 3, 2), (0, 1), (1, 1, 2), False),
    "batch, masked": ((5, 3, 2), (0, 1), (1, 1, 2), True),
    "layer": ((4, 2, 5), (1, 2), (1, 2, 5), False),
    "group, masked": ((3, 4, 2, 3), (1, 3), (1, 1, 2, 3), True),
}


def plain(x, scale, bias, epsilon, axes, mask):
    """Normalize by the definition, for JAX to differentiate step by step."""
    mask = jnp.ones((1,) * x.ndim, bool) if mask is None else mask
    count = jnp.sum(jnp.broadcast_to(mask, x.shape), axes, keepdims=True, dtype=x.dtype)
    mean = jnp.sum(x, axes, keepdims=True, where=mask) / count
    variance = jnp.sum((x - mean) ** 2, axes, keepdims=True, where=mask) / count
    return scale * (x - mean) / jnp.sqrt(variance + epsilon) + bias, mean, variance


def example(name):
    shape, axes, beside, masked = LAYOUTS[name]
    mask = None
    if masked:  # at least one value counts in each group
        mask = np.random.default_rng(0).random((*shape[:2], *(1,) * (len(shape) - 2))) < 0.6
        mask[:, 0] = True
    arrays = (floats(*shape) + np.float32(2), floats(*beside, seed=1), floats(*beside, seed=2))
    return tuple(array.astype(np.float64) for array in arrays), axes, mask


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.slow_cases("batch", "layer", "group, masked")
@jax.enable_x64(True)
def test_every_derivative_is_that_of_the_plain_formula(name):
    arrays, axes, mask = example(name)
    arrays = (*arrays, np.float64(0.1))  # epsilon is differentiated as well
    directions = tuple(np.cos(3.0 * np.arange(a.size)).reshape(a.shape) for a in arrays)

    def derivatives(normalize, arrays, directions):
        def outputs(*arrays):
            y, mean, variance = normalize(*arrays, axes, mask)
            return (y if mask is None else jnp.where(mask, y, 0)), mean, variance

        def loss(*arrays):
            y, mean, variance = outputs(*arrays)
            return (y**3).sum() + (mean**2).sum() + jnp.sin(variance).sum()

        gradient = jax.grad(loss, (0, 1, 2, 3))
        along = jax.jvp(gradient, arrays, directions)[1]
        several = jnp.stack([arrays[0], 2 * arrays[0] ** 2])
        return {
            "value": outputs(*arrays),
            "forward": jax.jvp(outputs, arrays, directions)[1],
            "reverse": gradient(*arrays),
            "forward over reverse": along,
            "reverse over reverse": jax.vjp(gradient, *arrays)[1](directions),
            "hessian": jax.hessian(lambda bias, scale: loss(arrays[0], scale, bias, arrays[3]))(arrays[2], arrays[1]),
            "vmap of grad": jax.vmap(gradient, (0, None, None, None))(several, *arrays[1:]),
            "checkpoint": jax.grad(jax.checkpoint(loss))(*arrays),
        }

    ours, expected = once(lambda *given: [derivatives(f, *given) for f in (normalize, plain)], arrays, directions)
    for kind in expected:
        same(ours[kind], expected[kind], kind)


@pytest.mark.parametrize("name", LAYOUTS)
@jax.enable_x64(True)
def test_values_and_gradients_are_those_of_the_plain_formula(name):
    arrays, axes, mask = example(name)

    def both(*arrays: Any):
        def outputs(f, *arrays):
            y, mean, variance = f(*arrays, axes, mask)
            return (y if mask is None else jnp.where(mask, y, 0)), mean, variance

        pulled = [jax.vjp(functools.partial(outputs, f), *arrays) for f in (normalize, plain)]
        return [(values, back(jax.tree.map(jnp.sin, pulled[1][0]))) for values, back in pulled]

    found, expected = once(both, *arrays, np.float64(0.1))
    same(found, expected, name)


@jax.enable_x64(True)
def test_every_derivative_of_the_mean_square_is_that_of_the_plain_formula():
    """In float64, with groups of small values and of values that are divided first."""
    axes, direction = (1, 2), (-1, 0.5, 2)
    arrays = (floats(4, 2, 5) * np.array([0.1, 1, 10, 1e3]).reshape(-1, 1, 1), floats(1, 2, 5, seed=1), np.float64(0.1))
    arrays = tuple(np.asarray(array, np.float64) for array in arrays)
    directions = tuple(k * np.cos(3.0 * np.arange(a.size)).reshape(a.shape) for k, a in zip(direction, arrays))

    def plain_rms(x, scale, epsilon, axes):
        return scale * x / jnp.sqrt((x**2).mean(axes, keepdims=True) + epsilon)

    def derivatives(f, arrays, directions):
        gradient = jax.grad(lambda *arrays: (f(*arrays, axes) ** 3).sum(), (0, 1, 2))
        return {
            "value": f(*arrays, axes),
            "forward": jax.jvp(lambda *arrays: f(*arrays, axes), arrays, directions)[1],
            "reverse": gradient(*arrays),
            "forward over reverse": jax.jvp(gradient, arrays, directions)[1],
            "reverse over reverse": jax.vjp(gradient, *arrays)[1](directions),
        }

    ours, expected = once(
        lambda *given: [derivatives(f, *given) for f in (normalize_rms, plain_rms)], arrays, directions
    )
    for kind in expected:
        same(ours[kind], expected[kind], kind)


def same(found, expected, name):
    """Assert that trees of float64 are equal but for rounding."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, np.abs(b).max()), err_msg=name)


def assert_moments_are_exact(x, axes, mask, mean):
    """Assert that for any float32 values the moments are those in exact arithmetic."""
    exact, counts = x.astype(np.float64), np.ones(x.shape, bool) if mask is None else mask
    n = np.maximum(counts.sum(tuple(axes), keepdims=True), 1)
    expected = (exact * counts).sum(tuple(axes), keepdims=True) / n
    variance = ((exact - expected) ** 2 * counts).sum(tuple(axes), keepdims=True) / n
    shift, rest, found = jitted_moments(x, tuple(axes), mask)
    np.testing.assert_allclose(found, variance, rtol=2e-5, atol=1e-20 * mean**2)
    error = np.abs(np.asarray(shift, np.float64) + np.asarray(rest, np.float64) - expected)
    assert (error <= 5e-6 * np.sqrt(variance) + 1e-14 * abs(mean)).all()


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("masked", [False, True])
def test_moments_are_exact_for_any_mean(masked, spread):
    mask = np.random.default_rng(1).random((33, 7)) < 0.7 if masked else None
    for mean in (2e-3, -1.0, 3e5, -1e15):
        x = (floats(33, 7) * np.float32(abs(mean) * spread) + np.float32(mean)).astype(np.float32)
        assert_moments_are_exact(x, (0,), mask, mean)


@pytest.mark.slow
@settings(max_examples=8)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=2),
    st.floats(-1e15, 1e15).filter(lambda mean: abs(mean) > 1e-3),
    st.data(),
)
def test_moments_are_exact_for_any_shape(shape, mean, data):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    x = (
        floats(*shape) * np.float32(abs(mean) * data.draw(st.sampled_from([1.0, 1e-3, 1e-6]))) + np.float32(mean)
    ).astype(np.float32)
    mask = np.random.default_rng(1).random(shape) < 0.7 if data.draw(st.booleans()) else None
    assert_moments_are_exact(x, axes, mask, mean)


def test_an_outlier_first_costs_no_accuracy():
    """The worst case for the shift: only the first value differs."""
    x = np.full((4096, 1), 3.0, np.float32) + floats(4096, 1, scale=1e-3)
    x[0] = 1e4
    shift, rest, variance = jitted_moments(x, (0,))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(variance, exact.var(0, keepdims=True), rtol=2e-6)
    np.testing.assert_allclose(np.float64(shift) + np.float64(rest), exact.mean(0, keepdims=True), rtol=1e-6)


def test_nan_and_infinity_stay_in_their_group():
    x = floats(8, 3)
    x[5, 0], x[6, 1] = np.nan, np.inf
    y, mean, variance = map(np.asarray, jax.jit(lambda x: normalize(x, None, None, 1e-5, (0,)))(x))
    for found in (y, mean, variance):
        assert not np.isfinite(found[:, :2]).any() or found is mean
        assert np.isfinite(found[:, 2]).all()
    assert not np.isfinite(mean[:, :2]).any()


def test_residuals_are_in_half_precision_and_arithmetic_in_float32():
    @jax.jit
    def both(x):
        y, back = jax.vjp(lambda x: normalize(x, None, None, 1e-5, (0,))[0], x)
        return y, back, back(y)[0], normalize(x.astype(jnp.float32), None, None, 1e-5, (0,))[0]

    x = floats(6, 4).astype(jnp.bfloat16)
    y, back, dx, wide = both(x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, wide, rtol=1e-6)
    assert dx.dtype == jnp.bfloat16
    residuals = [leaf for leaf in jax.tree.leaves(back) if leaf.size == x.size]
    assert [leaf.dtype for leaf in residuals] == [jnp.bfloat16]


def test_residuals_of_the_mean_square_are_in_half_precision():
    x = floats(6, 4).astype(jnp.bfloat16)
    y, back = jax.jit(lambda x: jax.vjp(lambda x: normalize_rms(x, None, 1e-6, (1,)), x))(x)
    assert y.dtype == jnp.float32
    assert [leaf.dtype for leaf in jax.tree.leaves(back) if leaf.size == x.size] == [jnp.bfloat16]


def test_gradients_survive_an_export():
    x, bias = floats(4, 3), floats(1, 3, seed=1)
    gradient = jax.jit(jax.grad(lambda x, bias: (normalize(x, None, bias, 1e-5, (0,))[0] ** 3).sum(), (0, 1)))
    exported = jax.export.export(gradient, platforms=["cpu", "cuda"])(x, bias)
    for a, b in zip(exported.call(x, bias), gradient(x, bias), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_an_empty_batch_stays_empty():
    y, _, _ = jax.jit(lambda x: normalize(x, None, None, 1e-5, (1,)))(np.zeros((0, 3), np.float32))
    assert y.shape == (0, 3)
