"""Disjoint parts of a dataset, drawn once by seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.errors import NetError, labelled_as


def split(labels: Any, fractions: Sequence[float], *, seed: int = 0, stratify: bool = True) -> list[np.ndarray]:
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

    >>> parts = split([0, 0, 0, 0, 1, 1, 1, 1], [0.5, 0.5])
    >>> [len(part) for part in parts]
    [4, 4]
    """
    with labelled_as("split"):
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
        raise NetError(f"leaves a part empty: {len(labels)} examples in fractions {list(fractions)}", label="split")
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
    with labelled_as("split_groups"):
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
