"""Sums that keep the rounding errors of float32: in compiled loops, under vmap and in derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.ops.sums import Sum, add, as_sum, counts, rounded, total

DOUBLINGS = 35


def exact(sums: Sum) -> np.ndarray:
    return np.asarray(sums.high, np.float64) + np.asarray(sums.low, np.float64)


def doubled(sums: Sum) -> Sum:
    return jax.lax.fori_loop(0, DOUBLINGS, lambda _, sums: sums + sums, sums)


@jax.jit
def merged(first: Sum, others: jax.Array) -> Sum:
    """Add numbers to a sum one by one."""
    return jax.lax.scan(lambda sums, value: (sums + as_sum(value), None), first, others)[0]


def test_counts_are_exact_beyond_two_to_the_24th():
    one = as_sum(jnp.float32(1))
    large = jax.jit(doubled)(merged(as_sum(jnp.float32(0)), jnp.ones(37)))
    assert exact(large) == 37 * 2**DOUBLINGS  # 1.3e12
    assert exact(merged(large, jnp.ones(1000))) == 37 * 2**DOUBLINGS + 1000
    assert exact(jax.jit(jax.vmap(add, (0, None)))(jax.tree.map(lambda x: x[None], large), one))[0] == exact(large) + 1
    integers = as_sum(jnp.array([2**31 - 1, -(2**24) - 1, 0], jnp.int32))
    np.testing.assert_array_equal(exact(integers), [2**31 - 1, -(2**24) - 1, 0])


def test_real_numbers_lose_nothing_over_many_batches():
    found = merged(as_sum(jnp.float32(0)), jnp.full(10**6, 0.1, jnp.float32))
    assert exact(found) == pytest.approx(10**6 * float(np.float32(0.1)), rel=1e-13)
    signs = np.tile(np.array([1e8, 1.0, -1e8], np.float32), 50)
    assert exact(merged(as_sum(jnp.float32(0)), signs)) == 50


def test_sums_of_one_batch():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(5000, 2)).astype(np.float32), rng.random(5000).astype(np.float32)
    weights[:9], values[:9] = 0, np.nan
    expected = (weights[9:, None] * values[9:]).astype(np.float64).sum(0)
    np.testing.assert_allclose(exact(jax.jit(total)(values, weights)), expected, rtol=1e-12)
    assert exact(total(jnp.ones(2**24 + 3))) == 2**24 + 3
    gradient = jax.grad(lambda v: rounded(total(v, weights)).sum())(values)
    np.testing.assert_array_equal(gradient[9:, 1], weights[9:])
    np.testing.assert_array_equal(gradient[:9], 0)
    assert exact(total(jnp.zeros((0, 3)))).tolist() == [0, 0, 0]
    assert rounded(merged(as_sum(jnp.float32(0)), jnp.array([1.0, np.inf, 1.0]))) == np.inf
    assert np.isnan(rounded(merged(as_sum(jnp.float32(0)), jnp.array([np.inf, -np.inf, 1.0]))))


@pytest.mark.parametrize("spread", [0, 1])
def test_counts_by_position(spread):
    """More items than one block of integers holds, with weights of one magnitude and of many."""
    rng, items = np.random.default_rng(0), 2**20 + 77
    rows, columns = rng.integers(0, 5, items), rng.integers(0, 4, items)  # rows 3 and 4 are outside
    weights = (0.1 * 10 ** (spread * rng.normal(size=items))).astype(np.float32)
    expected = np.zeros((5, 4))
    np.add.at(expected, (rows, columns), weights.astype(np.float64))
    found = counts((rows, columns), weights, (3, 4))
    np.testing.assert_allclose(exact(found), expected[:3], rtol=1e-7)


def test_counts_have_derivatives_and_no_negative_weights():
    places = (np.array([0, 1, 1, 2]),)
    gradient = jax.jit(jax.grad(lambda w: counts(places, w, (2,)).value[1]))(jnp.ones(4))
    np.testing.assert_array_equal(gradient, [0, 1, 1, 0])
    for bad in (-1.0, np.nan, np.inf):
        assert np.isnan(counts(places, jnp.array([1.0, bad, 1.0, 1.0]), (2,)).value).all()
