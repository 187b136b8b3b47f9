"""Cross-validation: a fold number for each example, and the two parts that a fold makes of the data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data.splits import column, group_parts
from jaxnets.errors import NetError, check_count, labelled_as
from jaxnets.losses.checks import known, wide

Weighted = tuple[Any, Any, jax.Array]


def folds(labels: Any, k: int, *, seed: int = 0, stratify: bool = True) -> np.ndarray:
    """Return a random fold number from 0 to k - 1 for each example, the folds as equal in size as can be.

    Sizes differ by one at most. Stratified, so do the numbers of each class's examples in the folds; real targets in
    place of classes are spread evenly by size.

    Args:
        labels: `(examples,)`, the class of each example, or the number of examples.
        k: how many folds, at least 2.
        seed: the same seed gives the same folds on every machine.
        stratify: whether to keep the classes' proportions, where labels are given.

    Returns:
        int32 `(examples,)`, for `fold`.

    Raises:
        NetError: for k < 2, fewer examples than folds, or labels that are not `(examples,)`.

    >>> numbers = folds([0, 0, 0, 0, 1, 1], 2)
    >>> numbers.dtype, sorted(numbers[:4].tolist()), sorted(numbers[4:].tolist())
    (dtype('int32'), [0, 0, 1, 1], [0, 1])
    """
    with labelled_as("folds"):
        labels = np.zeros(int(labels)) if np.ndim(labels) == 0 else column("labels", labels)
        _check_folds(k, len(labels), "examples")
    order = np.random.default_rng(seed).permutation(len(labels))
    if stratify:
        order = order[np.argsort(labels[order], kind="stable")]  # class after class, dealt out like cards
    numbers = np.empty(len(labels), np.int32)
    numbers[order] = np.arange(len(labels)) % k
    return numbers


def group_folds(groups: Any, k: int, *, seed: int = 0) -> np.ndarray:
    """Return a random fold number from 0 to k - 1 for each example, the same for all examples of a group.

    Groups are taken in random order, each for the smallest fold so far, so that no two folds differ by more than the
    largest group.

    Args:
        groups: `(examples,)`, the group of each example; numbers or strings.
        k: how many folds, at least 2.
        seed: the same seed gives the same folds on every machine.

    Returns:
        int32 `(examples,)`, for `fold`.

    Raises:
        NetError: for k < 2, fewer groups than folds, or groups that are not `(examples,)`.

    >>> numbers = group_folds(["a", "a", "b", "c"], 2)
    >>> bool(numbers[0] == numbers[1]), len(set(numbers.tolist()))
    (True, 2)
    """
    with labelled_as("group_folds"):
        groups = column("groups", groups)
        _check_folds(k, len(np.unique(groups)), "groups")
        return group_parts(groups, np.full(k, 1 / k), np.random.default_rng(seed)).astype(np.int32)


def fold(data: Any, numbers: Any, number: int | jax.Array) -> tuple[Weighted, Weighted]:
    """Return the training and the validation part that one fold makes of the data: the rest, and the fold.

    Both have the same shapes for each fold, whatever its size, so that `number` may be traced: k networks learn
    from k folds in one `vmap`. A part that falls short is filled up with examples of its own, at weight 0, so that
    nothing of one part can get into the other, not even by way of batch norm.

    Args:
        data: `(inputs, targets)` or `(inputs, targets, weights)`, pytrees with the examples along the first axis.
        numbers: integers `(examples,)`, the fold of each example, as `folds` and `group_folds` make; known.
        number: which fold to hold out, from 0; may be traced.

    Returns:
        `(train, validation)`, each `(inputs, targets, weights)`: as many rows as there are examples outside the
        smallest fold, and in the largest; examples in the order of the data.

    Raises:
        NetError: for numbers that are traced, no integers, or not as many as the examples, a fold without examples,
            or a number that is no fold's.

    >>> x, y, numbers = jnp.arange(5.0), jnp.arange(5), jnp.array([0, 1, 0, 1, 0])
    >>> train, validation = jax.vmap(lambda number: fold((x, y), numbers, number))(jnp.arange(2))
    >>> validation[0].tolist(), validation[2].tolist()
    ([[0.0, 2.0, 4.0], [1.0, 3.0, 1.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    """
    with labelled_as("fold"):
        x, y, *given = data
        of = known(numbers)
        if of is None:
            raise NetError("expects numbers that are known, got traced ones; the parts' sizes follow from them")
        if of.ndim != 1 or not np.issubdtype(of.dtype, np.integer) or of.size == 0 or of.min() < 0:
            raise NetError(f"expects numbers as integers ≥ 0 (examples,), got {of.dtype} {of.shape}")
        lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
        if lengths != {of.shape}:
            raise NetError(f"expects one number for each example, got {len(of)} for lengths {sorted(lengths)}")
        sizes = np.bincount(of)
        if sizes.min() == 0 or len(sizes) < 2:
            raise NetError(f"expects examples in each of at least 2 folds, got sizes {sizes.tolist()}")
        which = known(number)
        if which is not None and not 0 <= which < len(sizes):
            raise NetError(f"expects a number from 0 to {len(sizes) - 1}, got {which}")
    weights = wide(given[0]) if given else jnp.ones(len(of))
    held_out = jnp.asarray(of, jnp.int32) == jnp.asarray(number, jnp.int32)

    def part(inside: jax.Array, rows: int) -> Weighted:
        count, place = inside.sum(), jnp.arange(rows)
        index = jnp.argsort(~inside)[place % jnp.maximum(count, 1)]  # those inside come first, in their order
        chosen_x, chosen_y = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], (x, y))
        return chosen_x, chosen_y, jnp.where(place < count, weights[index], 0)

    return part(~held_out, len(of) - int(sizes.min())), part(held_out, int(sizes.max()))


def _check_folds(k: int, many: int, what: str) -> None:
    check_count("k", k)
    if not 2 <= k <= many:
        raise NetError(f"expects at least 2 folds and as many {what}, got k={k} for {many} {what}")
