"""Losses of real numbers, one value per example: the mean over all axes except the batch."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.checks import refuse
from jaxnets.core.errors import NetError, check_positive
from jaxnets.losses.checks import at_least_zero, magnitude, named, option, over_batch, same_shape


@named
def absolute_error(outputs: Any, targets: Any) -> jax.Array:
    """Return the absolute error |o − t|, whose mean is smallest at the median of the targets.

    Args:
        outputs: `(batch, ...)`, floating.
        targets: of the same shape.

    Returns:
        `(batch,)`, float32 or wider. The derivative at o = t is 0.

    Raises:
        NetError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> print(absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 5.0]])))
    [1.5]
    """
    outputs, targets = same_shape(outputs, targets)
    return over_batch(magnitude(outputs - targets))


@named
def squared_error(outputs: Any, targets: Any) -> jax.Array:
    """Return the squared error (o − t)², without the factor ½.

    Args:
        outputs: `(batch, ...)`, floating.
        targets: of the same shape.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> print(squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0])))
    [0. 9.]
    """
    return over_batch(optax.losses.squared_error(*same_shape(outputs, targets)))


@named
def half_squared_error(outputs: Any, targets: Any) -> jax.Array:
    """Return half the squared error, ½ (o − t)², whose derivative is the error itself.

    Args:
        outputs: `(batch, ...)`, floating.
        targets: of the same shape.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> print(half_squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0])))
    [0.  4.5]
    """
    return over_batch(optax.losses.l2_loss(*same_shape(outputs, targets)))


@named
def huber(outputs: Any, targets: Any, *, delta: Any = 1.0) -> jax.Array:
    """Return the Huber loss: ½ e² for |e| ≤ δ, otherwise δ (|e| − ½ δ), with e = o − t.

    Args:
        outputs: `(batch, ...)`, floating.
        targets: of the same shape.
        delta: the error |e| at which the parabola ends, > 0; may be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: if the shapes differ or δ ≤ 0.

    Huber, "Robust Estimation of a Location Parameter" (1964).

    >>> import jax.numpy as jnp
    >>> print(huber(jnp.array([0.5, 3.0]), jnp.zeros(2)))
    [0.125 2.5  ]
    """
    check_positive("delta", delta)
    outputs, targets = same_shape(outputs, targets)
    return over_batch(_huber(outputs - targets, option(delta, outputs)))


@named
def smooth_l1(outputs: Any, targets: Any, *, beta: Any = 1.0) -> jax.Array:
    """Return the smooth L1 loss: ½ e² / β for |e| ≤ β, otherwise |e| − ½ β, with e = o − t.

    This is `huber(delta=beta) / beta`: its slope in the tails is 1 for any β.

    Args:
        outputs: `(batch, ...)`, floating.
        targets: of the same shape.
        beta: the error |e| at which the parabola ends, > 0; may be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: if the shapes differ or β ≤ 0.

    Girshick, "Fast R-CNN" (2015), equation 3, for β = 1.

    >>> import jax.numpy as jnp
    >>> print(smooth_l1(jnp.array([0.5, 3.0]), jnp.zeros(2), beta=2.0))
    [0.0625 2.    ]
    """
    check_positive("beta", beta)
    outputs, targets = same_shape(outputs, targets)
    beta = option(beta, outputs)
    return over_batch(_huber(outputs - targets, beta)) / beta


@named
def log_cosh(outputs: Any, targets: Any) -> jax.Array:
    """Return log cosh e with e = o − t: about ½ e² near 0 and |e| − log 2 far away, smooth everywhere.

    Args:
        outputs: `(batch, ...)`, floating.
        targets: of the same shape.

    Returns:
        `(batch,)`, float32 or wider; finite for any error.

    Raises:
        NetError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> print(log_cosh(jnp.array([0.0, 100.0]), jnp.zeros(2)).round(1))
    [ 0.  99.3]
    """
    outputs, targets = same_shape(outputs, targets)
    error = outputs - targets
    size, near = magnitude(error), jnp.abs(error) < 1
    # Near 0, cosh e = 1 + 2 sinh²(e / 2) avoids cancellation; far away, e^(−2|e|) avoids overflow.
    small = jnp.log1p(2 * jnp.square(jnp.sinh(jnp.where(near, error, 0) / 2)))
    return over_batch(jnp.where(near, small, size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)))


@named
def squared_log_error(outputs: Any, targets: Any) -> jax.Array:
    """Return the squared logarithmic error (MSLE), (log(1 + o) − log(1 + t))², for quantities compared by their ratio.

    Args:
        outputs: `(batch, ...)`, floating, > −1; traced values at or below −1 return NaN or ∞.
        targets: of the same shape, > −1.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: if the shapes differ, or a known value is ≤ −1.

    >>> import jax.numpy as jnp
    >>> print(squared_log_error(jnp.array([0.0, jnp.e - 1]), jnp.zeros(2)).round(4))
    [0. 1.]
    """
    outputs, targets = same_shape(outputs, targets)
    for name, x in (("outputs", outputs), ("targets", targets)):
        refuse(x, lambda x: x <= -1, f"expects {name} > -1, got {{}}; end the network with jax.nn.softplus")
    return over_batch(optax.losses.squared_error(jnp.log1p(outputs), jnp.log1p(targets)))


@named
def absolute_percentage_error(outputs: Any, targets: Any, *, epsilon: Any = 1e-8) -> jax.Array:
    """Return the absolute percentage error (MAPE) as a fraction, |o − t| / max(|t|, ε).

    Where a target is 0 the loss is |o| / ε: finite, huge and hardly meaningful. Leave such targets out by a weight of
    0, or choose ε as the smallest magnitude that matters.

    Args:
        outputs: `(batch, ...)`, floating.
        targets: of the same shape.
        epsilon: ε > 0, the smallest divisor; may be traced.

    Returns:
        `(batch,)`, float32 or wider; 0.1 is 10 %.

    Raises:
        NetError: if the shapes differ or ε ≤ 0.

    >>> import jax.numpy as jnp
    >>> print(absolute_percentage_error(jnp.array([11.0, 1.0]), jnp.array([10.0, -2.0])))
    [0.1 1.5]
    """
    check_positive("epsilon", epsilon)
    outputs, targets = same_shape(outputs, targets)
    return over_batch(magnitude(outputs - targets) / jnp.maximum(jnp.abs(targets), option(epsilon, outputs)))


@named
def cosine(outputs: Any, targets: Any) -> jax.Array:
    """Return the cosine distance 1 − o·t / (‖o‖ ‖t‖) along the last axis, from 0 (same direction) to 2 (opposite).

    Vectors are first scaled by their largest entry, so that neither large nor small vectors lose precision. A zero
    vector has distance 1 to any vector; as an output its gradient is −t / ‖t‖, so that a step moves it to the target.

    Args:
        outputs: `(batch, ..., features)`, floating.
        targets: of the same shape.

    Returns:
        `(batch,)`, float32 or wider: the mean over the axes in between.

    Raises:
        NetError: if the shapes differ, or there is no feature axis.

    >>> import jax.numpy as jnp
    >>> print(cosine(jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.array([[6.0, 8.0], [1.0, 0.0]])).round(6))
    [0. 1.]
    """
    outputs, targets = same_shape(outputs, targets)
    if outputs.ndim < 2:
        raise NetError(f"expects (batch, ..., features), got {outputs.shape}; a single number has no direction")
    return over_batch(at_least_zero(1 - (_direction(outputs) * _direction(targets)).sum(axis=-1)))


def _direction(x: jax.Array) -> jax.Array:
    """Return x / ‖x‖ along the last axis, without overflow or underflow; zeros remain zeros."""
    # Scaling does not change the direction, and needs no gradient.
    largest = jax.lax.stop_gradient(jnp.abs(x).max(axis=-1, keepdims=True, initial=0.0))
    x = x / jnp.where(largest > 0, largest, 1)
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1))


def _huber(error: jax.Array, delta: jax.Array) -> jax.Array:
    """Return ½ e² for |e| ≤ δ, otherwise δ (|e| − ½ δ)."""
    size = magnitude(error)
    # δ where |e| is infinite, so that no ∞ − ∞ reaches the gradient.
    inside = jnp.where(size < delta, size, delta)
    return jnp.square(inside) / 2 + delta * (size - inside)
