"""The order of the examples in tests that take all of them in one batch."""

from typing import Any

import jax
import jax.numpy as jnp


def in_order(key: jax.Array, data: Any) -> jax.Array:
    """Return the examples in order: to draw one takes long to compile."""
    return jnp.arange(len(data[0]))
