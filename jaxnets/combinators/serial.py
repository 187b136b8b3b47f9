"""Networks one after another, around a shortcut, and side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.layer import as_net
from jaxnets.core.net import Apply, Key, Net, Params, State, Wiring, apply_child, compose, describe, fold, spec
from jaxnets.core.padded import Padded
from jaxnets.core.value import recorded

Layer = Net | Callable[[Any], Any]


@recorded
def serial(*layers: Layer, **named: Layer) -> Net:
    """Run networks one after another, each on the output of the previous one.

    Positional layers are named `0`, `1`, …; keywords name the others. Each child draws its initial values from the
    key folded with its *name*, so inserting a named layer does not change the others.

    Args:
        *layers: networks, or plain callables `x -> y` such as `jax.nn.relu`.
        **named: named layers, after the positional ones.

    Raises:
        NetError: for a name that is used twice or contains `/`.
        TypeError: for a layer that is neither a `Net` nor callable.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = serial(jn.flatten, jn.dense(16), jax.nn.relu, out=jn.dense(10))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 4, 4, 1)))
    >>> sorted(params)
    ['1', 'out']
    """
    children = name_children("serial", layers, named)
    # Each child reads the previous one; the first reads the input.
    sources = {name: (before,) for name, before in zip(children, ["", *children])}
    return wire("serial", children, sources, ["", *children][-1])


@recorded
def residual(body: Layer, shortcut: Layer | None = None, activation: Callable | None = None) -> Net:
    """Add a shortcut around a network: y = σ(body(x) + shortcut(x)).

    The children of the body keep their names, and the shortcut is named `downsample`, as in torchvision; a body that
    is a single layer is named `0`.

    Args:
        body: the network F in y = F(x) + x.
        shortcut: a projection of `x` to the body's output shape; default: the identity.
        activation: σ, applied to the sum; default: none.

    Raises:
        NetError: if the two sides differ in shape, or the body has a child `downsample`.

    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2015), equations 1 and 2.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> block = residual(serial(fc=jn.dense(8)), shortcut=jn.dense(8), activation=jax.nn.relu)
    >>> params, _ = jax.eval_shape(block.init, jax.random.key(0), jnp.ones((1, 4)))
    >>> sorted(params)
    ['downsample', 'fc']
    """
    inner = as_net(body)
    inner = inner if inner.children else serial(inner)
    if "downsample" in inner.children:
        raise NetError("needs the name 'downsample' for its shortcut, but the body has it", label="residual")
    side = None if shortcut is None else as_net(shortcut)
    children = dict(inner.children) | ({} if side is None else {"downsample": side})

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state, y = inner.init_with_output(key, x)
        params, state = dict(params), dict(state)
        r = x if side is None else build_child(side, "downsample", key, x, params, state)
        return params, state, jax.eval_shape(joined, y, r)

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        # The body must not get the shortcut's entries.
        own_params, own_state = ({k: v for k, v in t.items() if k != "downsample"} for t in (params, state))
        y, new_state = inner.apply(own_params, own_state, x, key=key, train=train)
        if side is not None:
            x, shortcut_state = apply_child(side, "downsample", params, state, x, key=key, train=train)
            new_state = new_state | ({"downsample": shortcut_state} if shortcut_state else {})
        return joined(y, x), new_state

    def joined(y: Any, r: Any) -> Any:
        if spec(y) != spec(r):
            raise NetError(
                f"adds {describe(y)} from the body to {describe(r)} from the shortcut, which must be equal; "
                f"give shortcut= a projection such as jn.conv(channels, 1, stride=...)",
                label="residual",
            )
        total = add(y, r)
        # As a layer, which also takes `Padded` sequences.
        return total if activation is None else as_net(activation).apply({}, {}, total)[0]

    def cut(path: tuple[str, ...]) -> Apply:
        if path[0] == "downsample":
            raise NetError("has its shortcut beside the body, so it can't stop after it", label="residual")
        assert inner.cut is not None
        return inner.cut(path)

    wiring = None
    if inner.wiring is not None and inner.wiring.shortcut is None:
        sources = {**inner.wiring.sources} | ({} if side is None else {"downsample": ("",)})
        wiring = Wiring(sources, inner.wiring.output, "" if side is None else "downsample", activation)
    cut_ = None if inner.cut is None else cut
    return compose(build, apply, label="residual", children=children, cut=cut_, wiring=wiring)


@recorded
def branches(merge: Callable[[dict[str, Any]], Any], *layers: Layer, **named: Layer) -> Net:
    """Run networks side by side on the same input, and merge their outputs.

    Args:
        merge: a function of the dict of outputs by name, in the order given: `jn.concatenate` joins the last axes
            (Inception), `dict` returns all of them (several heads), `lambda y: y["a"] * y["b"]` gates.
        *layers: networks or callables, named `0`, `1`, ….
        **named: named networks or callables.

    Raises:
        NetError: for a name that is used twice or contains `/`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = branches(jn.concatenate, wide=jn.dense(8), narrow=jn.dense(2))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 4)))
    >>> jax.eval_shape(net.apply, params, state, jnp.ones((3, 4)))[0].shape
    (3, 10)
    """
    if isinstance(merge, Net) or not callable(merge) or getattr(merge, "makes_net", False):
        hint = "jn.branches(jn.concatenate, ...)"
        raise NetError(
            f"expects first a function that merges the outputs, got {shown(merge)}; {hint}", label="branches"
        )
    children = name_children("branches", layers, named)

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state = {}, {}
        outputs = {name: build_child(child, name, key, x, params, state) for name, child in children.items()}
        return params, state, jax.eval_shape(lambda *leaves: merge(dict(zip(outputs, leaves))), *outputs.values())

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        outputs, new_state = {}, dict(state)
        for name, child in children.items():
            outputs[name], inner = apply_child(child, name, params, state, x, key=key, train=train)
            if inner:
                new_state[name] = inner
        return merge(outputs), new_state

    def remake(change: Callable[[Net], Net]) -> Net:
        return branches(merge, **{name: change(child) for name, child in children.items()})

    return compose(build, apply, label="branches", children=children, remake=remake)


def add(y: Any, r: Any) -> Any:
    """Return the sum of two outputs of equal structure, whose `Padded` sequences have the same lengths."""

    def sum_of(a: Any, b: Any) -> Any:
        return a.with_values(a.values + b.values) if isinstance(a, Padded) else jnp.add(a, b)

    return jax.tree.map(sum_of, y, r, is_leaf=lambda each: isinstance(each, Padded))


def concatenate(outputs: Mapping[str, Any] | Sequence[Any]) -> jax.Array:
    """Join the outputs of `branches`, or the inputs of a node of `graph`, along the last axis, in the order given.

    Raises:
        NetError: if the outputs differ in any other axis.

    >>> import jax.numpy as jnp
    >>> concatenate({"a": jnp.ones((2, 3)), "b": jnp.ones((2, 1))}).shape
    (2, 4)
    """
    named = outputs if isinstance(outputs, Mapping) else {str(place): y for place, y in enumerate(outputs)}
    shapes = {name: np.shape(y) for name, y in named.items()}
    if len({shape[:-1] for shape in shapes.values()}) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise NetError(f"expects outputs of the same shape except for the last axis, got {listed}", label="concatenate")
    return jnp.concatenate(list(named.values()), axis=-1)


def wire(label: str, children: Mapping[str, Net], sources: Mapping[str, tuple[str, ...]], last: str) -> Net:
    """Make a network of children that read each other's outputs.

    Args:
        label: the label of the network.
        children: the children by name, in the order in which they run.
        sources: the names that each child reads; "" is the input of the network.
        last: the child whose output is that of the network.
    """

    def read(values: dict[str, Any], name: str) -> Any:
        # A child with several sources gets a tuple.
        found = tuple(values[source] for source in sources[name])
        return found[0] if len(found) == 1 else found

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state, values = {}, {}, {"": x}
        for name, child in children.items():
            values[name] = build_child(child, name, key, read(values, name), params, state)
        return params, state, values[last]

    def cut(path: tuple[str, ...]) -> Apply:
        end, *inside = path
        # Run only the children that the end depends on.
        needed, new = set(), {end}
        while new:
            needed |= new
            new = {source for name in new for source in sources.get(name, ())} - needed
        nets = {name: child for name, child in children.items() if name in needed}
        if inside:
            nets[end] = nets[end].upto("/".join(inside))
        last_reader = {source: name for name in nets for source in sources[name]}

        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            values, new_state = {"": x}, dict(state)
            for name, child in nets.items():
                x = read(values, name)
                # Free outputs that no later child reads.
                values = {source: value for source, value in values.items() if last_reader.get(source) != name}
                values[name], inner = apply_child(child, name, params, state, x, key=key, train=train)
                if inner:
                    new_state[name] = inner
            return values[end], new_state

        return apply

    wiring = Wiring(sources, last)
    return compose(build, cut((last,)), label=label, children=children, cut=cut, wiring=wiring)


def build_child(child: Net, name: str, key: Key, x: Any, params: dict[str, Any], state: dict[str, Any]) -> Any:
    """Initialize a child on the spec `x`, add its parameters and state under its name, and return its output's spec."""
    with labeled_as(child=name):
        own, own_state, y = child.init_with_output(fold(key, name), x)
    if own:
        params[name] = own
    if own_state:
        state[name] = own_state
    return y


def name_children(label: str, layers: tuple[Layer, ...], named: Mapping[str, Layer]) -> dict[str, Net]:
    """Return layers as networks by name: the positional ones by number, then the named ones.

    Raises:
        NetError: for a name that is used twice, is empty or contains `/`.
    """
    children: dict[str, Net] = {}
    for name, child in [*((str(place), child) for place, child in enumerate(layers)), *named.items()]:
        if name in children:
            raise NetError(f"has the name {name!r} twice; give each layer its own", label=label)
        if not name or "/" in name:
            raise NetError(f"expects names without '/', got {name!r}: paths are joined by '/'", label=label)
        try:
            children[name] = as_net(child)
        except (TypeError, NetError) as error:
            raise type(error)(f"{label}: child {name!r}: {error}") from None
    return children
