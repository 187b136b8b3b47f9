"""Mean and variance in one pass that stay exact beside a large mean."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

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


@partial(jax.jit, static_argnames="axes")
def normalize(
    x: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    epsilon: Any,
    axes: Sequence[int],
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return y = scale · (x - mean) / √(variance + ε) + bias, the mean, and the biased variance, over some axes.

    Derived step by step, this takes a pass over memory for every step, and each pass costs as much as any other
    operation. The derivative of z = (x - mean)/σ is the projection

        dz = (dx - E[dx] - z E[z dx]) / σ

    which is its own transpose: one rule, linear in the tangents, gives forward mode as it stands and reverse mode
    turned round, of any order. Where scale and bias are shared along the axes, as in batch normalization, the two
    sums of the backward pass, Σ g and Σ g z, are the gradients of bias and scale as well. What is kept for it is
    x in its own dtype and three numbers for each group of values.

    Args:
        x: floating, any shape; the arithmetic is in float32, or float64 for float64.
        scale: of the rank of `x`, broadcast to it; `None` for 1.
        bias: likewise; `None` for 0.
        epsilon: ε > 0.
        axes: what to average over.
        mask: booleans of the rank of `x` that broadcast to it, true where a value counts, or floating weights, which
            have derivatives too; see `moments`.

    Returns:
        y of the shape of `x`, and mean and variance with axes of length 1, in float32 or float64.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1 and section 3.

    >>> y, mean, variance = normalize(jnp.array([[1.0, 3.0]]), None, None, 1e-5, (1,))
    >>> print(y.round(3), mean, variance)
    [[-1.  1.]] [[2.]] [[1.]]
    """
    dtype = x.dtype if jnp.finfo(x.dtype).bits > 32 else jnp.float32
    scale, bias = (
        jnp.full((1,) * x.ndim, default, dtype) if given is None else given.astype(dtype)
        for given, default in ((scale, 1), (bias, 0))
    )
    if mask is not None and mask.dtype != bool:
        mask = mask.astype(dtype)
    y, near, rest, variance = _normalize(tuple(axes), x, scale, bias, jnp.asarray(epsilon, dtype), mask)
    return y, near + rest, variance


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _normalize(axes: tuple[int, ...], x: Any, scale: Any, bias: Any, epsilon: Any, mask: Any) -> tuple[Any, ...]:
    x = x.astype(scale.dtype)
    near, rest, variance = moments(x, axes, mask)
    y = ((x - near) - rest) * (jax.lax.rsqrt(variance + epsilon) * scale) + bias
    return y, near, rest, variance


@partial(_normalize.defjvp, symbolic_zeros=True)
def _(axes: tuple[int, ...], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    x, scale, _, epsilon, mask = primals
    y, near, rest, variance = _normalize(axes, *primals)
    inverse = jax.lax.rsqrt(variance + epsilon)
    *others, dweights = (None if isinstance(each, SymbolicZero) else each for each in tangents)
    others = [jnp.zeros_like(own) if each is None else each for own, each in zip(primals, others)]
    # The backward pass takes x - near anew: cheaper than keeping it in float32 beside x.
    linear = jax.checkpoint(partial(_tangents, axes), prevent_cse=False)
    dy, drest, dvariance = linear(x, scale, mask, near, rest, inverse, *others, dweights)
    return (y, near, rest, variance), (dy, jnp.zeros_like(near), drest, dvariance)


def _tangents(
    axes: tuple[int, ...], x: Any, scale: Any, mask: Any, near: Any, rest: Any, inverse: Any, *tangents: Any
) -> tuple[Any, Any, Any]:
    """Return the tangents of y, the mean and the variance: linear in those of x, scale, bias, epsilon and weights."""
    dx, dscale, dbias, depsilon, dweights = tangents
    deviation, dx = x.astype(scale.dtype) - near, dx.astype(scale.dtype)
    along = average(dx, axes, mask)
    across = average(deviation * dx, axes, mask) - rest * along  # E[(x - mean) dx], half the variance's tangent
    if dweights is not None:
        centered, share = deviation - rest, dweights / total(mask, deviation.shape, axes)
        excess = jnp.square(centered) - average(jnp.square(centered), axes, mask)
        along = along + jnp.sum(share * centered, axes, keepdims=True)
        across = across + jnp.sum(share * excess, axes, keepdims=True) / 2
    slope = jnp.square(inverse) * (across + depsilon / 2)
    if all(scale.shape[axis] == 1 for axis in axes):  # everything but dx is one number for each group of values
        steepness = inverse * (dscale - scale * slope)
        dy = (scale * inverse) * dx + deviation * steepness + (dbias - scale * inverse * along - rest * steepness)
    else:
        centered = deviation - rest
        dy = (scale * inverse) * (dx - along - centered * slope) + dscale * (centered * inverse) + dbias
    return dy, along, 2 * across
