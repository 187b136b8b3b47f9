"""What the normalization layers share: a learned scale and bias, and padding left out."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_floating
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError
from jaxnets.core.net import Params, check_key
from jaxnets.core.padded import Padded, check_padded

Initializer = jax.nn.initializers.Initializer


def affine(use_scale: bool, scale_init: Initializer, use_bias: bool, bias_init: Initializer) -> dict[str, Initializer]:
    """Return the initializers of the parameters that are wanted, by name."""
    return ({"scale": scale_init} if use_scale else {}) | ({"bias": bias_init} if use_bias else {})


def init_affine(inits: Mapping[str, Initializer], key: jax.Array, shape: tuple[int, ...], x: Any) -> Params:
    """Make the scale and the bias for an input, in float32 or float64."""
    check_key(key)
    keys = jax.random.split(key, 2)
    return {name: init(each, shape, param_dtype(x)) for (name, init), each in zip(inits.items(), keys, strict=False)}


def laid_out(params: Params, shape: Sequence[int]) -> dict[str, jax.Array | None]:
    """Return the scale and the bias laid out in `shape`; `None` for what is absent."""
    return {name: params[name].reshape(shape) if name in params else None for name in ("scale", "bias")}


def values_of(x: Any) -> Any:
    """Return the array in an input, or its spec, once it is known to be floating."""
    if isinstance(x, Padded):
        check_padded(x)
        x = x.values
    check_floating(x)
    return x


def channels_of(x: Any) -> tuple[int]:
    """Return `(channels,)` for an input with the channels last, of batches or of `Padded` sequences."""
    shape, padded = values_of(x).shape, isinstance(x, Padded)
    if len(shape) < 2 + padded:
        wanted = "Padded values (batch, time, ..., channels)" if padded else "(batch, ..., channels)"
        hint = "a channel axis with values[..., None]" if padded else "a batch axis with x[None]"
        raise NetError(f"expects {wanted}, got {shape}; add {hint}")
    return shape[-1:]


def zeroed(x: Any) -> tuple[jax.Array, jax.Array | None]:
    """Return an input with zeros for padding, and where it is real: `None` for everywhere."""
    values = jnp.asarray(x.zeroed() if isinstance(x, Padded) else x)
    mask = jnp.expand_dims(x.mask, tuple(range(2, values.ndim))) if isinstance(x, Padded) else None
    return values, mask


def narrowed(y: jax.Array, x: Any) -> Any:
    """Return an output in the dtype of the input `x`, `Padded` with zeros if that was."""
    if not isinstance(x, Padded):
        return y.astype(x.dtype)
    return Padded(Padded(y.astype(x.values.dtype), x.lengths).zeroed(), x.lengths)
