"""From the parameters of a network with `repeat`s to those of the same network written out, and back."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxnets.errors import NetError, at
from jaxnets.net import Net, Params
from jaxnets.stacked import stack, unstack


def unroll(net: Net, tree: Params) -> Params:
    """Turn parameters or state of a network into those of the same network without `repeat`, without loss.

    A `repeat(block, n)` among the positional children of a `serial`, at position k, becomes the children k … k+n-1,
    and later positions move by n-1: `serial(a, repeat(b, 2), c)` becomes `serial(a, b, b, c)`. Anywhere else, under a
    name, in `branches` or by itself, it becomes a `serial` of n. `ensemble` keeps its members stacked.

    Args:
        net: the network with `repeat`s, however deep inside `serial`, `residual`, `branches`, `remat`, `cast` and
            each other.
        tree: its parameters or its state, or anything of the same structure: gradients, averages.

    Returns:
        Nested dicts of the same arrays, those of a `repeat` cut along their first axis.

    Raises:
        NetError: for a name that the network does not have; for stacked arrays without the copies along their first
            axis; where a `repeat` has a position inside another whose children's order can't be told: name it.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> block = jn.serial(fc=jn.dense(4), relu=jax.nn.relu)
    >>> net = jn.serial(jn.dense(4), jn.repeat(block, 2), jn.dense(3))
    >>> params, _ = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> list(params), list(unroll(net, params))
    (['0', '1', '2'], ['0', '1', '2', '3'])
    """
    return _convert(net, tree, "unroll")


def roll(net: Net, tree: Params) -> Params:
    """Turn parameters or state of a network without `repeat` into those of `net`, which has them: undo `unroll`.

    Args:
        net: the network with `repeat`s.
        tree: parameters or state of the same network written out, or anything of the same structure.

    Raises:
        NetError: for a name that the written-out network does not have; where some copies of a `repeat` are missing
            or differ in structure, shapes or dtypes; as `unroll`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> short, long = jn.serial(jn.repeat(jn.dense(4), 2)), jn.serial(jn.dense(4), jn.dense(4))
    >>> params, _ = long.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> roll(short, params)["0"]["kernel"].shape
    (2, 4, 4)
    """
    return _convert(net, tree, "roll")


class _Place(NamedTuple):
    """A child, and the names it has where the network is written out: n of them for a `repeat` in a row of layers."""

    name: str
    child: Net
    written: tuple[str, ...]
    in_row: bool


def _convert(net: Net, tree: Params, task: str) -> Params:
    if not net.copies or not tree:
        return _convert_children(net, tree, task)
    in_depth, names = _runs_in_depth(net), [str(place) for place in range(net.copies)]
    copies = tree if task == "roll" and in_depth else unstack(tree)
    if not isinstance(copies, Mapping) or set(copies) != set(names):
        raise NetError(f"expects {net.copies} copies, got {_listed(copies)}", label=task)
    converted = {name: _convert_children(net, copies[name], task) for name in names}
    return converted if task == "unroll" and in_depth else stack(converted)


def _convert_children(net: Net, tree: Params, task: str) -> Params:
    if not net.children:
        return tree
    places, converted = _places(net, task), {}
    known = [name for place in places for name in ((place.name,) if task == "unroll" else place.written)]
    if not isinstance(tree, Mapping) or not set(tree) <= set(known):
        raise NetError(f"expects no other names than {', '.join(known)}, got {_listed(tree)}", label=task)
    for place in places:
        with at(place.name):
            if task == "roll":
                there = {str(k): tree[name] for k, name in enumerate(place.written) if name in tree}
                if there:
                    converted[place.name] = _convert(place.child, there if place.in_row else there["0"], task)
            elif place.name in tree:
                own = _convert(place.child, tree[place.name], task)
                converted |= {place.written[int(k)]: each for k, each in (own if place.in_row else {"0": own}).items()}
    return converted


def _places(net: Net, task: str) -> list[_Place]:
    places: list[_Place] = []
    positional, behind = True, 0
    for place, (name, child) in enumerate(net.children.items()):
        positional = positional and name == str(place)
        with at(name):
            in_row = positional and child.copies > 0 and _runs_in_depth(child)
        if in_row and net.copies:
            mend = f"give it a name, serial(..., blocks={child.label})"
            raise NetError(f"can't tell in which order child {name!r}, a repeat, runs there; {mend}", label=task)
        if positional and net.cut is not None:  # its children run one after another
            n = child.copies if in_row else 1
            places.append(_Place(name, child, tuple(str(behind + k) for k in range(n)), in_row))
            behind += n
        else:
            places.append(_Place(name, child, (name,), False))
    return places


def _runs_in_depth(net: Net) -> bool:
    """Tell whether the copies of a network run one after another, as in `repeat`, or side by side, as in `ensemble`."""
    while net.kind not in ("repeat", "ensemble"):
        if net.inner is None:
            raise NetError("has copies, but no sign whether they are of repeat or of ensemble", label=net.label)
        net = net.inner
    return net.kind == "repeat"


def _listed(tree: Params) -> str:
    return ", ".join(map(str, tree)) if isinstance(tree, Mapping) else type(tree).__name__
