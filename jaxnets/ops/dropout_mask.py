"""Dropout masks from a quarter of the random words."""

from typing import Any

import jax
import jax.numpy as jnp

LEVELS = 1 << 24
"""Number of equally likely values of a draw."""


def survivors(key: jax.Array, rate: Any, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Draw a mask of the values that survive dropout, and return the probability of survival.

    Drawing random words is most of dropout's cost. One word of 32 bits is used for four values: value i has its own
    byte b_i, which decides all but one draw in 256. For that one, the other bytes give 16 more bits, b_{i+1} ⊕ b_{i+2}
    and b_{i+2} ⊕ b_{i+3}. The three bytes together are independent and uniform, so each draw is exactly one of 2²⁴
    equally likely numbers. The shared bits are independent of any single byte: two draws of a word depend on each
    other only where both fall on the same single level in 256, and the probability that they agree is within 2⁻¹⁶ of
    that of independent draws. The key's own generator draws the words, also for `jax.random.key(0, impl="rbg")`.

    Args:
        key: a random key.
        rate: probability of dropping a value, in [0, 1); may be traced. It is rounded to a multiple of 2⁻²⁴, at most
            1 - 2⁻²⁴; a float32 of a quarter or more is such a multiple already.
        shape: the shape of the mask.

    Returns:
        Booleans of this shape, true for values that survive, and the probability of survival in float32, exact after
        rounding.

    >>> keep, probability = survivors(jax.random.key(0), 0.25, (1000, 100))
    >>> print(probability, abs(keep.mean() - 0.75) < 0.01)
    0.75 True
    """
    dropped = jnp.clip(jnp.round(jnp.asarray(rate, jnp.float32) * LEVELS), 0, LEVELS - 1)
    probability = (LEVELS - dropped) / LEVELS
    lengths = shape or (1,)
    # A quarter of the longest axis but the first, since the batch may be sharded.
    axis = max(range(1, len(lengths)), key=lambda axis: (lengths[axis], axis), default=0)
    quarter = tuple(-(-n // 4) if k == axis else n for k, n in enumerate(lengths))
    draws = jnp.concatenate(_draws(jax.random.bits(key, quarter, jnp.uint32)), axis)
    keep = jax.lax.slice(draws, (0,) * len(lengths), lengths) >= dropped.astype(jnp.uint32)
    return keep.reshape(shape), probability


def _draws(words: jax.Array) -> list[jax.Array]:
    """Return four draws of 24 bits from each word."""
    # Byte i of `mixed` is b_i ⊕ b_{i+1}.
    mixed = words ^ _rotated(words, 8)
    return [((_rotated(words, 8 * i) & 0xFF) << 16) | (_rotated(mixed, 8 * i + 8) & 0xFFFF) for i in range(4)]


def _rotated(words: jax.Array, bits: int) -> jax.Array:
    return words if bits % 32 == 0 else (words >> (bits % 32)) | (words << (-bits % 32))
