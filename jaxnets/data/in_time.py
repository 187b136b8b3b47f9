"""Parts of a dataset that follow one another in time."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from jaxnets.data.splits import column, shares_of
from jaxnets.errors import NetError, check_count, labelled_as


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
    with labelled_as("split_in_time"):
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
    with labelled_as("walk_forward"):
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
