"""What a person sees of a sweep: one bar over all trials."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from jaxnets.sweeps.state import Ledger
from jaxnets.train.callbacks.progress import bar, summary

Show = Callable[[int, str, str], None]


@contextmanager
def showing(wanted: bool, label: str, total: int) -> Iterator[Show]:
    """Give a function `(done, standing, values)` that moves a bar of `total` steps, prints lines, or is idle."""
    if not wanted:
        yield lambda done, standing, values: None
        return
    shown = bar(label, total)
    printed = [-1]

    def show(done: int, standing: str, values: str) -> None:
        lines = 20 * done // total  # as many by then at most
        if shown is not None:
            progress, task = shown
            progress.update(task, completed=done, text=values, speed=standing)
        elif lines > printed[0]:
            print(f"{label}  {100 * done // total:3d} %  {standing}  {values}", flush=True)
            printed[0] = lines

    try:
        yield show
    finally:
        if shown is not None:
            shown[0].stop()


def standing(show: Show) -> Callable[[Ledger], None]:
    """Return a function that shows where the trials of a sweep stand, in epochs of all of them.

    What a trial that has stopped need not run counts as run. Values are medians over the trials that have begun.

    >>> from types import SimpleNamespace
    >>> loss = np.array([[0.5], [np.nan]])
    >>> ledger = SimpleNamespace(done=np.array([1, 0]), over=np.array([False] * 2), epochs=1, history={"loss": loss})
    >>> standing(print)(ledger)
    1 1 of 2 networks median loss 0.5000
    """

    def stand(ledger: Ledger) -> None:
        ended = ledger.over | (ledger.done == ledger.epochs)
        begun = np.flatnonzero(ledger.done)
        row = {}
        for name, rows in ledger.history.items():
            if rows.ndim == 2:
                last = rows[begun, ledger.done[begun] - 1].astype(float)
                row[name] = np.median(last[np.isfinite(last)]) if np.isfinite(last).any() else np.nan
        gone = np.where(ledger.over, ledger.epochs, ledger.done).sum()
        show(int(gone), f"{ended.sum()} of {len(ended)} networks", f"median {summary(row, short=True)}")

    return stand
