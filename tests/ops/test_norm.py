"""Normalization as an array function: every derivative of the plain formula, and large means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.ops.norm import moments, normalize
from tests.oracle import floats

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
        mask = (
            jnp.asarray(np.random.default_rng(0).random((*shape[:2], *(1,) * (len(shape) - 2))) < 0.6)
            .at[:, 0]
            .set(True)
        )
    arrays = (floats(*shape) + np.float32(2), floats(*beside, seed=1), floats(*beside, seed=2))
    return tuple(jnp.asarray(array, jnp.float64) for array in arrays), axes, mask


@pytest.mark.parametrize("name", LAYOUTS)
@jax.enable_x64(True)
def test_every_derivative_is_that_of_the_plain_formula(name):
    arrays, axes, mask = example(name)
    arrays = (*arrays, jnp.float64(0.1))  # epsilon is differentiated as well
    directions = tuple(jnp.cos(3.0 * jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape) for a in arrays)

    def derivatives(normalize):
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

    ours, expected = (jax.jit(lambda f=f: derivatives(f))() for f in (normalize, plain))
    for kind in expected:
        for a, b in zip(jax.tree.leaves(ours[kind]), jax.tree.leaves(expected[kind]), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, float(jnp.abs(b).max())), err_msg=kind)


@settings(max_examples=8)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=2),
    st.floats(-1e15, 1e15).filter(lambda mean: abs(mean) > 1e-3),
    st.data(),
)
def test_moments_are_exact_for_any_mean(shape, mean, data):
    """For any float32 values the moments are those in exact arithmetic."""
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    x = (
        floats(*shape) * np.float32(abs(mean) * data.draw(st.sampled_from([1.0, 1e-3, 1e-6]))) + np.float32(mean)
    ).astype(np.float32)
    mask = np.random.default_rng(1).random(shape) < 0.7 if data.draw(st.booleans()) else None
    exact, counts = x.astype(np.float64), np.ones(shape, bool) if mask is None else mask
    n = np.maximum(counts.sum(tuple(axes), keepdims=True), 1)
    expected = (exact * counts).sum(tuple(axes), keepdims=True) / n
    variance = ((exact - expected) ** 2 * counts).sum(tuple(axes), keepdims=True) / n
    shift, rest, found = jax.jit(lambda x: moments(x, axes, mask))(x)
    np.testing.assert_allclose(found, variance, rtol=2e-5, atol=1e-20 * mean**2)
    error = np.abs(np.asarray(shift, np.float64) + np.asarray(rest, np.float64) - expected)
    assert (error <= 5e-6 * np.sqrt(variance) + 1e-14 * abs(mean)).all()


def test_an_outlier_first_costs_no_accuracy():
    """The worst case for the shift: only the first value differs."""
    x = np.full((4096, 1), 3.0, np.float32) + floats(4096, 1, scale=1e-3)
    x[0] = 1e4
    shift, rest, variance = moments(jnp.asarray(x), (0,))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(variance, exact.var(0, keepdims=True), rtol=2e-6)
    np.testing.assert_allclose(np.float64(shift) + np.float64(rest), exact.mean(0, keepdims=True), rtol=1e-6)


def test_nan_and_infinity_stay_in_their_group():
    x = jnp.asarray(floats(8, 3)).at[5, 0].set(jnp.nan).at[6, 1].set(jnp.inf)
    y, mean, variance = normalize(x, None, None, 1e-5, (0,))
    for found in (y, mean, variance):
        assert not jnp.isfinite(found[:, :2]).any() or found is mean
        assert jnp.isfinite(found[:, 2]).all()
    assert not jnp.isfinite(mean[:, :2]).any()


def test_residuals_are_in_half_precision_and_arithmetic_in_float32():
    x = jnp.asarray(floats(6, 4)).astype(jnp.bfloat16)
    y, back = jax.vjp(lambda x: normalize(x, None, None, 1e-5, (0,))[0], x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, normalize(x.astype(jnp.float32), None, None, 1e-5, (0,))[0], rtol=1e-6)
    assert back(y)[0].dtype == jnp.bfloat16
    residuals = [leaf for leaf in jax.tree.leaves(back) if leaf.size == x.size]
    assert [leaf.dtype for leaf in residuals] == [jnp.bfloat16]


def test_gradients_survive_an_export():
    x, bias = jnp.asarray(floats(4, 3)), jnp.asarray(floats(1, 3, seed=1))
    gradient = jax.jit(jax.grad(lambda x, bias: (normalize(x, None, bias, 1e-5, (0,))[0] ** 3).sum(), (0, 1)))
    exported = jax.export.export(gradient, platforms=["cpu", "cuda"])(x, bias)
    for a, b in zip(exported.call(x, bias), gradient(x, bias), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_an_empty_batch_stays_empty():
    y, _, _ = normalize(jnp.zeros((0, 3)), None, None, 1e-5, (1,))
    assert y.shape == (0, 3)
