"""Which values to keep and which to drop, from a quarter of the random words."""

from typing import Any

import jax
import jax.numpy as jnp

LEVELS = 1 << 24
"""A draw is one of so many equally likely numbers."""


def survivors(key: jax.Array, rate: Any, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Draw which values survive when each is dropped with a probability, and how likely it is to survive.

    Random words are what dropout costs. One word of 32 bits serves four values: value i has a byte b_i of it for
    itself, which settles all but one draw in 256. For that one, 16 bits more are made of the others, b_{i+1} ⊕ b_{i+2}
    and b_{i+2} ⊕ b_{i+3}. The three bytes together are independent and uniform, so each draw is exactly one of 2²⁴
    equally likely numbers. What they share is independent of any one byte: two draws of a word know of each other only
    where both fall on the same single level in 256, and the chance that they agree is within 2⁻¹⁶ of that of
    independent draws. The words are drawn by the key's own generator: `jax.random.key(0, impl="rbg")` is heeded.

    Args:
        key: a random key.
        rate: probability to drop, in [0, 1); may be traced. It is rounded to a multiple of 2⁻²⁴, at most 1 - 2⁻²⁴:
            for a float32 of a quarter or more, not at all.
        shape: how many values.

    Returns:
        Booleans of this shape, true for what survives, and the probability of that in float32, exact after rounding.

    >>> keep, probability = survivors(jax.random.key(0), 0.25, (1000, 100))
    >>> print(probability, abs(keep.mean() - 0.75) < 0.01)
    0.75 True
    """
    dropped = jnp.clip(jnp.round(jnp.asarray(rate, jnp.float32) * LEVELS), 0, LEVELS - 1)
    probability = (LEVELS - dropped) / LEVELS
    lengths = shape or (1,)
    axis = max(range(1, len(lengths)), key=lambda axis: (lengths[axis], axis), default=0)  # the batch may be sharded
    quarter = tuple(-(-n // 4) if place == axis else n for place, n in enumerate(lengths))
    draws = jnp.concatenate(_draws(jax.random.bits(key, quarter, jnp.uint32)), axis)
    keep = jax.lax.slice(draws, (0,) * len(lengths), lengths) >= dropped.astype(jnp.uint32)
    return keep.reshape(shape), probability


def _draws(words: jax.Array) -> list[jax.Array]:
    """Make four draws of 24 bits of each word."""
    mixed = words ^ _turned(words, 8)  # byte i is now b_i ⊕ b_{i+1}
    return [((_turned(words, 8 * i) & 0xFF) << 16) | (_turned(mixed, 8 * i + 8) & 0xFFFF) for i in range(4)]


def _turned(words: jax.Array, bits: int) -> jax.Array:
    return words if bits % 32 == 0 else (words >> (bits % 32)) | (words << (-bits % 32))
