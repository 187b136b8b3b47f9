"""Disjoint parts of a dataset, drawn once by seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.errors import NetError


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
    labels, shares = np.asarray(labels), np.asarray(fractions, np.float64)
    if labels.ndim != 1:
        raise NetError(f"expects labels (examples,), got {labels.shape}", label="split")
    if shares.ndim != 1 or (shares <= 0).any() or not np.isclose(shares.sum(), 1.0):
        raise NetError(f"expects positive fractions with sum 1, got {list(fractions)}", label="split")
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
