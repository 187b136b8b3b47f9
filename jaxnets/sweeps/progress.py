"""The progress of a sweep: one bar over all trials, or plain lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from jaxnets.sweeps.state import SweepState
from jaxnets.train.callbacks.progress import bar, summary

Show = Callable[[int, str, str], None]


@contextmanager
def progress_bar(wanted: bool, label: str, total: int) -> Iterator[Show]:
    """Yield `show(done, counts, values)`, which updates a bar of `total` steps.

    Where no bar can be drawn, it prints lines, at most one for each 5 %. It does nothing if `wanted` is false.
    """
    if not wanted:
        yield lambda done, counts, values: None
        return
    shown = bar(label, total)
    printed = -1

    def show(done: int, counts: str, values: str) -> None:
        nonlocal printed
        lines = 20 * done // total
        if shown is not None:
            progress, task = shown
            progress.update(task, completed=done, text=values, speed=counts)
        elif lines > printed:
            print(f"{label}  {100 * done // total:3d} %  {counts}  {values}", flush=True)
            printed = lines

    try:
        yield show
    finally:
        if shown is not None:
            shown[0].stop()


def sweep_progress(show: Show) -> Callable[[SweepState], None]:
    """Return a function that shows the progress of a sweep, counted in epochs of all its trials.

    A trial that has stopped counts as if it had run all its epochs. Values are medians over the trials that have begun.

    >>> from types import SimpleNamespace
    >>> loss = np.array([[0.5], [np.nan]])
    >>> state = SimpleNamespace(done=np.array([1, 0]), over=np.array([False] * 2), epochs=1, history={"loss": loss})
    >>> sweep_progress(print)(state)
    1 1 of 2 networks median loss 0.5000
    """

    def show_state(state: SweepState) -> None:
        ended = state.over | (state.done == state.epochs)
        begun = np.flatnonzero(state.done)
        row = {}
        for name, rows in state.history.items():
            if rows.ndim == 2:
                last = rows[begun, state.done[begun] - 1].astype(float)
                row[name] = np.median(last[np.isfinite(last)]) if np.isfinite(last).any() else np.nan
        done = np.where(state.over, state.epochs, state.done).sum()
        show(int(done), f"{ended.sum()} of {len(ended)} networks", f"median {summary(row, short=True)}")

    return show_state
