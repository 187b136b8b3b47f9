"""Arrays inside `jax.shard_map`, whose types say over which devices their values differ."""

from typing import Any

import jax
from jax import lax


def alike(left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both, varying over the same devices of a `shard_map`: what is equal on all is cast."""
    over = [_varies(each) for each in (left, right)]
    left, right = (
        lax.pcast(each, tuple(sorted(other - own)), to="varying") if other - own else each
        for each, own, other in zip((left, right), over, reversed(over), strict=True)
    )
    return left, right


def _varies(x: jax.Array) -> frozenset[Any]:
    """Return the axes of a `shard_map` over which an array varies; later versions of JAX keep them elsewhere."""
    aval = jax.typeof(x)
    return getattr(aval, "vma", None) or getattr(getattr(aval, "manual_axis_type", None), "varying", frozenset())
