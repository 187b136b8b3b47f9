"""Disjoint parts of a dataset, drawn once by seed."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, known, labeled_as, shown
from jaxnets.core.foreign import arrays


def split(
    data: tuple[Any, ...], fractions: Sequence[float], *, seed: int = 0, stratify: bool | None = None
) -> list[tuple[Any, ...]]:
    """Return disjoint random parts of a dataset, every example in exactly one.

    Args:
        data: inputs and targets, and weights if any: pytrees with the examples along the first axis.
        fractions: the size of each part; positive, with sum 1.
        seed: the same seed gives the same parts on every machine.
        stratify: whether each part holds the classes in the proportions of the whole; `None` does so where the targets
            are class labels, one integer per example.

    Returns:
        A tuple like `data` for each part.

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
            hint = "split_indices takes labels alone and gives indices"
            raise NetError(f"expects data as (inputs, targets), got {shown(data)}; {hint}")
        inputs, targets, *weights = (arrays(name, each) for name, each in zip(("inputs", "targets", "weights"), data))
        data = inputs, targets, *weights
        lengths = {len(leaf) for leaf in jax.tree.leaves(data)}
        if len(lengths) != 1:
            raise NetError(f"expects arrays of one length, got {sorted(lengths)}")
        labels = jax.tree.leaves(targets)[0]
        if stratify is None:
            stratify = targets is labels and labels.ndim == 1 and labels.dtype.kind in "biu"
        parts = split_indices(labels if stratify else np.zeros(lengths.pop()), fractions, seed=seed, stratify=stratify)
    return [jax.tree.map(lambda leaf, part=part: leaf[part], data) for part in parts]


def split_indices(labels: Any, fractions: Sequence[float], *, seed: int = 0, stratify: bool = True) -> list[np.ndarray]:
    """Return the indices of disjoint random parts of a dataset, every example in exactly one.

    Stratified parts hold each class in the proportion it has in the whole, as nearly as whole examples allow:
    within a class the parts' sizes are rounded so that they sum to the class's size.

    Args:
        labels: `(examples,)`, the class of each example; its length alone matters without `stratify`.
        fractions: the size of each part; positive, with sum 1.
        seed: the same seed gives the same parts on every machine.
        stratify: whether to keep the classes' proportions.

    Returns:
        One array of indices a part, in random order.

    Raises:
        NetError: if the fractions are not positive with sum 1, the labels are not `(examples,)`, or a part
            would be empty.

    >>> parts = split_indices([0, 0, 0, 0, 1, 1, 1, 1], [0.5, 0.5])
    >>> [len(part) for part in parts]
    [4, 4]
    """
    with labeled_as("split_indices"):
        labels, shares = column("labels", labels), shares_of(fractions)
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == each) for each in np.unique(labels)] if stratify else [np.arange(len(labels))]
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    carried = np.zeros(len(shares))  # what rounding owes each part, so that small classes don't all round alike
    for group in groups:
        wanted = shares * len(group) + carried
        sizes = np.maximum(np.floor(wanted), 0).astype(int)
        while sizes.sum() < len(group):
            sizes[np.argmax(wanted - sizes)] += 1
        while sizes.sum() > len(group):
            sizes[np.argmin(np.where(sizes > 0, wanted - sizes, np.inf))] -= 1
        carried = wanted - sizes
        for part, indices in zip(parts, np.split(generator.permutation(group), np.cumsum(sizes)[:-1]), strict=True):
            part.append(indices)
    drawn = [generator.permutation(np.concatenate(part)) if part else np.array([], int) for part in parts]
    if any(len(part) == 0 for part in drawn):
        raise NetError(f"leaves a part empty: {len(labels)} examples in fractions {list(fractions)}", label="split_indices")
    return drawn


def split_groups(groups: Any, fractions: Sequence[float], *, seed: int = 0) -> list[np.ndarray]:
    """Return the indices of disjoint random parts of a dataset, no group of examples in more than one.

    For examples that belong together, such as all scans of a patient or all frames of a film: who learns from some
    and is tested on others is tested on what is known. Groups are taken in random order, each for the part that
    lacks most. No part exceeds its fraction by more than the largest group, unless it would else be empty.

    Args:
        groups: `(examples,)`, the group of each example; numbers or strings.
        fractions: the size of each part in examples; positive, with sum 1.
        seed: the same seed gives the same parts on every machine.

    Returns:
        One array of indices a part, in random order.

    Raises:
        NetError: as `split`, or if there are fewer groups than parts.

    >>> patients = ["a", "b", "a", "c", "b", "d"]
    >>> parts = split_groups(patients, [0.5, 0.5])
    >>> [sorted({patients[place] for place in part}) for part in parts]
    [['b', 'c'], ['a', 'd']]
    """
    with labeled_as("split_groups"):
        groups, shares = column("groups", groups), shares_of(fractions)
        generator = np.random.default_rng(seed)
        part = group_parts(groups, shares, generator)
    return [generator.permutation(np.flatnonzero(part == number)) for number in range(len(shares))]


