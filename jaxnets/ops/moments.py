"""Mean and variance in one pass that stay exact beside a large mean."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

PART = 16
"""One in so many values makes the first guess at a mean."""


def moments(x: jax.Array, axes: Sequence[int], mask: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return a number near the mean, the mean less that number, and the biased variance, over some axes.

    E[x²] - E[x]² takes one pass, and cancels beside a large mean. With any number K near the mean, E[(x - K)²] -
    E[x - K]² is the same variance, and x - K is exact where the deviations are small beside the mean. So K is the
    mean of a sixteenth of the values, itself taken from the first one on: whatever the values are, (mean - K)² is
    then at most 15 to 31 variances, and no more than five bits are lost. The mean is K plus the rest; the two are
    kept apart, as their sum is rounded.

    Args:
        x: floating, any shape; the sums are taken in its dtype, float32 or better.
        axes: what to average over.
        mask: booleans of the rank of `x` that broadcast to it, true where a value counts, or weights ≥ 0, in the
            dtype of `x`; values that count for nothing must be finite. Where nothing counts, all three are zero. The
            guess is then the mean of all.

    Returns:
        K, the mean of x - K, and the variance, ≥ 0, with axes of length 1.

    >>> import jax.numpy as jnp
    >>> near, rest, variance = moments(jnp.array([[1.0, 3.0]]), (1,))
    >>> print(near, rest, variance)
    [[1.]] [[1.]] [[1.]]
    """
    axes = tuple(axes)
    if mask is None and x.size:
        first = lax.slice(x, (0,) * x.ndim, [1 if axis in axes else n for axis, n in enumerate(x.shape)])
        longest = max(axes, key=lambda axis: x.shape[axis])
        part = lax.slice_in_dim(x, 0, max(1, x.shape[longest] // PART), axis=longest)
        near = first + average(part - first, axes)
    else:
        near = average(x, axes, mask)
        near = near + average(x - near, axes, mask)
    deviation = x - near
    rest = average(deviation, axes, mask)
    return near, rest, jnp.maximum(average(jnp.square(deviation), axes, mask) - jnp.square(rest), 0)


def average(values: jax.Array, axes: Sequence[int], mask: jax.Array | None = None) -> jax.Array:
    """Return the mean of the values that count, by their weights, zero where none does, with axes of length 1.

    >>> print(average(jnp.array([1.0, 2.0, 6.0]), (0,), jnp.array([True, True, False])))
    [1.5]
    """
    if mask is None:
        return jnp.mean(values, axes, keepdims=True)
    if mask.dtype != bool:
        return jnp.sum(values * mask, axes, keepdims=True) / total(mask, values.shape, axes)
    count = jnp.sum(jnp.broadcast_to(mask, values.shape), axes, dtype=values.dtype, keepdims=True)
    return jnp.sum(values, axes, keepdims=True, where=mask) / jnp.maximum(count, 1)


def total(weights: jax.Array, shape: Sequence[int], axes: Sequence[int]) -> jax.Array:
    """Return the sum of weights over axes of `shape`, to which they broadcast, with axes of length 1; 1 for 0."""
    whole = jnp.sum(jnp.broadcast_to(weights, shape), axes, keepdims=True)
    return jnp.where(whole > 0, whole, 1)
