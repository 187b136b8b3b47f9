"""Networks that are not a chain: graphs of nodes that name their inputs, and auxiliary heads of a chain."""

from collections.abc import Mapping
from typing import Any

from jaxnets.combinators.serial import Layer, name_children, wire
from jaxnets.core.errors import NetError
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose
from jaxnets.core.value import recorded

Node = Layer | tuple[Any, ...]

_INPUT, _MAIN = "input", "logits"


@recorded
def graph(**nodes: Node) -> Net:
    """Run networks in the order given, each on the outputs of the nodes that it names.

    A node is a layer, which reads the previous node as in `serial`, or a tuple `(layer, "name", ...)`, which reads the
    named nodes; `"input"` is the input of the graph. A node that reads several gets a tuple of their outputs in this
    order: `jn.concatenate` joins them, `sum` adds them. The output is that of the last node. Each node runs once,
    however many nodes read it. The names are not nested, so that Inception's branches and U-Net's bridges keep the
    names of published weights.

    Args:
        **nodes: the nodes by name.

    Raises:
        NetError: for a name that contains `/` or is `input`; a node that reads one that is not before it; a node other
            than the last that nothing reads.
        TypeError: for a layer that is neither a `Net` nor callable.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = graph(
    ...     wide=jn.dense(8),
    ...     narrow1=(jn.dense(2), "input"),
    ...     narrow2=jn.dense(4),
    ...     join=(jn.concatenate, "wide", "narrow2"),
    ... )
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 3)))
    >>> jax.eval_shape(net.apply, params, state, jnp.ones((5, 3)))[0].shape, params["narrow2"]["kernel"].shape
    ((5, 12), (2, 4))
    """
    children = name_children("graph", (), {name: _layer(node) for name, node in nodes.items()})
    return wire("graph", children, _sources(nodes), ["", *children][-1])


@recorded
def auxiliary_heads(body: Net, /, **heads: tuple[Layer, str]) -> Net:
    """Add auxiliary heads to a chain of layers, whose outputs are returned in training.

    In evaluation the network is `body`, and the heads are not run. In training its output is the dict
    `{"logits": output of the body, "aux1": output of the head aux1, ...}`; `jn.losses.auxiliary_loss` converts a loss
    to one of this dict, and the classification metrics of `jn.metrics` read its `logits`. Each layer of the body runs
    once. The children are those of the body and the heads: `net["aux1"]` is a head, and `net.upto("aux1")` ends with
    it.

    Args:
        body: a `serial`.
        **heads: `(layer, "name")` for each: the head, and the child of the body whose output it reads.

    Raises:
        NetError: for a body that is not a `serial`; no heads; a head with the name of a child of the body, or `logits`;
            a head that does not read a child of the body.

    Szegedy and others, "Going Deeper with Convolutions" (2015), section 5.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = auxiliary_heads(jn.serial(a=jn.dense(8), relu=jax.nn.relu, out=jn.dense(3)), aux1=(jn.dense(3), "relu"))
    >>> x = jnp.ones((5, 4))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> apply = jax.jit(net.apply, static_argnames="train")
    >>> apply(params, state, x)[0].shape
    (5, 3)
    >>> {name: y.shape for name, y in apply(params, state, x, train=True)[0].items()}
    {'aux1': (5, 3), 'logits': (5, 3)}
    """
    if not isinstance(body, Net) or body.kind != "serial" or not body.children or body.cut is None:
        came = body.label if isinstance(body, Net) else type(body).__name__
        raise NetError(f"expects a serial with layers as its body, got {came}", label="auxiliary_heads")
    sides = name_children("auxiliary_heads", (), {name: _layer(node) for name, node in heads.items()})
    places, last = _places(body, heads), [*body.children][-1]
    sources = {name: (before,) for name, before in zip(body.children, ["", *body.children])}
    sources |= {head: (place,) for head, place in places.items()}
    whole = wire("auxiliary_heads", {**body.children, **sides}, sources, last)

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        if not train:
            return whole.apply(params, state, x, key=key)
        outputs, new_state = {}, dict(state)
        for name, child in body.children.items():
            x, new_state[name] = apply_child(child, name, params, state, x, key=key, train=train)
            for head in (head for head, place in places.items() if place == name):
                outputs[head], new_state[head] = apply_child(sides[head], head, params, state, x, key=key, train=train)
        # The main output first, then the heads in the order of the arguments.
        ordered = {_MAIN: x} | {head: outputs[head] for head in sides}
        return ordered, {name: inner for name, inner in new_state.items() if inner}

    assert whole.build is not None
    return compose(
        whole.build, apply, label="auxiliary_heads", children=whole.children, cut=whole.cut, wiring=whole.wiring
    )


def _layer(node: Any) -> Any:
    return node[0] if isinstance(node, tuple) and node else node


def _sources(nodes: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names that each node reads, all of which must be before it."""
    sources: dict[str, tuple[str, ...]] = {}
    before = [_INPUT]
    for name, node in nodes.items():
        read = node[1:] if isinstance(node, tuple) else before[-1:]
        if name == _INPUT:
            raise NetError("reserves the name 'input' for its own input; rename the node", label="graph")
        if not read:
            raise NetError(f'expects (layer, "name", ...) with what {name!r} reads, got no name', label="graph")
        for source in read:
            if source not in before:
                listed = ", ".join(before)
                raise NetError(f"has no {source!r} before {name!r}, which reads it; there are: {listed}", label="graph")
        # `wire` calls the input "".
        sources[name] = tuple("" if source == _INPUT else source for source in read)
        before.append(name)
    read_by_some = {source for read in sources.values() for source in read}
    if idle := [name for name in before[1:-1] if name not in read_by_some]:
        raise NetError(
            f"has nodes that nothing reads: {', '.join(idle)}; read them by name, or leave them out", label="graph"
        )
    return sources


def _places(body: Net, heads: Mapping[str, Any]) -> dict[str, str]:
    """Return the child of the body that each head reads."""
    if not heads:
        raise NetError('expects at least one head, aux=(layer, "name")', label="auxiliary_heads")
    places = {}
    for name, head in heads.items():
        if name in body.children or name == _MAIN:
            owner = "the main output" if name == _MAIN else "a layer of the body"
            raise NetError(
                f"has the name {name!r} for a head and for {owner}; rename the head", label="auxiliary_heads"
            )
        if not isinstance(head, tuple) or len(head) != 2 or head[1] not in body.children:
            listed, came = ", ".join(body.children), head[1:] if isinstance(head, tuple) else type(head).__name__
            raise NetError(
                f"expects the head {name!r} as (layer, name) with a child of the body, {listed}; got {came}",
                label="auxiliary_heads",
            )
        places[name] = head[1]
    return places
