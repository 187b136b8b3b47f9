"""Maxima whose gradient does not depend on rounding.

The gradients of `jnp.max` and `jnp.maximum` go to the elements that equal the maximum. Under `jit` there may be none:
XLA recomputes elements where it needs them, and where a product plus a term may be rounded once or twice (as at the end
of a batch norm), the second value can differ from the first in its last bit. Then the gradient is silently lost. Here
elements are compared only with one another, or with a constant.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@functools.partial(jax.custom_jvp[jax.Array], nondiff_argnums=(1,))
def max_along(x: jax.Array, axis: int) -> jax.Array:
    """Take the maximum along one axis; the gradient goes to the first of equal maxima, or to the first NaN.

    >>> jax.grad(lambda x: max_along(x, 0))(jnp.array([1.0, 2, 2])).tolist()
    [0.0, 1.0, 0.0]
    """
    return jnp.max(x, axis)


@max_along.defjvp
def _(axis: int, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    axis %= x.ndim
    first = jnp.expand_dims(lax.argmax(x, axis, np.int32), axis)
    is_first = lax.broadcasted_iota(np.int32, x.shape, axis) == first
    return max_along(x, axis), jnp.where(is_first, dx, jnp.zeros((), dx.dtype)).sum(axis)


@jax.custom_jvp
def positive_part(x: jax.Array) -> jax.Array:
    """Return max(0, x), with the derivative ½ at 0; `jax.nn.relu` has 0 there.

    >>> jax.vmap(jax.grad(positive_part))(jnp.array([-3.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return jnp.maximum(x, 0)


@positive_part.defjvp
def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    slope = jnp.where(x > 0, 1, jnp.where(x < 0, 0, np.asarray(0.5, x.dtype)))
    return positive_part(x), slope.astype(x.dtype) * dx
