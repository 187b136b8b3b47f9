"""Disjoint parts of a dataset: random, stratified, by group, in time; folds for cross-validation; windows."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, known, labeled_as, shown
from jaxnets.core.foreign import arrays

Weighted = tuple[Any, Any, jax.Array]  # inputs, targets, weights


def split(
    data: tuple[Any, ...], fractions: Sequence[float], *, seed: int = 0, stratify: bool | None = None
) -> list[tuple[Any, ...]]:
    """Split a dataset into disjoint random parts; every example is in exactly one.

    Args:
        data: `(inputs, targets)` or `(inputs, targets, weights)`, pytrees with the examples along the first axis.
        fractions: the size of each part; positive, with sum 1.
        seed: the same seed gives the same parts on every machine.
        stratify: whether each part has the classes in the proportions of the whole. Default: whether the targets are
            class labels, one integer per example.

    Returns:
        For each part a tuple like `data`, with the examples that `split_indices` selects, in random order.

    Raises:
        NetError: if the fractions are not positive with sum 1, the arrays have different lengths, or a part would be
            empty.

    >>> import numpy as np
    >>> train, test = split((np.arange(10.0), np.arange(10) % 2), (0.8, 0.2))
    >>> train[0].shape, test[1].tolist()
    ((8,), [1, 0])
    """
    with labeled_as("split"):
        if not isinstance(data, tuple) or len(data) not in (2, 3):
            hint = "split_indices takes labels alone and returns indices"
            if hasattr(data, "labels") and hasattr(data, "take"):  # an `ImageFolder`
                hint = "jn.data.split_indices(folder.labels, fractions), then folder[indices]"
            raise NetError(f"expects data as (inputs, targets), got {shown(data)}; {hint}")
        data = tuple(arrays(name, each) for name, each in zip(("inputs", "targets", "weights"), data))
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
        if len(lengths) != 1 or lengths == {()}:
            shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
            raise NetError(f"expects arrays of one length along the first axis, got shapes {shapes}")
        labels = data[1]
        if stratify is None:
            stratify = bool(getattr(labels, "ndim", 0) == 1 and labels.dtype.kind in "biu")
        if not stratify:
            labels = np.zeros(lengths.pop())
        elif not hasattr(labels, "ndim"):
            raise NetError(f"expects one array of targets to stratify by, got {shown(labels)}")
        parts = split_indices(labels, fractions, seed=seed, stratify=stratify)
    return [jax.tree.map(lambda leaf, part=part: leaf[part], data) for part in parts]


def split_indices(labels: Any, fractions: Sequence[float], *, seed: int = 0, stratify: bool = True) -> list[np.ndarray]:
    """Return the indices of disjoint random parts of a dataset; every example is in exactly one.

    Stratified parts have each class in its proportion in the whole, up to rounding: within a class the sizes of the
    parts are rounded so that they sum to the size of the class.

    Args:
        labels: `(examples,)`, the class of each example; without `stratify` only the length matters.
        fractions: the size of each part; positive, with sum 1.
        seed: the same seed gives the same parts on every machine.
        stratify: whether to keep the proportions of the classes.

    Returns:
        One array of indices per part, in random order.

    Raises:
        NetError: if the fractions are not positive with sum 1, the labels are not `(examples,)`, or a part would be
            empty.

    >>> parts = split_indices([0, 0, 0, 0, 1, 1, 1, 1], [0.5, 0.5])
    >>> [len(part) for part in parts]
    [4, 4]
    """
    with labeled_as("split_indices"):
        labels, shares = _one_axis("labels", labels), _check_fractions(fractions)
        generator = np.random.default_rng(seed)
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        parts: list[list[np.ndarray]] = [[] for _ in shares]
        # The accumulated rounding error of each part: without it, many small classes would all round the same way.
        owed = np.zeros(len(shares))
        for members in classes if stratify else [np.arange(len(labels))]:
            exact = shares * len(members) + owed
            sizes = np.maximum(np.floor(exact), 0).astype(int)
            # Round up where the most is missing, or down where the excess is largest, until the sizes sum up.
            while sizes.sum() < len(members):
                sizes[np.argmax(exact - sizes)] += 1
            while sizes.sum() > len(members):
                sizes[np.argmin(np.where(sizes > 0, exact - sizes, np.inf))] -= 1
            owed = exact - sizes
            chunks = np.split(generator.permutation(members), np.cumsum(sizes)[:-1])
            for part, indices in zip(parts, chunks, strict=True):
                part.append(indices)
        # The classes of a part are in order so far.
        shuffled = [generator.permutation(np.concatenate(part)) if part else np.array([], int) for part in parts]
        if any(len(part) == 0 for part in shuffled):
            raise NetError(f"leaves a part empty: {len(labels)} examples in fractions {shares.tolist()}")
    return shuffled


def split_groups(groups: Any, fractions: Sequence[float], *, seed: int = 0) -> list[np.ndarray]:
    """Return the indices of disjoint random parts of a dataset that keep each group of examples together.

    Use it for examples that belong together, such as all scans of a patient or all frames of a film: if some of them
    are in training, testing on the others is biased. Groups are assigned in random order, each to the part that lacks
    the most examples. No part exceeds its fraction by more than the largest group, unless it would otherwise be empty.

    Args:
        groups: `(examples,)`, the group of each example; numbers or strings.
        fractions: the size of each part in examples; positive, with sum 1.
        seed: the same seed gives the same parts on every machine.

    Returns:
        One array of indices per part, in random order.

    Raises:
        NetError: as in `split_indices`, and for fewer groups than parts.

    >>> patients = ["a", "b", "a", "c", "b", "d"]
    >>> parts = split_groups(patients, [0.5, 0.5])
    >>> [sorted({patients[place] for place in part}) for part in parts]
    [['b', 'c'], ['a', 'd']]
    """
    with labeled_as("split_groups"):
        groups, shares = _one_axis("groups", groups), _check_fractions(fractions)
        generator = np.random.default_rng(seed)
        part = _assign_groups(groups, shares, generator)
    return [generator.permutation(np.flatnonzero(part == number)) for number in range(len(shares))]


def split_in_time(times: Any, fractions: Sequence[float], *, gap: int = 0) -> list[np.ndarray]:
    """Return the indices of parts of a dataset that follow one another in time.

    Examples of the same time are kept together, in the later part.

    Args:
        times: `(examples,)`, the time of each example, numbers or dates in any order; or the number of examples, if
            they are in order.
        fractions: the size of each part, the earliest first; positive, with sum 1.
        gap: the number of examples left out between two parts, at the end of the earlier one. For windows of w steps
            with stride 1, the last w - 1 windows overlap the next part.

    Returns:
        One array of indices per part, in order of time.

    Raises:
        NetError: as in `split_indices`, and for a negative gap.

    >>> [part.tolist() for part in split_in_time(10, [0.5, 0.5], gap=2)]
    [[0, 1, 2], [5, 6, 7, 8, 9]]
    """
    with labeled_as("split_in_time"):
        shares = _check_fractions(fractions)
        order, ordered = _sort_in_time(times, gap)
        begins = [0, *_cuts(ordered, np.round(np.cumsum(shares) * len(order)).astype(int)[:-1])]
        ends = [*(begin - gap for begin in begins[1:]), len(order)]
        parts = [order[begin : max(begin, end)] for begin, end in zip(begins, ends, strict=True)]
        if any(len(part) == 0 for part in parts):
            raise NetError(f"leaves a part empty: {len(order)} examples in fractions {shares.tolist()}, gap={gap}")
    return parts


def walk_forward(times: Any, steps: int, *, gap: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of past and future examples: cross-validation for time series.

    The examples in order of time are cut into `steps` + 1 blocks of equal length, of which the first also gets the
    remainder. Pair i trains on the first i + 1 blocks and tests on the next. Examples of the same time are kept
    together, in the later block.

    Args:
        times: as for `split_in_time`.
        steps: the number of pairs, at least 1.
        gap: the number of examples left out before each test block.

    Returns:
        For each step the indices to train on and the indices to test on, in order of time.

    Raises:
        NetError: if a part would be empty, or for a negative gap.

    >>> [(train.tolist(), test.tolist()) for train, test in walk_forward(6, 2)]
    [([0, 1], [2, 3]), ([0, 1, 2, 3], [4, 5])]
    """
    with labeled_as("walk_forward"):
        check_count("steps", steps)
        order, ordered = _sort_in_time(times, gap)
        length = len(order) // (steps + 1)
        cuts = [*_cuts(ordered, len(order) - length * np.arange(steps, 0, -1)), len(order)]
        pairs = [(order[: max(cut - gap, 0)], order[cut:end]) for cut, end in pairwise(cuts)]
        if any(len(part) == 0 for pair in pairs for part in pair):
            raise NetError(f"leaves a part empty: {len(order)} examples in {steps} steps, gap={gap}")
    return pairs


