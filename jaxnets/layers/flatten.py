"""Reshaping layers."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import as_net, labeled, layer
from jaxnets.core.net import Net, Params


def flatten(x: Any = None) -> Any:
    """Flatten all axes except the batch, in row-major order: `(batch, ...)` to `(batch, features)`.

    As a layer, write it with or without a call: `jn.flatten()` returns the network of this function.

    Raises:
        NetError: for an input without a batch axis.

    >>> import jax.numpy as jnp
    >>> flatten(jnp.ones((2, 3, 4, 5))).shape
    (2, 60)
    """
    if x is None:
        return as_net(flatten)
    shape = np.shape(x)
    if not shape:
        raise NetError("expects (batch, ...), got a scalar", label="flatten")
    return jnp.reshape(x, (shape[0], math.prod(shape[1:])))


@labeled
def unflatten(shape: Sequence[int]) -> Net:
    """Reshape the features of each example, in row-major order: the inverse of `flatten`.

    Args:
        shape: the shape of one example, without the batch axis.

    Returns:
        A network from `(batch, features)` to `(batch, *shape)`, without parameters.

    Raises:
        NetError: for sizes below 1, or an input with another number of features than the shape has.

    >>> import jax.numpy as jnp
    >>> unflatten((3, 4)).apply({}, {}, jnp.ones((2, 12)))[0].shape
    (2, 3, 4)
    """
    sizes = tuple(shape)
    for size in sizes:
        check_count("each size", size)

    def apply(params: Params, x: Any) -> Any:
        if jnp.ndim(x) != 2 or np.shape(x)[1] != math.prod(sizes):
            raise NetError(f"expects (batch, {math.prod(sizes)}), got {np.shape(x)}")
        return jnp.reshape(x, (np.shape(x)[0], *sizes))

    return layer(None, apply)
