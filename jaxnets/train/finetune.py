"""Fine-tuning: parameters of another run taken over by pattern, the rest begun anew."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.paths import Pattern, matches, paths, select
from jaxnets.core.sharding import automatic, constrained_as, shardings_of


class Transferred(NamedTuple):
    """What `transfer` gives.

    Attributes:
        params: the parameters, some of them taken over.
        taken: the paths of those.
        left: the paths of those that stayed as they were.
        unused: paths of the source that were not asked for.
    """

    params: Params
    taken: tuple[str, ...]
    left: tuple[str, ...]
    unused: tuple[str, ...]


def transfer(params: Params, source: Params, on: Pattern = "**", *, but: Pattern = ()) -> Transferred:
    """Return parameters with some of them taken from others of the same paths and shapes.

    Values take on the dtypes of the parameters. It is a pure function, of state too.

    Args:
        params: as `init` makes them.
        source: as a run, `load_checkpoint`, `jn.load` or `jn.interop.from_torch` gives them.
        on: which are taken, a pattern over paths (see `jn.paths`).
        but: which of these are left as they are all the same, such as `"head/**"`.

    Raises:
        NetError: if a pattern matches nothing, or what it matches is missing in the source or of another shape; all
            such paths are named.

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
            hint = "; run.params" if hasattr(source, "params") else ""
            hint = "; params, state, metadata, net = jn.load(path)" if isinstance(source, str | Path) else hint
            hint = "; the first of a pair (params, state)" if isinstance(source, tuple) else hint
            raise NetError(f"expects parameters in nested dicts, got {shown(source)}{hint}")
        here, there = paths(params), paths(source)
        spared = select(params, but) if but else {}
        wanted = [path for path in select(params, on) if path not in spared]
        wrong = [f"{path} is not in the source" for path in wanted if path not in there]
        wrong += [
            f"{path} is {jnp.shape(there[path])} in the source, {jnp.shape(here[path])} here"
            for path in wanted
            if path in there and jnp.shape(there[path]) != jnp.shape(here[path])
        ]
        if wrong:
            text = "".join(f"\n  {line}" for line in wrong[:20]) + (
                f"\n  and {len(wrong) - 20} more" * (len(wrong) > 20)
            )
            raise NetError(f"finds that source and parameters differ:{text}\nLeave such out with but=...")
    leaves = [_taken(there[path], leaf) if path in wanted else leaf for path, leaf in here.items()]
    return Transferred(
        jax.tree.unflatten(jax.tree.structure(params), leaves),
        tuple(wanted),
        tuple(path for path in here if path not in wanted),
        tuple(path for path in there if path not in wanted),
    )


def _taken(source: Any, like: Any) -> jax.Array:
    """Return values in the dtype of others, over the devices that they lie on."""
    source = automatic(source)
    return constrained_as(
        jnp.asarray(source).astype(like.dtype), shardings_of(source)
    )  # in jit it would be a constant on each


def pretrained(net: Net, params: Params, state: State | None = None, on: Pattern = "**", *, but: Pattern = ()) -> Net:
    """Return the network with an `init` that takes some parameters from elsewhere: `program` then begins from these.

    State that matches is taken too where it is given. All else is drawn from the key, as ever.

    Args:
        net: the network.
        params: the source, as of `transfer`.
        state: likewise; `None` begins with the network's own.
        on: which are taken, a pattern over paths.
        but: which of these are not.

    Raises:
        NetError: from `init`, as `transfer` does.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.serial(body=jn.dense(4), head=jn.dense(2))
    >>> old, _ = net.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> new, _ = pretrained(net, old, but="head/**").init(jax.random.key(1), jnp.ones((1, 3)))
    >>> bool((new["body"]["kernel"] == old["body"]["kernel"]).all())
    True
    >>> bool((new["head"]["kernel"] == old["head"]["kernel"]).any())
    False
    """

    def taken(made: Params, own: State) -> tuple[Params, State]:
        with labeled_as("pretrained"):
            new = transfer(made, params, on, but=but).params
            kept = [path for path in paths(own) if matches(on, path) and not matches(but, path)]
            return new, transfer(own, state, kept).params if state is not None and kept else own

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        return taken(*net.init(key, x))

    def build_fn(key: Key, x: Any) -> tuple[Params, State, Any]:
        made, own, y = net.init_with_output(key, x)
        return *taken(made, own), y

    return replace(net, init=init_fn, build=build_fn)
