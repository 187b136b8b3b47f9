"""Sums that keep the rounding errors of float32: in compiled loops, under vmap and in derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.ops.sums import Sum, add, as_sum, counts, rounded, total
from tests.once import once

DOUBLINGS = 35
ZERO = Sum(np.float32(0), np.float32(0))


def exact(sums: Sum) -> np.ndarray:
    return np.asarray(sums.high, np.float64) + np.asarray(sums.low, np.float64)


def doubled(sums: Sum) -> Sum:
    return jax.lax.fori_loop(0, DOUBLINGS, lambda _, sums: sums + sums, sums)


@jax.jit
def merged(first: Sum, others: jax.Array) -> Sum:
    """Add numbers to a sum one by one."""
    return jax.lax.scan(lambda sums, value: (sums + as_sum(value), None), first, others)[0]


def test_counts_are_exact_beyond_two_to_the_24th():
    @jax.jit
    def sums(ones, many, integers):
        large = doubled(merged(as_sum(jnp.float32(0)), ones))
        members = jax.vmap(add, (0, None))(jax.tree.map(lambda x: x[None], large), as_sum(jnp.float32(1)))
        return large, merged(large, many), members, as_sum(integers)

    numbers = np.array([2**31 - 1, -(2**24) - 1, 0], np.int32)
    large, more, members, integers = map(exact, sums(np.ones(37, np.float32), np.ones(1000, np.float32), numbers))
    assert large == 37 * 2**DOUBLINGS  # 1.3e12
    assert more == 37 * 2**DOUBLINGS + 1000
    assert members[0] == large + 1
    np.testing.assert_array_equal(integers, numbers)


def test_real_numbers_lose_nothing_over_many_batches():
    found = merged(ZERO, np.full(10**6, 0.1, np.float32))
    assert exact(found) == pytest.approx(10**6 * float(np.float32(0.1)), rel=1e-13)
    signs = np.tile(np.array([1e8, 1.0, -1e8], np.float32), 50)
    assert exact(merged(ZERO, signs)) == 50


def test_sums_of_one_batch():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(5000, 2)).astype(np.float32), rng.random(5000).astype(np.float32)
    weights[:9], values[:9] = 0, np.nan
    expected = (weights[9:, None] * values[9:]).astype(np.float64).sum(0)

    def both(values, weights):
        return total(values, weights), jax.grad(lambda v: rounded(total(v, weights)).sum())(values)

    found, gradient = jax.tree.map(np.asarray, once(both, values, weights))
    np.testing.assert_allclose(exact(found), expected, rtol=1e-12)
    np.testing.assert_array_equal(gradient[9:, 1], weights[9:])
    np.testing.assert_array_equal(gradient[:9], 0)
    many, none = np.full(4099, 4097, np.float32), np.zeros((0, 3), np.float32)
    found, empty = once(lambda *of: [total(x) for x in of], many, none)
    assert exact(found) == 4099 * 4097  # odd and above 2²⁴, so no float32
    assert exact(empty).tolist() == [0, 0, 0]


@pytest.mark.slow
def test_a_batch_of_more_than_two_to_the_24th():
    assert exact(total(np.ones(2**24 + 3, np.float32))) == 2**24 + 3


def test_sums_of_infinities():
    for values, expected in (([1.0, np.inf, 1.0], np.inf), ([np.inf, -np.inf, 1.0], np.nan)):
        found = merged(ZERO, np.array(values, np.float32))
        np.testing.assert_array_equal(rounded(found), expected)


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

    @jax.jit
    def both(weights):
        found = counts(places, weights, (2,)).value
        return found, jax.grad(lambda w: counts(places, w, (2,)).value[1])(weights)

    np.testing.assert_array_equal(both(np.ones(4, np.float32))[1], [0, 1, 1, 0])
    for bad in (-1.0, np.nan, np.inf):
        assert np.isnan(both(np.array([1.0, bad, 1.0, 1.0], np.float32))[0]).all()
