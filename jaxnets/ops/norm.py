"""Normalization: mean and variance, accurate even for a large mean, or mean squares; derivatives in closed form."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

SAMPLE = 16
"""The shift for the variance is the mean of one value in this many."""


def moments(x: jax.Array, axes: Sequence[int], mask: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return a shift K near the mean, the mean of x - K, and the biased variance, over some axes.

    E[x²] - E[x]² suffers from cancellation if the mean is large. The mean is K + E[x - K], and x - K is exact where
    deviations are small relative to the shift K, the mean of a sixteenth of the values, itself computed relative to the
    first value. The terms are returned separately, as their sum would be rounded. The variance is E[(x - mean)²].

    Args:
        x: floating, any shape; sums are computed in its dtype, float32 or wider.
        axes: the axes to average over.
        mask: booleans of the rank of `x` that broadcast to it, true where a value counts, or weights ≥ 0, in the
            dtype of `x`; values of weight 0 must be finite. Where no value counts, all three results are zero. With a
            mask, K is the mean of all values that count.

    Returns:
        K, the mean of x - K, and the variance, ≥ 0, with axes of length 1.

    >>> import jax.numpy as jnp
    >>> shift, rest, variance = moments(jnp.array([[1.0, 3.0]]), (1,))
    >>> print(shift, rest, variance)
    [[1.]] [[1.]] [[1.]]
    """
    axes = tuple(axes)
    if mask is None and x.size:
        # One value per group, with axes of length 1.
        first = lax.slice(x, (0,) * x.ndim, [1 if axis in axes else n for axis, n in enumerate(x.shape)])
        longest = max(axes, key=lambda axis: x.shape[axis])
        sample = lax.slice_in_dim(x, 0, max(1, x.shape[longest] // SAMPLE), axis=longest)
        shift = first + average(sample - first, axes)
    else:
        shift = average(x, axes, mask)
        # A second pass removes the rounding error of the first.
        shift = shift + average(x - shift, axes, mask)
    rest = average(x - shift, axes, mask)
    return shift, rest, average(jnp.square(centered(x, shift, rest, 1)), axes, mask)


def centered(x: jax.Array, shift: jax.Array, rest: jax.Array, part: float) -> jax.Array:
    """Return x - mean as (x - K) - (mean - K) with K = shift + part · rest, for any part from 0 to 1.

    Each use in a program has a part of its own: XLA on CPU computes a difference inside the sum that reads it, but
    writes it to memory if something else reads it too.
    """
    near = shift + part * rest
    return (x - near) - ((shift - near) + rest)


def average(values: jax.Array, axes: Sequence[int], mask: jax.Array | None = None) -> jax.Array:
    """Return the weighted mean of the values that count, zero where none count, with axes of length 1.

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
    """Return the sum over axes of weights broadcast to `shape`, with axes of length 1; 1 in place of 0."""
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

    Automatic differentiation of the separate steps takes a pass over memory for each. The derivative of
    z = (x - mean)/σ is the projection

        dz = (dx - E[dx] - z E[z dx]) / σ

    which is its own transpose: a single rule, linear in the tangents, gives forward mode and, transposed, reverse mode,
    at any order. Where scale and bias are shared along the axes, as in batch normalization, the two sums of the
    backward pass, Σ g and Σ g z, are also the gradients of bias and scale. The residuals are x in its own dtype and
    three numbers for each group of values.

    Args:
        x: floating, any shape; the arithmetic is in float32, or float64 for float64.
        scale: of the rank of `x`, broadcast to it; `None` for 1.
        bias: of the rank of `x`, broadcast to it; `None` for 0.
        epsilon: ε > 0.
        axes: the axes to average over.
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
    y, shift, rest, variance = _normalize(tuple(axes), x, scale, bias, jnp.asarray(epsilon, dtype), mask)
    return y, shift + rest, variance


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _normalize(axes: tuple[int, ...], x: Any, scale: Any, bias: Any, epsilon: Any, mask: Any) -> tuple[Any, ...]:
    x = x.astype(scale.dtype)
    shift, rest, variance = moments(x, axes, mask)
    y = centered(x, shift, rest, 1 / 2) * (jax.lax.rsqrt(variance + epsilon) * scale) + bias
    return y, shift, rest, variance


@partial(_normalize.defjvp, symbolic_zeros=True)
def _(axes: tuple[int, ...], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    x, scale, _, epsilon, mask = primals
    y, shift, rest, variance = _normalize(axes, *primals)
    inverse = jax.lax.rsqrt(variance + epsilon)
    *others, dweights = (None if isinstance(each, SymbolicZero) else each for each in tangents)
    others = [jnp.zeros_like(own) if each is None else each for own, each in zip(primals, others)]
    # The backward pass recomputes x - mean, which is cheaper than another float32 residual besides x.
    linear = jax.checkpoint(partial(_tangents, axes), prevent_cse=False)
    dy, drest, dvariance = linear(x, scale, mask, shift, rest, inverse, *others, dweights)
    # The shift is a constant, so the mean's tangent is that of the rest.
    return (y, shift, rest, variance), (dy, jnp.zeros_like(shift), drest, dvariance)


def _tangents(
    axes: tuple[int, ...], x: Any, scale: Any, mask: Any, shift: Any, rest: Any, inverse: Any, *tangents: Any
) -> tuple[Any, Any, Any]:
    """Return the tangents of y, mean and variance, linear in those of x, scale, bias, epsilon and weights."""
    dx, dscale, dbias, depsilon, dweights = tangents
    x, dx = x.astype(scale.dtype), dx.astype(scale.dtype)
    deviation = centered(x, shift, rest, 1 / 2)
    # The tangent of the mean, E[dx], and half that of the variance, E[(x - mean) dx].
    dmean = average(dx, axes, mask)
    half_dvariance = average(deviation * dx, axes, mask)
    if dweights is not None:
        share = dweights / total(mask, deviation.shape, axes)
        excess = jnp.square(deviation) - average(jnp.square(deviation), axes, mask)
        dmean = dmean + jnp.sum(share * deviation, axes, keepdims=True)
        half_dvariance = half_dvariance + jnp.sum(share * excess, axes, keepdims=True) / 2
    slope = jnp.square(inverse) * (half_dvariance + depsilon / 2)
    if all(scale.shape[axis] == 1 for axis in axes):
        # Everything but dx and the deviation has one value per group: combine these first, for a single pass over both.
        # Transposed, the product with the deviation is a sum.
        steepness = inverse * (dscale - scale * slope)
        summed = centered(x, shift, rest, 1 / 4)
        dy = (scale * inverse) * dx + summed * steepness + (dbias - scale * inverse * dmean)
    else:
        dy = (scale * inverse) * (dx - dmean - deviation * slope) + dscale * (deviation * inverse) + dbias
    return dy, dmean, 2 * half_dvariance


@partial(jax.jit, static_argnames="axes")
def normalize_rms(x: jax.Array, scale: jax.Array | None, epsilon: Any, axes: Sequence[int]) -> jax.Array:
    """Return y = scale · x / √(mean(x²) + ε) over some axes.

    Squares do not overflow, as large x are divided by the largest |x| first. As in `normalize`, the derivative of
    z = x/r, with r the root, is its own transpose, dz = (dx - z E[z dx]) / r, and the residuals are x in its own dtype
    and two numbers for each group of values.

    Args:
        x: floating, any shape; the arithmetic is in float32, or float64 for float64.
        scale: of the rank of `x`, broadcast to it; `None` for 1.
        epsilon: ε > 0.
        axes: the axes to average over.

    Returns:
        y of the shape of `x`, in float32 or float64.

    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.

    >>> print(normalize_rms(jnp.array([[0.0, 0.0, 3.0, 0.0]]), None, 1e-6, (1,)).round(3))
    [[0. 0. 2. 0.]]
    """
    dtype = x.dtype if jnp.finfo(x.dtype).bits > 32 else jnp.float32
    scale = jnp.ones((1,) * x.ndim, dtype) if scale is None else scale.astype(dtype)
    return _normalize_rms(tuple(axes), x, scale, jnp.asarray(epsilon, dtype))[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _normalize_rms(axes: tuple[int, ...], x: Any, scale: Any, epsilon: Any) -> tuple[Any, ...]:
    """Return y, a divisor d, which is about the largest |x| or 1, and 1 / √(mean(u²) + ε/d²) for u = x / d."""
    x = x.astype(scale.dtype)
    # Not so large that 1 / d underflows: XLA multiplies by it.
    most = float(jnp.finfo(x.dtype).max) ** 0.75
    divisor = jnp.clip(jnp.max(jnp.abs(x), axes, keepdims=True, initial=0), 1, most)
    inverse = jax.lax.rsqrt(average(jnp.square(x / divisor), axes) + epsilon / divisor / divisor)
    return x / divisor * inverse * scale, divisor, inverse


@_normalize_rms.defjvp
def _(axes: tuple[int, ...], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    x, scale, _ = primals
    y, divisor, inverse = _normalize_rms(axes, *primals)
    # The backward pass recomputes u, which is cheaper than another float32 residual besides x.
    linear = jax.checkpoint(partial(_rms_tangents, axes), prevent_cse=False)
    dy, dinverse = linear(x, scale, divisor, inverse, *tangents)
    # Any divisor gives the same y, so it is a constant.
    return (y, divisor, inverse), (dy, jnp.zeros_like(divisor), dinverse)


def _rms_tangents(
    axes: tuple[int, ...], x: Any, scale: Any, divisor: Any, inverse: Any, dx: Any, dscale: Any, depsilon: Any
) -> tuple[Any, Any]:
    """Return the tangents of y and of the inverse, linear in those of x, scale and epsilon."""
    u, du = x.astype(scale.dtype) / divisor, dx.astype(scale.dtype) / divisor
    z = u * inverse
    # Half the tangent of mean(u²) + ε/d², times the inverse.
    half = average(z * du, axes) + inverse * (depsilon / divisor / divisor / 2)
    return scale * inverse * (du - z * half) + dscale * z, -jnp.square(inverse) * half
