"""Frozen parameters: chosen by pattern, without gradients and without optimizer state."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxnets.core.errors import NetError, shown
from jaxnets.core.net import Params, State
from jaxnets.core.paths import Pattern, matches, paths, select


def check_patterns(pattern: Pattern | None) -> None:
    """Check that `freeze` is a pattern, several, or `None`.

    Raises:
        NetError: if it is something else.
    """
    texts = [pattern] if isinstance(pattern, str) else pattern
    if texts is not None and not (isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)):
        raise NetError(f"expects for freeze patterns of paths, such as 'features/**', got {shown(pattern)}")


def split_frozen(params: Params, pattern: Pattern | None) -> tuple[Any, Any]:
    """Split parameters into trained and frozen ones, each tree with `None` in place of the other's leaves.

    JAX sees no leaf in `None`, so frozen parameters have no gradient and no optimizer state.

    Raises:
        NetError: if a pattern matches nothing, or everything.
    """
    if pattern is None:
        return params, None
    frozen, structure = select(params, pattern), jax.tree.structure(params)
    leaves = paths(params)
    if len(frozen) == len(leaves):
        hint = "except what is to be trained, freeze=('**', '!head/**'), or evaluate the network without training"
        raise NetError(f"freezes all parameters by {pattern!r}, so that none would be trained; {hint}", label="program")
    learned = jax.tree.unflatten(structure, [None if path in frozen else leaf for path, leaf in leaves.items()])
    return learned, jax.tree.unflatten(structure, [frozen.get(path) for path in leaves])


def join_frozen(learned: Any, frozen: Any) -> Params:
    """Return the whole parameters from the two parts that `split_frozen` returns."""
    if frozen is None:
        return learned
    return jax.tree.map(lambda a, b: b if a is None else a, learned, frozen, is_leaf=lambda leaf: leaf is None)


def keep_state(new: State, old: State, pattern: Pattern | None) -> State:
    """Return the new state with the old leaves where a pattern matches, so that frozen layers keep their statistics."""
    if pattern is None:
        return new
    before = paths(old)
    leaves = [before[path] if matches(pattern, path) else leaf for path, leaf in paths(new).items()]
    return jax.tree.unflatten(jax.tree.structure(new), leaves)
