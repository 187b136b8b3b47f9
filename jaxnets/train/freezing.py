"""Parameters by pattern: some that stay as they are, some that learn at another rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from jaxnets.core.errors import NetError, shown
from jaxnets.core.net import Params, State
from jaxnets.core.paths import Pattern, matches, paths, select


def check_patterns(pattern: Pattern | None) -> None:
    """Check that what says which parameters are frozen is a pattern, several, or `None`.

    Raises:
        NetError: if it is something else.
    """
    texts = [pattern] if isinstance(pattern, str) else pattern
    if texts is not None and not (isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)):
        raise NetError(f"expects for freeze patterns of paths, such as 'features/**', got {shown(pattern)}")


def split_frozen(params: Params, pattern: Pattern | None) -> tuple[Any, Any]:
    """Return the parameters that learn and those that stay, each with `None` in place of the other's.

    JAX sees no leaf in `None`, so the frozen have no gradient and no memory in the optimizer.

    Raises:
        NetError: if a pattern matches nothing, or everything.
    """
    if pattern is None:
        return params, None
    frozen, structure = select(params, pattern), jax.tree.structure(params)
    leaves = paths(params)
    if len(frozen) == len(leaves):
        hint = "name what learns all the same, freeze=('**', '!head/**'), or evaluate the network without training"
        raise NetError(f"freezes all parameters by {pattern!r}, so that nothing would learn; {hint}", label="program")
    learned = jax.tree.unflatten(structure, [None if path in frozen else leaf for path, leaf in leaves.items()])
    return learned, jax.tree.unflatten(structure, [frozen.get(path) for path in leaves])


def join_frozen(learned: Any, frozen: Any) -> Params:
    """Return the whole parameters from the two parts of `split_frozen`."""
    if frozen is None:
        return learned
    return jax.tree.map(lambda a, b: b if a is None else a, learned, frozen, is_leaf=lambda leaf: leaf is None)


def keep_state(new: State, old: State, pattern: Pattern | None) -> State:
    """Return the new state with the old leaves where a pattern matches: statistics of frozen layers stay."""
    if pattern is None:
        return new
    before = paths(old)
    leaves = [before[path] if matches(pattern, path) else leaf for path, leaf in paths(new).items()]
    return jax.tree.unflatten(jax.tree.structure(new), leaves)


def multiply_updates(factors: Mapping[str, Any]) -> optax.GradientTransformation:
    """Return an Optax transformation that multiplies updates by pattern: a learning rate for each layer.

    It stands behind the optimizer, `optax.chain(optax.adam(1e-3), multiply_updates({"features/**": 0.1}))`. Where
    several patterns match, the factors multiply; where none does, the update stays as it is.

    Args:
        factors: a real number for each pattern over paths (see `jn.paths`); may be traced.

    Raises:
        NetError: when the optimizer starts, if a pattern matches nothing.

    >>> import jax.numpy as jnp, jaxnets as jn, optax
    >>> params = {"features": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
    >>> slow = optax.chain(optax.sgd(1.0), multiply_updates({"features/**": 0.1}))
    >>> updates, _ = slow.update(params, slow.init(params), params)
    >>> float(updates["features"]["kernel"][0]), float(updates["head"]["kernel"][0])
    (-0.10000000149011612, -1.0)
    """

    def init_fn(params: Any) -> optax.EmptyState:
        for pattern in factors:
            select(params, pattern)
        return optax.EmptyState()

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        leaves = paths(updates)
        for pattern, factor in factors.items():
            leaves = {
                p: leaf * jax.numpy.asarray(factor, leaf.dtype) if matches(pattern, p) else leaf
                for p, leaf in leaves.items()
            }
        return jax.tree.unflatten(jax.tree.structure(updates), list(leaves.values())), state

    return optax.GradientTransformation(init_fn, update_fn)
