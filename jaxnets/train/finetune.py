"""Fine-tuning: transfer parameters of another run by pattern, and initialize the rest."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.paths import Pattern, matches, paths, select
from jaxnets.core.sharding import automatic, constrained_as, shardings_of


class Transferred(NamedTuple):
    """The result of `transfer`.

    Attributes:
        params: the parameters, some of them from the source.
        taken: the paths of those from the source.
        left: the paths of the other parameters.
        unused: the paths of the source that were not taken.
    """

    params: Params
    taken: tuple[str, ...]
    left: tuple[str, ...]
    unused: tuple[str, ...]


def transfer(params: Params, source: Params, on: Pattern = "**") -> Transferred:
    """Return parameters, some of them replaced by those of the same path and shape in a source.

    Values are converted to the dtypes of the parameters. This is a pure function, and works for state too.

    Args:
        params: parameters as `init` makes them.
        source: parameters of a train state, or from `load_checkpoint`, `jn.load` or `jn.interop.from_torch`.
        on: which are taken: a pattern over paths (see `jn.paths`), such as `("**", "!head/**")` for all but the head.

    Raises:
        NetError: if a pattern matches nothing, or a path that it matches is missing in the source or has another shape
            there; all such paths are listed.

    Yosinski et al., "How transferable are features in deep neural networks?" (2014).

    >>> import jax.numpy as jnp
    >>> new = {"body": {"kernel": jnp.zeros((2, 2))}, "head": {"kernel": jnp.zeros((2, 5))}}
    >>> old = {"body": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 3))}}
    >>> params, taken, left, unused = transfer(new, old, "body/**")
    >>> taken, left, params["body"]["kernel"].sum().item()
    (('body/kernel',), ('head/kernel',), 4.0)
    """
    with labeled_as("transfer"):
        if not isinstance(source, Mapping):
            hint = "; state.params" if hasattr(source, "params") else ""
            hint = "; params, state, metadata, net = jn.load(path)" if isinstance(source, str | Path) else hint
            hint = "; the first of a pair (params, state)" if isinstance(source, tuple) else hint
            raise NetError(f"expects parameters in nested dicts, got {shown(source)}{hint}")
        here, there = paths(params), paths(source)
        wanted = select(params, on)
        wrong = [f"{path} is not in the source" for path in wanted if path not in there]
        wrong += [
            f"{path} is {np.shape(there[path])} in the source, {np.shape(leaf)} here"
            for path, leaf in wanted.items()
            if path in there and np.shape(there[path]) != np.shape(leaf)
        ]
        if wrong:
            more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
            text = "".join(f"\n  {line}" for line in wrong[:20]) + more
            raise NetError(f"finds that source and parameters differ:{text}\nexclude these, on=('**', '!head/**')")
    # Inside `jit` the source is a constant, which would be copied to every device without the constraint.
    source = {path: automatic(there[path]) for path in wanted}
    taken = {
        path: constrained_as(jnp.asarray(leaf).astype(here[path].dtype), shardings_of(leaf))
        for path, leaf in source.items()
    }
    leaves = [taken.get(path, leaf) for path, leaf in here.items()]
    return Transferred(
        jax.tree.unflatten(jax.tree.structure(params), leaves),
        tuple(wanted),
        tuple(path for path in here if path not in wanted),
        tuple(path for path in there if path not in wanted),
    )


def pretrained(net: Net, params: Params, state: State | None = None, on: Pattern = "**") -> Net:
    """Return the network with an `init` that takes some parameters from a source, so that `program` starts from them.

    State that matches is taken too if it is given. Everything else is initialized from the key as usual.

    Args:
        net: the network.
        params: the source, as for `transfer`.
        state: the source of state; `None` starts with the network's initial state.
        on: which are taken: a pattern over paths, such as `("**", "!head/**")` for all but the head.

    Raises:
        NetError: from `init`, as `transfer` does.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.serial(body=jn.dense(4), head=jn.dense(2))
    >>> old, _ = net.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> new, _ = pretrained(net, old, on=("**", "!head/**")).init(jax.random.key(1), jnp.ones((1, 3)))
    >>> bool((new["body"]["kernel"] == old["body"]["kernel"]).all())
    True
    >>> bool((new["head"]["kernel"] == old["head"]["kernel"]).any())
    False
    """

    def taken(made: Params, initial: State) -> tuple[Params, State]:
        with labeled_as("pretrained"):
            new = transfer(made, params, on).params
            # A pattern may match nothing in the state, so it is replaced by the paths of the state that it matches.
            wanted = [path for path in paths(initial) if matches(on, path)]
            return new, transfer(initial, state, wanted).params if state is not None and wanted else initial

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        return taken(*net.init(key, x))

    def build_fn(key: Key, x: Any) -> tuple[Params, State, Any]:
        made, initial, y = net.init_with_output(key, x)
        return *taken(made, initial), y

    return replace(net, init=init_fn, build=build_fn)
