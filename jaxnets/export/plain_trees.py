"""Inputs and outputs as plain trees, which a file describes without this library: dicts, tuples and arrays."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.cache import Cache
from jaxnets.core.errors import NetError, shown
from jaxnets.core.padded import Padded


def plain(tree: Any) -> Any:
    """Return a tree of dicts, tuples and arrays: `Padded` and named tuples as dicts of their fields.

    >>> plain((Padded([[1, 2]], [2]), None))
    ({'values': Array([[1, 2]], dtype=int32), 'lengths': Array([2], dtype=int32)}, None)
    """
    return (
        {name: plain(each) for name, each in named.items()}
        if (named := _fields(tree)) is not None
        else (tuple(map(plain, tree)) if isinstance(tree, tuple | list) else _leaf(tree))
    )


def like(example: Any, tree: Any) -> Any:
    """Return a plain tree in the structure of an example: the inverse of `plain`."""
    if isinstance(example, Padded):
        # Unchecked, as transformations do it: the values are traced.
        return type(example).tree_unflatten(None, tuple(tree[each.name] for each in fields(example)))
    if (named := _fields(example)) is not None:
        inner = {name: like(each, tree[name]) for name, each in named.items()}
        return inner if isinstance(example, Mapping) else type(example)(**inner)
    if isinstance(example, tuple | list):
        return type(example)(like(one, each) for one, each in zip(example, tree, strict=True))
    return tree


def with_batch(example: Any, batch: Any) -> Any:
    """Return the specs of an input with another batch size.

    Raises:
        NetError: if the arrays have different batch sizes.
    """
    sizes = set()

    def resized(leaf: Any, axis: int) -> Any:
        shape = list(leaf.shape)
        sizes.add(shape[axis])
        shape[axis] = batch
        return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)

    def one(each: Any) -> Any:
        if isinstance(each, Cache):
            # Caches of `repeat` have further axes in front.
            return type(each)(
                *(leaf if leaf is None else resized(leaf, -4 if n else -1) for n, leaf in enumerate(each))
            )
        return resized(each, 0) if each.ndim else each

    made = jax.tree.map(one, example, is_leaf=lambda each: isinstance(each, Cache))
    if len(sizes) > 1:
        raise NetError(f"expects one batch size, got arrays of {', '.join(map(str, sorted(sizes)))} examples")
    return made


def described(tree: Any) -> Any:
    """Return the shapes of a plain tree as JSON: "float32[batch,28,28,1]"."""
    if isinstance(tree, Mapping):
        return {name: described(each) for name, each in tree.items()}
    if isinstance(tree, tuple):
        return [*map(described, tree)]
    return None if tree is None else f"{tree.dtype.name}[{','.join(map(str, tree.shape))}]"


def _fields(tree: Any) -> dict[str, Any] | None:
    """Return what a `Padded`, a named tuple or a dict holds by name, `None` for other things."""
    if isinstance(tree, Padded):
        return {each.name: getattr(tree, each.name) for each in fields(tree)}
    if isinstance(tree, tuple) and (names := getattr(tree, "_fields", None)) is not None:
        return dict(zip(names, tree))
    return dict(tree) if isinstance(tree, Mapping) else None


def _leaf(leaf: Any) -> Any:
    if leaf is None or isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if len(jax.tree.leaves(leaf)) != 1 or jax.tree.leaves(leaf)[0] is not leaf:
        raise NetError(f"expects arrays in tuples, dicts and Padded, got {shown(leaf)}")
    return jnp.asarray(leaf)
