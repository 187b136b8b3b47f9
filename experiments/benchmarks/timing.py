"""Timing: contestants take turns in one run; medians, and their ratio with an interval."""

import time
from collections.abc import Callable, Mapping

import numpy as np


def timed(turn: Callable[[], object], before: Callable[[], object] = lambda: None) -> Callable[[], float]:
    """Return a function that takes a turn and returns its seconds; `before` is not counted."""

    def seconds() -> float:
        before()
        began = time.perf_counter()
        turn()
        return time.perf_counter() - began

    return seconds


def interleaved(
    contestants: Mapping[str, Callable[[], float]], *, rounds: int, warm: bool = True
) -> dict[str, np.ndarray]:
    """Run every contestant once a round, in turn, after one round that does not count.

    Taking turns spreads the machine's slow spells over all of them.

    Args:
        contestants: functions that do the work and return the seconds it took.
        rounds: how many rounds count.
        warm: whether there is the round that does not count.

    Returns:
        Seconds `(rounds,)` by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(not warm, rounds + 1):
        for name, contestant in contestants.items():
            took = contestant()
            if number:
                seconds[name].append(took)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(peer: np.ndarray, ours: np.ndarray, *, draws: int = 2000) -> tuple[float, float, float]:
    """Return the ratio of the medians, peer over ours, and its 95 % interval by resampling rounds."""
    rows = np.random.default_rng(0).integers(0, len(peer), (draws, len(peer)))
    low, high = np.percentile(np.median(peer[rows], 1) / np.median(ours[rows], 1), [2.5, 97.5])
    return float(np.median(peer) / np.median(ours)), float(low), float(high)