def folds(labels: Any, k: int, *, seed: int = 0, stratify: bool = True) -> np.ndarray:
    """Assign each example a random fold from 0 to k - 1; the folds are as equal in size as possible.

    Sizes differ by at most one. If stratified, so do the numbers of examples of each class; real-valued targets instead
    of labels are distributed evenly by value.

    Args:
        labels: `(examples,)`, the class of each example; or the number of examples.
        k: the number of folds, at least 2.
        seed: the same seed gives the same folds on every machine.
        stratify: whether to keep the proportions of the classes, where labels are given.

    Returns:
        int32 `(examples,)`, for `fold`.

    Raises:
        NetError: for k < 2, fewer examples than folds, or labels that are not `(examples,)`.

    >>> numbers = folds([0, 0, 0, 0, 1, 1], 2)
    >>> numbers.dtype, sorted(numbers[:4].tolist()), sorted(numbers[4:].tolist())
    (dtype('int32'), [0, 0, 1, 1], [0, 1])
    """
    with labeled_as("folds"):
        labels = np.zeros(int(labels)) if np.ndim(labels) == 0 else _one_axis("labels", labels)
        _check_folds(k, len(labels), "examples")
    order = np.random.default_rng(seed).permutation(len(labels))
    if stratify:
        # Class after class, in random order within each, so that every k-th example is in the same fold.
        order = order[np.argsort(labels[order], kind="stable")]
    numbers = np.empty(len(labels), np.int32)
    numbers[order] = np.arange(len(labels)) % k
    return numbers