def group_parts(groups: np.ndarray, shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the number of each example's part, whole groups in random order to the part that lacks most.

    Raises:
        NetError: if there are fewer groups than parts.
    """
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < len(shares):
        raise NetError(f"expects at least as many groups as parts, got {len(names)} groups for {len(shares)} parts")
    lacking, part, empty = shares * len(groups), np.zeros(len(names), int), set(range(len(shares)))
    for place, group in enumerate(generator.permutation(len(names))):
        last = len(names) - place <= len(empty)  # each group left has to fill a part of its own
        part[group] = max(empty, key=lambda number: lacking[number]) if last else np.argmax(lacking)
        lacking[part[group]] -= sizes[group]
        empty.discard(int(part[group]))
    return part[member]


def column(name: str, values: Any) -> np.ndarray:
    """Return one value an example, `(examples,)`.

    Raises:
        NetError: for an array of another rank.
    """
    values = np.asarray(values)
    if values.ndim != 1:
        raise NetError(f"expects {name} (examples,), got {values.shape}")
    return values


def shares_of(fractions: Sequence[float]) -> np.ndarray:
    """Return fractions of a whole as an array.

    Raises:
        NetError: if they are not positive with sum 1.
    """
    if np.ndim(fractions) != 1:
        raise NetError(f"expects a fraction for each part, such as (0.8, 0.2), got {fractions}")
    shares = np.asarray(fractions, np.float64)
    if shares.ndim != 1 or (shares <= 0).any() or not np.isclose(shares.sum(), 1.0):
        raise NetError(f"expects positive fractions with sum 1, got {list(fractions)}")
    return shares


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
    with labeled_as("folds"):
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
    with labeled_as("group_folds"):
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
    with labeled_as("fold"):
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


def split_in_time(times: Any, fractions: Sequence[float], *, gap: int = 0) -> list[np.ndarray]:
    """Return the indices of parts of a dataset that follow one another in time: the future is never learned from.

    Examples of the same time stay together, in the later part.

    Args:
        times: `(examples,)`, when each example was taken, numbers or dates in any order; or the number of examples,
            which are in order then.
        fractions: the size of each part, the earliest first; positive, with sum 1.
        gap: how many examples are left out between two parts, at the end of the earlier one. For windows of w
            steps, cut at every step, w - 1 of them share a step with the next part.

    Returns:
        One array of indices a part, in order of time.

    Raises:
        NetError: as `split`, or for a negative gap.

    >>> [part.tolist() for part in split_in_time(10, [0.5, 0.5], gap=2)]
    [[0, 1, 2], [5, 6, 7, 8, 9]]
    """
    with labeled_as("split_in_time"):
        shares = shares_of(fractions)
        order, whole = _in_order(times, gap)
        cuts = _cuts(whole, np.round(np.cumsum(shares) * len(order)).astype(int)[:-1])
        bounds = zip([0, *cuts], [*(cut - gap for cut in cuts), len(order)])
        parts = [order[first:end] for first, end in ((first, max(first, end)) for first, end in bounds)]
        if any(len(part) == 0 for part in parts):
            raise NetError(f"leaves a part empty: {len(order)} examples in fractions {list(fractions)}, gap={gap}")
    return parts


def walk_forward(times: Any, steps: int, *, gap: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of what was known by a time and what came next: cross-validation for series.

    The examples in order of time are cut into steps + 1 stretches of equal length (what is left over comes to the
    first); pair i learns from the first i + 1 of them and is tested on the next. Examples of the same time stay
    together, in the later stretch.

    Args:
        times: as for `split_in_time`.
        steps: how many pairs, at least 1.
        gap: how many examples are left out before each test stretch.

    Returns:
        For each step the indices to learn from and those to be tested on, in order of time.

    Raises:
        NetError: if a part would be empty, or for a negative gap.

    >>> [(train.tolist(), test.tolist()) for train, test in walk_forward(6, 2)]
    [([0, 1], [2, 3]), ([0, 1, 2, 3], [4, 5])]
    """
    with labeled_as("walk_forward"):
        check_count("steps", steps)
        order, whole = _in_order(times, gap)
        length = len(order) // (steps + 1)
        cuts = [*_cuts(whole, len(order) - length * np.arange(steps, 0, -1)), len(order)]
        pairs = [(order[: max(cut - gap, 0)], order[cut:end]) for cut, end in pairwise(cuts)]
        if any(len(part) == 0 for pair in pairs for part in pair):
            raise NetError(f"leaves a part empty: {len(order)} examples in {steps} steps, gap={gap}")
    return pairs


def _in_order(times: Any, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices in order of time, and the times in order."""
    times = np.arange(times) if np.ndim(times) == 0 else column("times", times)
    if gap < 0:
        raise NetError(f"expects gap ≥ 0, got {gap}")
    if (times != times).any():  # NaN, or no date
        raise NetError("expects times that can be put in order, got NaN")
    order = np.argsort(times, kind="stable")
    return order, times[order]


def _cuts(ordered: np.ndarray, cuts: np.ndarray) -> list[int]:
    """Return cuts moved back to where a time begins, so that equal times stay together."""
    return [int(np.searchsorted(ordered, ordered[cut])) if cut < len(ordered) else int(cut) for cut in cuts]


def windows(sequence: Any, length: int, *, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return stretches of a sequence, and the same stretches one step later: what is read, and what comes next.

    Window *i* is x_i = s[i·stride : i·stride + length], and y_i = s[i·stride + 1 : i·stride + length + 1]. What is
    left at the end and fills no window is dropped. Cut a sequence into training and test part first, and each into
    windows afterwards.

    Args:
        sequence: `(steps, ...)`, of any dtype.
        length: steps in a window, at least 1.
        stride: from the begin of one window to the next; `length` if not given, so that no element of `x` is in two.

    Returns:
        `x` and `y`, `(windows, length, ...)` in the sequence's dtype. To predict a single next value take `y[:, -1]`.

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
    places = begins[:, None] + np.arange(length)
    return values[places], values[places + 1]
