"""The dtypes of parameters, reductions and arithmetic."""

from typing import Any

import jax
import jax.numpy as jnp


def param_dtype(x: Any) -> Any:
    """Return the dtype of parameters for an input: float64 for float64, float32 for any other."""
    return jnp.float64 if x.dtype == jnp.float64 else jnp.float32


def wide(x: Any) -> jax.Array:
    """Return an array in float64 if that is its dtype, otherwise in float32."""
    x = jnp.asarray(x)
    return x.astype(param_dtype(x))


def to_dtype(tree: Any, dtype: Any) -> Any:
    """Return a tree with its floating leaves in `dtype`, the others unchanged."""

    def convert(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    return jax.tree.map(convert, tree)
