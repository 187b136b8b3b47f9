"""Copies of a network with stacked parameters: `repeat` runs them one after another, `ensemble` side by side."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.combinators.serial import Layer
from jaxnets.combinators.wrappers import wrap
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.layer import as_net
from jaxnets.core.net import Apply, Key, Net, Params, State, describe, spec
from jaxnets.core.value import recorded


@recorded
def repeat(net: Layer, n: int, *, unroll: int = 1) -> Net:
    """Run `n` copies of a network one after another, as a scan over stacked parameters.

    The size of the compiled program, and so the compile time, does not grow with `n`. Copy *k* draws its initial
    values, and its randomness in training, from the key folded with the name `k`, as `serial(net, net, ...)` does;
    `stack` and `unstack` convert between the parameters of both.

    Args:
        net: a network whose output has the shape and dtype of its input.
        n: the number of copies, at least 1.
        unroll: the number of copies in one iteration of the scan.

    Raises:
        NetError: if the output differs from the input in shape or dtype, or `n` < 1.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = repeat(jn.serial(fc=jn.dense(4), relu=jax.nn.relu), 8)
    >>> params, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 4)))
    >>> params["fc"]["kernel"].shape
    (8, 4, 4)
    """
    inner = as_net(net)
    label = f"repeat({inner.label}, {n})"

    def alike(x: Any, y: Any) -> Any:
        if spec(y) != spec(x):
            raise NetError(f"needs an output like its input: {describe(x)} becomes {describe(y)}", label=label)
        return y

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        def step(x: Any, copy: tuple) -> tuple[Any, State]:
            own_params, own_state, own_key = copy
            y, new_state = inner.apply(own_params, own_state, x, key=own_key, train=train)
            return alike(x, y), new_state

        return jax.lax.scan(step, x, (params, state, _keys(key, n)), length=n, unroll=unroll)

    return _copies("repeat", inner, n, label, alike, apply, lambda change: repeat(change(inner), n, unroll=unroll))


@recorded
def ensemble(net: Layer, n: int) -> Net:
    """Run `n` members of one network, each with its own parameters, on the same input.

    Member *k* draws its initial values, and its randomness in training, from the key folded with the name `k`. `vmap`
    computes all members together.

    Args:
        net: the network of one member.
        n: the number of members, at least 1.

    Returns:
        A network from `(batch, ...)` to `(batch, n, ...)`; average by
        `serial(ensemble(net, 5), lambda y: y.mean(1))`.

    Raises:
        NetError: if `n` < 1.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = ensemble(jn.dense(3), 5), jnp.ones((2, 4))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> params["kernel"].shape, jax.eval_shape(net.apply, params, state, x)[0].shape
    ((5, 4, 3), (2, 5, 3))
    """
    inner = as_net(net)
    label = f"ensemble({inner.label}, {n})"

    def beside(x: Any, y: Any) -> Any:
        # (batch, ...) becomes (batch, n, ...)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*leaf.shape[:1], n, *leaf.shape[1:]), leaf.dtype), y)

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        def member(params: Params, state: State, key: Key | None) -> tuple[Any, State]:
            return inner.apply(params, state, x, key=key, train=train)

        return jax.vmap(member, out_axes=(1, 0), axis_size=n)(params, state, _keys(key, n))

    return _copies("ensemble", inner, n, label, beside, apply, lambda change: ensemble(change(inner), n))


def _copies(
    kind: str,
    inner: Net,
    n: int,
    label: str,
    output: Callable[[Any, Any], Any],
    apply: Apply,
    remake: Callable[[Callable[[Net], Net]], Net],
) -> Net:
    """Make a network of n copies; `output` returns the spec of its output from those of the input and one output."""
    with labeled_as(label):
        check_count("the number of copies", n)

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        # The output of one copy is a spec, not an array, so it leaves `vmap` as a side effect.
        out: dict[str, Any] = {}

        def one(key: Key) -> tuple[Params, State]:
            params, state, out["y"] = inner.init_with_output(key, x)
            return params, state

        params, state = jax.vmap(one)(_keys(key, n))
        return params, state, output(x, out["y"])

    return wrap(kind, inner, apply, build, label, remake, copies=n)


def _keys(key: Key | None, n: int) -> Any:
    if key is None:
        return None
    # (n,), as `fold` numbers the names 0 … n-1
    names = jnp.array([zlib.crc32(str(place).encode()) for place in range(n)], jnp.uint32)
    fold: Callable = jax.random.fold_in
    return jax.vmap(fold, (None, 0))(key, names)


def stack(params: Params) -> Params:
    """Convert the parameters of `serial(net, net, ...)` to those of `repeat(net, n)`.

    Args:
        params: `{"0": tree, "1": tree, ...}` with trees of equal structure; state is converted in the same way.

    Returns:
        One tree, with the copies along a new first axis of each leaf.

    Raises:
        NetError: if the names are not 0 … n-1, or the trees differ.

    >>> import jax.numpy as jnp
    >>> stack({"0": {"bias": jnp.zeros(3)}, "1": {"bias": jnp.ones(3)}})["bias"].shape
    (2, 3)
    """
    names = [str(place) for place in range(len(params))]
    if set(params) != set(names):
        raise NetError(f"expects the names 0 to n-1, got {', '.join(map(str, params))}", label="stack")
    shapes = {name: spec(params[name]) for name in names}
    for name in names:
        if shapes[name] != shapes["0"]:
            raise NetError(f"expects equal trees, but {name!r} differs from '0'", label="stack")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in names)) if names else {}


def unstack(params: Params) -> Params:
    """Convert the parameters of `repeat(net, n)` to those of `serial(net, net, ...)`: the inverse of `stack`.

    Raises:
        NetError: if the first axes of the leaves differ in length, or a leaf has none.

    >>> import jax.numpy as jnp
    >>> sorted(unstack({"bias": jnp.zeros((2, 3))}))
    ['0', '1']
    """
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
    if len(lengths) > 1 or () in lengths:
        raise NetError("expects every leaf to have the copies along its first axis", label="unstack")
    n = next(iter(lengths))[0] if lengths else 0
    return {str(place): jax.tree.map(lambda leaf, place=place: leaf[place], params) for place in range(n)}


def to_unstacked(net: Net, tree: Params) -> Params:
    """Convert parameters or state of a network to those of the same network written out without `repeat`.

    A `repeat(block, n)` at position k among the positional children of a `serial` becomes the children k … k+n-1, and
    later positions shift by n-1: `serial(a, repeat(b, 2), c)` becomes `serial(a, b, b, c)`. Anywhere else (under a
    name, in `branches` or on its own) it becomes a `serial` of n blocks. The members of an `ensemble` remain stacked.

    Args:
        net: the network with `repeat`s, which may be inside `serial`, `residual`, `branches`, `remat`, `cast` and
            each other.
        tree: its parameters or state, or any tree of the same structure, such as gradients or averages.

    Returns:
        Nested dicts of the same arrays, those of a `repeat` split along their first axis.

    Raises:
        NetError: for a name that the network does not have; for stacked arrays without the copies along their first
            axis; for a positional `repeat` inside another one whose order of children is unknown: name it.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> block = jn.serial(fc=jn.dense(4), relu=jax.nn.relu)
    >>> net = jn.serial(jn.dense(4), jn.repeat(block, 2), jn.dense(3))
    >>> params, _ = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> list(params), list(to_unstacked(net, params))
    (['0', '1', '2'], ['0', '1', '2', '3'])
    """
    return _convert(net, tree, "to_unstacked")


def to_stacked(net: Net, tree: Params) -> Params:
    """Convert parameters or state of a written-out network to those of `net` with `repeat`: undo `to_unstacked`.

    Args:
        net: the network with `repeat`s.
        tree: parameters or state of the same network written out, or any tree of the same structure.

    Raises:
        NetError: for a name that the written-out network does not have; if copies of a `repeat` are missing or differ
            in structure, shapes or dtypes; as in `to_unstacked`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> short, long = jn.serial(jn.repeat(jn.dense(4), 2)), jn.serial(jn.dense(4), jn.dense(4))
    >>> params, _ = long.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> to_stacked(short, params)["0"]["kernel"].shape
    (2, 4, 4)
    """
    return _convert(net, tree, "to_stacked")


class _Place(NamedTuple):
    """A child, and its names in the written-out network: n of them for a positional `repeat` of n copies."""

    name: str
    child: Net
    written: tuple[str, ...]
    in_row: bool


def _convert(net: Net, tree: Params, task: str) -> Params:
    if not net.copies or not tree:
        return _convert_children(net, tree, task)
    # Copies are written out as children 0 … n-1; those of an ensemble are converted one by one and stacked again.
    in_depth, names = _runs_in_depth(net), [str(place) for place in range(net.copies)]
    copies = tree if task == "to_stacked" and in_depth else unstack(tree)
    if not isinstance(copies, Mapping) or set(copies) != set(names):
        raise NetError(f"expects {net.copies} copies, got {_listed(copies)}", label=task)
    converted = {name: _convert_children(net, copies[name], task) for name in names}
    return converted if task == "to_unstacked" and in_depth else stack(converted)


def _convert_children(net: Net, tree: Params, task: str) -> Params:
    if not net.children:
        return tree
    places, converted = _places(net, task), {}
    known = [name for place in places for name in ((place.name,) if task == "to_unstacked" else place.written)]
    if not isinstance(tree, Mapping) or not set(tree) <= set(known):
        raise NetError(f"expects only the names {', '.join(known)}, got {_listed(tree)}", label=task)
    for place in places:
        with labeled_as(child=place.name):
            if task == "to_stacked":
                # Collect the written-out children of this place, renumbered from 0.
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
        with labeled_as(child=name):
            in_row = positional and child.copies > 0 and _runs_in_depth(child)
        if in_row and net.copies:
            hint = f"give it a name, serial(..., blocks={child.label})"
            raise NetError(f"can't tell in which order child {name!r}, a repeat, runs; {hint}", label=task)
        if positional and net.cut is not None:  # children run one after another
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
            raise NetError("has copies, but it is unknown whether of repeat or of ensemble", label=net.label)
        net = net.inner
    return net.kind == "repeat"


def _listed(tree: Params) -> str:
    return ", ".join(map(str, tree)) if isinstance(tree, Mapping) else type(tree).__name__
