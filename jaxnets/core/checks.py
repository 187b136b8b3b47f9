"""What every layer asks of its input and of its parameters, and says when they are wrong."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError


def check_floating(x: Any) -> None:
    """Check that the input is a floating array with features.

    Raises:
        NetError: if it is no array, of integers or booleans, or has a last axis of length 0.
    """
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise NetError(f"expects an array, got {type(x).__name__}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise NetError(
            f"expects floating input, got {x.dtype} {x.shape}; convert it, x.astype(jnp.float32) / 255 for images, "
            f"or use jn.embed for indices"
        )
    if len(x.shape) > 1 and x.shape[-1] == 0:
        raise NetError(f"expects at least one feature, got {x.shape}")


def check_params(params: Any, shapes: Mapping[str, tuple[int, ...]], x: Any) -> None:
    """Check that parameters have exactly these names and shapes.

    Raises:
        NetError: naming what is missing or unexpected, or the shape given and the one the input needs.
    """
    given = dict(params) if isinstance(params, Mapping) else {}
    if set(given) != set(shapes):
        have, want = (", ".join(names) or "none" for names in (given, shapes))
        raise NetError(f"needs the parameters {want}, got {have}", names_differ=True)
    for name, shape in shapes.items():
        if (have := jnp.shape(given[name])) != shape:
            raise NetError(
                f"has {name} {have}, but input {jnp.shape(x)} needs {name} {shape}; give it input like that "
                f"it was initialized for, or call init again"
            )


def check_state(state: Any, shapes: Mapping[str, tuple[int, ...]], x: Any) -> None:
    """Check that a layer's state has exactly these names and shapes.

    Raises:
        NetError: naming what is missing or unexpected, or the shape given and the one the input needs.
    """
    if not state:
        raise NetError(f"needs the state {', '.join(shapes)}, got none; pass the state that init returned")
    check_params(state, shapes, x)


def check_train_key(key: Any) -> None:
    """Check that a random layer has a key in training.

    Raises:
        NetError: if there is none.
    """
    if key is None:
        raise NetError("is random in training and needs a key, got none; pass apply(..., key=key, train=True)")


def param_dtype(x: Any) -> Any:
    """Return the dtype of parameters for an input: float64 for float64, float32 for all else."""
    return jnp.float64 if x.dtype == jnp.float64 else jnp.float32


def along_last(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Return a vector as an array of `like`'s rank along the last axis: rank promotion written out."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