def group_folds(groups: Any, k: int, *, seed: int = 0) -> np.ndarray:
    """Assign each example a random fold from 0 to k - 1, the same for all examples of a group.

    Groups are assigned in random order, each to the smallest fold so far, so no two folds differ by more than the
    largest group.

    Args:
        groups: `(examples,)`, the group of each example; numbers or strings.
        k: the number of folds, at least 2.
        seed: the same seed gives the same folds on every machine.

    Returns:
        int32 `(examples,)`, for `fold`.

    Raises:
        NetError: for k < 2, fewer groups than folds, or groups that are not `(examples,)`.

    >>> numbers = group_folds(["a", "a", "b", "c"], 2)
    >>> bool(numbers[0] == numbers[1]), len(set(numbers.tolist()))
    (True, 2)
    """
    with labeled_as("group_folds"):
        groups = _one_axis("groups", groups)
        _check_folds(k, len(np.unique(groups)), "groups")
        return _assign_groups(groups, np.full(k, 1 / k), np.random.default_rng(seed)).astype(np.int32)


def fold(data: Any, numbers: Any, number: int | jax.Array) -> tuple[Weighted, Weighted]:
    """Return the training and the validation part for one fold: all other folds, and the fold itself.

    The parts have the same shapes for every fold, whatever its size, so `number` may be traced: one `vmap` trains k
    networks on k folds. A shorter part is filled with its own examples with weight 0, so the parts have no example in
    common, not even for batch norm.

    Args:
        data: `(inputs, targets)` or `(inputs, targets, weights)`, pytrees with the examples along the first axis.
        numbers: integers `(examples,)`, the fold of each example, from `folds` or `group_folds`; must be known.
        number: the fold to hold out, from 0; may be traced.

    Returns:
        `(train, validation)`, each `(inputs, targets, weights)`, with examples in the order of the data. `train` has as
        many rows as there are examples outside the smallest fold, `validation` as many as the largest fold has.

    Raises:
        NetError: for `numbers` that are traced, not integers, or not one per example; for a fold without examples; for
            a `number` that is not a fold.

    >>> x, y, numbers = jnp.arange(5.0), jnp.arange(5), jnp.array([0, 1, 0, 1, 0])
    >>> train, validation = jax.vmap(lambda number: fold((x, y), numbers, number))(jnp.arange(2))
    >>> validation[0].tolist(), validation[2].tolist()
    ([[0.0, 2.0, 4.0], [1.0, 3.0, 1.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    """
    with labeled_as("fold"):
        x, y, *given = data
        of = known(numbers)
        if of is None:
            raise NetError("expects numbers that are known, got traced ones; the sizes of the parts depend on them")
        if of.ndim != 1 or not np.issubdtype(of.dtype, np.integer) or of.size == 0 or of.min() < 0:
            raise NetError(f"expects numbers as integers ≥ 0 (examples,), got {of.dtype} {of.shape}")
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
        if lengths != {of.shape}:
            raise NetError(f"expects one number for each example, got {len(of)} for lengths {sorted(lengths)}")
        sizes = np.bincount(of)
        if sizes.min() == 0 or len(sizes) < 2:
            raise NetError(f"expects examples in each of at least 2 folds, got sizes {sizes.tolist()}")
        which = known(number)
        if which is not None and not 0 <= which < len(sizes):
            raise NetError(f"expects a number from 0 to {len(sizes) - 1}, got {which}")
    weights = wide(given[0]) if given else jnp.ones(len(of))
    # (examples,)
    held_out = jnp.asarray(of, jnp.int32) == jnp.asarray(number, jnp.int32)

    def part(inside: jax.Array, rows: int) -> Weighted:
        count, place = inside.sum(), jnp.arange(rows)
        # The stable sort puts the part's own examples first, in their order; they repeat to fill the rows.
        index = jnp.argsort(~inside)[place % jnp.maximum(count, 1)]
        chosen_x, chosen_y = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], (x, y))
        return chosen_x, chosen_y, jnp.where(place < count, weights[index], 0)

    return part(~held_out, len(of) - int(sizes.min())), part(held_out, int(sizes.max()))


