"""Arrays that lie on several devices, and batches and parameters that lie as they do.

The compiler does not always see that the rows taken from such arrays may lie there too: it is told.
"""

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnets.core.errors import NetError, is_traced

Shardings = tuple[NamedSharding | None, ...]  # of each leaf, None where the compiler may choose


def automatic(tree: Any) -> Any:
    """Return arrays with the axes of their mesh left to the compiler, as networks are written; nothing is copied.

    `jax.make_mesh` gives axes that are explicit, part of an array's type.
    """

    def convert(leaf: Any) -> Any:
        own = _sharding(leaf)
        if (sharding := automatic_sharding(own)) is own:
            return leaf
        parts = [part.data for part in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)

    return jax.tree.map(convert, tree)


def automatic_sharding(sharding: Any) -> Any:
    """Return a sharding likewise; a device and such come back as they are."""
    if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
        return sharding
    devices: Any = sharding.mesh.devices
    return NamedSharding(Mesh(devices, sharding.mesh.axis_names), sharding.spec)


def batch_sharding_of(data: Any) -> NamedSharding | None:
    """Return how the first axis of some data is shared out to devices, `None` if it is not, or that is not known."""
    found = (rows_of(own) for leaf in jax.tree.leaves(data) if (own := _sharding(leaf)) is not None)
    return next((sharding for sharding in found if sharding is not None), None)


def rows_of(sharding: Any) -> NamedSharding | None:
    """Return the part of a sharding that is about the first axis, `None` if that lies whole on each device."""
    if not isinstance(sharding, NamedSharding) or not sharding.spec or sharding.spec[0] is None:
        return None
    rows = NamedSharding(sharding.mesh, PartitionSpec(sharding.spec[0]))
    return rows if parts_of(rows) > 1 else None


def parts_of(batch_sharding: NamedSharding | None) -> int:
    """Return into how many parts the rows are cut."""
    if batch_sharding is None:
        return 1
    names = batch_sharding.spec[0]
    return math.prod(batch_sharding.mesh.shape[name] for name in (names if isinstance(names, tuple) else (names,)))


def check_divides(what: str, size: int, batch_sharding: NamedSharding | None) -> None:
    """Check that so many rows can be shared out evenly.

    Raises:
        NetError: if they can't.
    """
    parts = parts_of(batch_sharding)
    if size % parts:
        less, more = size // parts * parts, -(-size // parts) * parts
        near = f"{less} or {more}" if less else f"{more}"
        raise NetError(
            f"expects {what} that divides over the {parts} devices its data lie on, got {size}; take {near}, or leave "
            f"the data on one device"
        )


def constrained(tree: Any, batch_sharding: NamedSharding | None, axis: int = 0) -> Any:
    """Return arrays of which one axis is shared out as rows are, where its length allows."""
    if batch_sharding is None or jax.sharding.get_abstract_mesh().manual_axes:  # inside a shard_map each has its own
        return tree
    free = PartitionSpec.UNCONSTRAINED

    def lay(leaf: Any) -> Any:
        if leaf.ndim <= axis or leaf.shape[axis] % parts_of(batch_sharding):
            return leaf
        spec = PartitionSpec(*[free] * axis, batch_sharding.spec[0], *[free] * (leaf.ndim - axis - 1))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(batch_sharding.mesh, spec))

    return jax.tree.map(lay, tree)


def shardings_of(tree: Any) -> Shardings | None:
    """Return how leaves lie over several devices, `None` if all lie whole."""
    found = tuple(_sharding(leaf) for leaf in jax.tree.leaves(tree))
    return None if all(own is None or own.is_fully_replicated for own in found) else found


def constrained_as(tree: Any, where: Shardings | None) -> Any:
    """Return leaves constrained to given shardings."""
    if where is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    constrained_leaves = [
        leaf if own is None else jax.lax.with_sharding_constraint(leaf, own)
        for leaf, own in zip(leaves, where, strict=True)
    ]
    return jax.tree.unflatten(structure, constrained_leaves)


def _sharding(leaf: Any) -> NamedSharding | None:
    own = None if is_traced(leaf) else getattr(leaf, "sharding", None)
    return own if isinstance(own, NamedSharding) else None
