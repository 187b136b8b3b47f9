"""Checks and conversions of inputs, for layers that handle both arrays and `Padded` sequences."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_floating
from jaxnets.core.errors import NetError
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded, check_padded


def values_of(x: Any) -> Any:
    """Return the array of an input, or its spec, after checking that it is floating."""
    if isinstance(x, Padded):
        check_padded(x)
        x = x.values
    check_floating(x)
    return x


def channels_of(x: Any, name: str = "channels") -> tuple[int]:
    """Return `(channels,)` of a channels-last input, a batch or `Padded` sequences; errors call the axis `name`."""
    shape, padded = values_of(x).shape, isinstance(x, Padded)
    if len(shape) < 2 + padded:
        wanted = f"Padded values (batch, time, ..., {name})" if padded else f"(batch, ..., {name})"
        hint = "a channel axis with values[..., None]" if padded else "a batch axis with x[None]"
        raise NetError(f"expects {wanted}, got {shape}; add {hint}")
    return shape[-1:]


def sequence_width(x: Any) -> int:
    """Return the number of features of sequences `(batch, time, features)`, an array or `Padded`."""
    shape = values_of(x).shape
    if len(shape) != 3:
        hint = "add a batch axis with x[None]" if len(shape) == 2 else "join its axes of positions with x.reshape"
        raise NetError(f"expects (batch, time, features), got {shape}; {hint}")
    return shape[2]


def refuse_packed(x: Any, why: str) -> None:
    """Raise an error for `Packed` documents, in a layer that would mix them."""
    if isinstance(x, Packed):
        raise NetError(f"takes no Packed documents: {why}; pad them, jn.Padded.from_sequences(jn.data.unpack(x))")


def check_divides(what: str, n: int, groups: int) -> None:
    """Check that a number of channels or features is divisible by the number of groups."""
    if n % groups:
        raise NetError(f"expects {what} divisible by groups, got {n} {what} in {groups} groups")


def zero_padding(x: Any) -> tuple[jax.Array, jax.Array | None]:
    """Return an input with zeros for padding, and a mask of the real values, or `None` if all are real."""
    values = jnp.asarray(x.zeroed() if isinstance(x, Padded) else x)
    # (batch, time, 1, ...), of the rank of the values
    mask = jnp.expand_dims(x.mask, tuple(range(2, values.ndim))) if isinstance(x, Padded) else None
    return values, mask


def like_input(y: jax.Array, x: Any) -> Any:
    """Return an output in the dtype of the input `x`; for `Padded` input, as `Padded` with zeros for padding."""
    if not isinstance(x, Padded):
        return y.astype(x.dtype)
    return x.with_values(x.with_values(y.astype(x.values.dtype)).zeroed())
