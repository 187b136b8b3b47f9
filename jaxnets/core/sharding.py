"""Sharding of data over devices, passed on to batches and parameters.

XLA does not always infer that rows taken from sharded arrays may be sharded too, so constraints tell it.
"""

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnets.core.errors import NetError, is_traced

# One for each leaf, None where the compiler may choose.
Shardings = tuple[NamedSharding | None, ...]


def automatic(tree: Any) -> Any:
    """Return arrays whose mesh has automatic axes, as networks expect; nothing is copied.

    `jax.make_mesh` makes explicit axes, which are part of an array's type.
    """

    def convert(leaf: Any) -> Any:
        own = _sharding(leaf)
        if (sharding := automatic_sharding(own)) is own:
            return leaf
        # The same buffers under another sharding.
        parts = [part.data for part in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)

    return jax.tree.map(convert, tree)


def automatic_sharding(sharding: Any) -> Any:
    """Return a sharding with automatic axes; anything but a `NamedSharding` is returned unchanged."""
    if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
        return sharding
    devices: Any = sharding.mesh.devices
    return NamedSharding(Mesh(devices, sharding.mesh.axis_names), sharding.spec)


def batch_sharding_of(data: Any) -> NamedSharding | None:
    """Return the sharding of the first axis of the data, `None` if it is not sharded or not known."""
    found = (rows_of(own) for leaf in jax.tree.leaves(data) if (own := _sharding(leaf)) is not None)
    return next((sharding for sharding in found if sharding is not None), None)


def rows_of(sharding: Any) -> NamedSharding | None:
    """Return the part of a sharding for the first axis, `None` if every device holds the whole axis."""
    if not isinstance(sharding, NamedSharding) or not sharding.spec or sharding.spec[0] is None:
        return None
    rows = NamedSharding(sharding.mesh, PartitionSpec(sharding.spec[0]))
    return rows if parts_of(rows) > 1 else None


def parts_of(batch_sharding: NamedSharding | None) -> int:
    """Return the number of parts that the rows are split into."""
    if batch_sharding is None:
        return 1
    names = batch_sharding.spec[0]
    return math.prod(batch_sharding.mesh.shape[name] for name in (names if isinstance(names, tuple) else (names,)))


def check_divides(what: str, size: int, batch_sharding: NamedSharding | None) -> None:
    """Check that `size` rows divide evenly over the devices.

    Raises:
        NetError: if they do not.
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
    """Return arrays with one axis constrained to the sharding of the rows, where its length is divisible."""
    # Inside a shard_map each device has its own rows.
    if batch_sharding is None or jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    free = PartitionSpec.UNCONSTRAINED

    def lay(leaf: Any) -> Any:
        if leaf.ndim <= axis or leaf.shape[axis] % parts_of(batch_sharding):
            return leaf
        # The compiler chooses all other axes.
        spec = PartitionSpec(*[free] * axis, batch_sharding.spec[0], *[free] * (leaf.ndim - axis - 1))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(batch_sharding.mesh, spec))

    return jax.tree.map(lay, tree)


def shardings_of(tree: Any) -> Shardings | None:
    """Return the shardings of the leaves, `None` if every device holds all of them whole."""
    found = tuple(_sharding(leaf) for leaf in jax.tree.leaves(tree))
    return None if all(own is None or own.is_fully_replicated for own in found) else found


def constrained_as(tree: Any, where: Shardings | None) -> Any:
    """Return a tree with its leaves constrained to given shardings."""
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
