"""Mean and variance that stay exact beside a large mean."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def moments(x: jax.Array, axes: Sequence[int], mask: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return `x - mean`, the mean, and the biased variance over some axes.

    A mean summed in floating point is off by about ε·|mean|, which is much beside a small deviation. So the
    mean of what remains after the subtraction is subtracted as well, and the variance is the mean square of
    the rest: no E[x²] - E[x]², and no negative variance. The correction is zero but for rounding, and so is
    its derivative: it is held constant.

    Args:
        x: floating, any shape; the sums are taken in its dtype, float32 or better.
        axes: what to average over.
        mask: booleans of the rank of `x` that broadcast to it, true where a value counts; values outside
            must be finite. Where nothing counts, the mean and the variance are zero.

    Returns:
        `x - mean` of the shape of `x`, the mean and the variance with axes of length 1.

    >>> import jax.numpy as jnp
    >>> centred, mean, variance = moments(jnp.array([[1.0, 3.0]]), (1,))
    >>> print(centred, mean, variance)
    [[-1.  1.]] [[2.]] [[1.]]
    """
    axes = tuple(axes)

    def average(values: jax.Array) -> jax.Array:
        if mask is None:
            return jnp.mean(values, axes, keepdims=True)
        count = jnp.sum(jnp.broadcast_to(mask, x.shape), axes, dtype=x.dtype, keepdims=True)
        return jnp.sum(values, axes, keepdims=True, where=mask) / jnp.maximum(count, 1)

    rough = average(x)
    remainder = x - rough
    correction = jax.lax.stop_gradient(average(remainder))
    centred = remainder - correction
    return centred, rough + correction, average(jnp.square(centred))
