"""Networks of which some parameters are shared: they stand in one place of the tree, and are used in several."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from jaxnets.combinators.serial import Layer
from jaxnets.combinators.wrappers import wrap
from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.layer import as_net
from jaxnets.core.net import Apply, Key, Net, Params, State, described
from jaxnets.core.value import recorded


@recorded
def tied(net: Layer, ties: Mapping[str, str]) -> Net:
    """Let parameters of a network be others of it, which are then used, and get gradients, in several places.

    The usual case is a language model whose output layer is the table of its embedding, transposed:
    `tied(net, {"out/kernel": "embedding/embedding"})`.

    Args:
        net: the network.
        ties: for each parameter to leave out, by its path, the path of the one that stands in for it. A `kernel` is the
            transpose of an `embedding`; otherwise the shapes are equal.

    Returns:
        A network with the children of `net`, without the parameters left out.

    Raises:
        NetError: for a path that `net` does not have, one that stands in and is left out, or shapes that do not fit.

    Press and Wolf, "Using the Output Embedding to Improve Language Models" (2017).

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.serial(embedding=jn.embed(9, 4), out=jn.dense(9, use_bias=False))
    >>> net = tied(net, {"out/kernel": "embedding/embedding"})
    >>> params, state = net.init(jax.random.key(0), jnp.array([[1, 2]]))
    >>> jax.tree.map(jnp.shape, params), net.apply(params, state, jnp.array([[1, 2]]))[0].shape
    ({'embedding': {'embedding': (9, 4)}}, (1, 2, 9))
    """
    inner = as_net(net)
    label = f"tied({inner.label})"
    with labeled_as(label):
        if not isinstance(ties, Mapping):
            raise NetError(f'expects a dict from paths to paths, {{"out/kernel": "in/kernel"}}, got {shown(ties)}')
        # A later change of the caller's dict must not change the network.
        ties = dict(ties)
        if both := ties.keys() & set(ties.values()):
            raise NetError(f"expects paths of parameters that stay, got {min(both)!r}, which is itself left out")

    def around(apply_inner: Apply) -> Apply:
        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            return apply_inner(filled(params, ties), state, x, key=key, train=train)

        return apply

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state, y = inner.init_with_output(key, x)
        for path, source in ties.items():
            with labeled_as(label):
                own, shared = _at(params, path), _at(params, source)
                for name, each in ((path, own), (source, shared)):
                    if isinstance(each, Mapping):
                        raise NetError(f"expects the path of a parameter, got {name!r}, which holds {', '.join(each)}")
                shape = shared.shape[::-1] if _transposed(path, source) else shared.shape
                if own.shape != shape:
                    raise NetError(f"expects {path} {own.shape} to fit {source}, which gives {shape}")
            params = _without(params, path.split("/"))
        return params, state, y

    made = wrap(
        "tied", inner, around(inner.apply), build, label, lambda change: tied(change(inner), ties), around=around
    )
    return described(replace(made, ties=ties), None, made.remake)


def untied(net: Net, params: Params) -> tuple[Net, Params]:
    """Return the network inside of `tied`, and all its parameters; any other network unchanged."""
    while net.ties and net.inner is not None:
        net, params = net.inner, filled(params, net.ties)
    return net, params


def filled(params: Params, ties: Mapping[str, str]) -> Params:
    """Return parameters with those that were left out."""
    for path, source in ties.items():
        shared = _at(params, source)
        params = _with(params, path.split("/"), shared.T if _transposed(path, source) else shared)
    return params


def _transposed(path: str, source: str) -> bool:
    return {path.rpartition("/")[2], source.rpartition("/")[2]} == {"kernel", "embedding"}


def _at(params: Params, path: str) -> Any:
    for name in path.split("/"):
        if not isinstance(params, Mapping) or name not in params:
            have = ", ".join(params) if isinstance(params, Mapping) else "none"
            raise NetError(f"finds no parameter {path!r}: no {name!r} among {have}", names_differ=True)
        params = params[name]
    return params if isinstance(params, Mapping) or hasattr(params, "shape") else jnp.asarray(params)


def _with(params: Params, names: list[str], leaf: Any) -> Params:
    first, *rest = names
    if not rest and first in params:
        raise NetError(f"expects no {first!r} where it is tied to another parameter, got one", names_differ=True)
    return {**params, first: _with(params.get(first, {}), rest, leaf) if rest else leaf}


def _without(params: Params, names: list[str]) -> Params:
    first, *rest = names
    inner = _without(params[first], rest) if rest else {}
    return {name: each for name, each in params.items() if name != first} | ({first: inner} if inner else {})
