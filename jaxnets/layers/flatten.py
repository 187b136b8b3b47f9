"""Reshaping layers."""

import math
from typing import Any

import jax.numpy as jnp

from jaxnets.errors import NetError


def flatten(x: Any) -> Any:
    """Join all axes but the batch into one: `(batch, ...)` to `(batch, features)`, in row-major order.

    Raises:
        NetError: for an input without a batch axis.

    >>> import jax.numpy as jnp
    >>> flatten(jnp.ones((2, 3, 4, 5))).shape
    (2, 60)
    """
    shape = jnp.shape(x)
    if not shape:
        raise NetError("expects (batch, ...), got a scalar", label="flatten")
    return jnp.reshape(x, (shape[0], math.prod(shape[1:])))