def windows(sequence: Any, length: int, *, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cut a sequence into windows, each paired with the same window one step later, the target.

    Window *i* is x_i = s[i·stride : i·stride + length], and y_i = s[i·stride + 1 : i·stride + length + 1]. A remainder
    shorter than a window is dropped. Split a sequence into training and test part first, then cut each into windows.

    Args:
        sequence: `(steps, ...)`, of any dtype.
        length: the number of steps in a window, at least 1.
        stride: steps from the beginning of one window to the next. Default: `length`, so windows do not overlap.

    Returns:
        `x` and `y`, `(windows, length, ...)` in the sequence's dtype. To predict only the next value, take `y[:, -1]`.

    Raises:
        NetError: if `length` or `stride` is less than 1, or the sequence is not longer than a window.

    >>> x, y = windows([0, 1, 2, 3, 4, 5, 6, 7], 3)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    with labeled_as("windows"):
        check_count("length", length)
        stride = length if stride is None else stride
        check_count("stride", stride)
        values = np.asarray(sequence)
        if values.ndim < 1 or len(values) <= length:
            raise NetError(
                f"expects a sequence of more than length={length} steps along its first axis, got {values.shape}"
            )
    begins = np.arange(0, len(values) - length, stride)
    # (windows, length)
    places = begins[:, None] + np.arange(length)
    return values[places], values[places + 1]


def _one_axis(name: str, values: Any) -> np.ndarray:
    """Return one value per example as an array `(examples,)`."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise NetError(f"expects {name} (examples,), got {values.shape}")
    return values


def _check_fractions(fractions: Sequence[float]) -> np.ndarray:
    """Return fractions as a float64 array, after a check that they are positive with sum 1."""
    if np.ndim(fractions) != 1:
        raise NetError(f"expects a fraction for each part, such as (0.8, 0.2), got {fractions}")
    checked = np.asarray(fractions, np.float64)
    if (checked <= 0).any() or not np.isclose(checked.sum(), 1.0):
        raise NetError(f"expects positive fractions with sum 1, got {list(fractions)}")
    return checked


def _check_folds(k: int, count: int, what: str) -> None:
    check_count("k", k)
    if not 2 <= k <= count:
        raise NetError(f"expects at least 2 folds and as many {what}, got k={k} for {count} {what}")


def _assign_groups(groups: np.ndarray, shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the part of each example: groups in random order, each in the part that lacks the most examples."""
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < len(shares):
        raise NetError(f"expects at least as many groups as parts, got {len(names)} groups for {len(shares)} parts")
    lacking, part, empty = shares * len(groups), np.zeros(len(names), int), set(range(len(shares)))
    for place, group in enumerate(generator.permutation(len(names))):
        # With as many groups left as empty parts, each group must go to an empty part.
        scarce = len(names) - place <= len(empty)
        part[group] = max(empty, key=lambda number: lacking[number]) if scarce else np.argmax(lacking)
        lacking[part[group]] -= sizes[group]
        empty.discard(int(part[group]))
    return part[member]


def _sort_in_time(times: Any, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices in order of time, and the times in that order."""
    times = np.arange(times) if np.ndim(times) == 0 else _one_axis("times", times)
    if gap < 0:
        raise NetError(f"expects gap ≥ 0, got {gap}")
    # True for NaN, and for dates that are NaT.
    if (times != times).any():
        raise NetError("expects times that can be ordered, got NaN")
    order = np.argsort(times, kind="stable")
    return order, times[order]


def _cuts(ordered: np.ndarray, cuts: np.ndarray) -> list[int]:
    """Move cuts back to where their time begins, so that equal times are kept together."""
    return [int(np.searchsorted(ordered, ordered[cut])) if cut < len(ordered) else int(cut) for cut in cuts]
