"""Dropout masks: the exact distribution of the draws, by linear algebra and by counting."""

import itertools

import jax
import numpy as np
import pytest

from jaxnets.ops import dropout_mask as ops
from jaxnets.ops.dropout_mask import survivors
from tests.once import once

jitted_draws, jitted_survivors = jax.jit(ops._draws), jax.jit(survivors, static_argnums=2)


def draws(words):
    return [np.asarray(draw) for draw in jitted_draws(np.asarray(words, np.uint32))]


def test_a_word_determines_each_draw_and_each_draw_is_uniform():
    """The 24 bits of each draw are linearly independent forms of the word, so all numbers are equally likely."""
    for draw in draws(1 << np.arange(32, dtype=np.uint64)):
        rows, rank = [int(row) for row in draw], 0
        for bit in reversed(range(24)):  # elimination over the field of two elements
            pivot = next((row for row in rows if row >> bit & 1), None)
            if pivot is not None:
                rows = [row ^ pivot if row >> bit & 1 else row for row in rows if row is not pivot]
                rank += 1
        assert rank == 24
    a, b = np.random.default_rng(0).integers(0, 2**32, (2, 32), dtype=np.uint64)
    for x, y, both in zip(draws(a), draws(b), draws(a ^ b), strict=True):
        np.testing.assert_array_equal(x ^ y, both)


def test_a_draw_is_independent_of_the_first_byte_of_another():
    """The bits of a draw and of the first byte of any other are 32 independent forms of the word."""
    basis = draws(1 << np.arange(32, dtype=np.uint64))
    for a, b in itertools.permutations(range(4), 2):
        rows = [int(x) << 8 | int(y) >> 16 for x, y in zip(basis[a], basis[b], strict=True)]
        span = 0
        while rows:
            pivot = max(rows)
            if not pivot:
                break
            rows = [min(row, row ^ pivot) for row in rows if row != pivot]
            span += 1
        assert span == 32


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("rate", [1 / 256, 0.1, 0.5, 0.999])
def test_shares_within_five_standard_deviations(impl, rate):
    keep, probability = jitted_survivors(jax.random.key(1, impl=impl), np.float32(rate), (1000, 4, 250))
    p = float(probability)
    assert abs(p - (1 - np.float64(np.float32(rate)))) <= 2**-25
    kept = np.asarray(keep)
    assert abs(kept.mean() - p) < 5 * (p * (1 - p) / kept.size) ** 0.5
    for other in (kept[..., 63:126], kept[..., 126:189], np.roll(kept, 1, 0)[..., :63], np.roll(kept, 1, 1)[..., :63]):
        both = (kept[..., :63] & other).mean()  # values of one word are 63 apart
        assert abs(both - p * p) < 5 * (p * p * (1 - p * p) / other.size) ** 0.5


def test_any_shape_under_vmap():
    rates, shapes = np.array([0.0, 0.4, 0.9], np.float32), [(), (1,), (5,), (3, 1), (2, 7, 3), (4, 0)]

    def draw(key, rates):
        keys, found = jax.random.split(key, 3), []
        for shape in shapes:
            alone = [survivors(keys[k], rates[k], shape) for k in range(3)]
            found.append((jax.vmap(lambda key, rate, shape=shape: survivors(key, rate, shape))(keys, rates), alone))
        return found

    found = jax.tree.map(np.asarray, once(draw, jax.random.key(0), rates))
    for shape, (together, alone) in zip(shapes, found, strict=True):
        for k, each in enumerate(alone):
            for a, b in zip(together, each, strict=True):
                np.testing.assert_array_equal(a[k], b)
        assert together[0].shape == (3, *shape)
        assert together[0][0].all()
