"""A sweep from its first epoch to its last, with what a person watches and what is kept."""

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.sweeps import execution as many
from jaxnets.sweeps.checkpoint import Kept
from jaxnets.sweeps.progress import showing, standing
from jaxnets.sweeps.result import SweepResult, collect
from jaxnets.sweeps.space import Design
from jaxnets.sweeps.state import Ledger, advance
from jaxnets.sweeps.strategy import Computed, Team
from jaxnets.train.interruption import Interruption, interrupts
from jaxnets.train.loop import Callback, ask

Callbacks = Callable[[dict[str, Any]], Sequence[Callback]]


class Course:
    """Which trials run how far: all of them to their last epoch."""

    def settings(self) -> dict[str, str]:
        """Return what it depends on, as short text by name."""
        return {}

    def run(
        self, team: Team, ledger: Ledger, design: Design, interrupted: Interruption, show: Callable[[Ledger], None]
    ) -> None:
        """Run the trials from where they stand; the last two are as in `advance`."""
        advance(team, ledger, range(len(design)), ledger.epochs, interrupted=interrupted, show=show)


def conduct(
    label: str,
    planned: Callable[[Computed], Team],
    how: Computed,
    design: Design,
    progress: bool,
    callbacks: Callbacks | None,
    checkpoint: str | Path | None,
    overhead: float | None,
    *,
    course: Course = Course(),
    interrupted: Interruption | None = None,
) -> SweepResult:
    """Run the trials of a design.

    Args:
        label: what stands in front of the bar.
        planned: makes the sweep ready, by how its trials are computed.
        how: that.
        design: the trials.
        progress: these are as in `sweep`.
        callbacks: likewise.
        checkpoint: likewise.
        overhead: likewise.
        course: which of them run how far.
        interrupted: true as soon as all are to stand where they are; on a signal if not given.

    Raises:
        NetError: as `sweep`.
        OSError: likewise.
    """
    kept = None if checkpoint is None else Kept(checkpoint, overhead)
    with nullcontext() if kept is None else closing(kept.writer):
        team = planned(how if kept is None else kept.adopt(how))
        ledger = Ledger(team)
        if kept is not None:
            team = kept.restore(team, design, ledger, course.settings())
        total = ledger.epochs * len(design)
        with (
            interrupts() if interrupted is None else nullcontext(interrupted) as stop,
            showing(progress, label, total) as show,
            closing(Watchers(callbacks, team, design, ledger, stop)) as watchers,
        ):
            shown = standing(show)

            def after(ledger: Ledger) -> None:
                watchers.see(ledger)
                if kept is not None:
                    kept.keep(team, ledger)
                shown(ledger)

            course.run(team, ledger, design, stop, after)
            if kept is not None:
                kept.keep(team, ledger, last=True)
            watchers.finish(ledger)
    return collect(team, design, ledger)


class Watchers:
    """The callbacks of all trials, called as `fit` would call them.

    Raises:
        NetError: for anything but a function of a trial that gives callbacks.
    """

    def __init__(
        self, make: Callbacks | None, team: Team, design: Design, ledger: Ledger, interrupted: Interruption
    ) -> None:
        if make is not None and not callable(make):
            hint = 'callbacks=lambda trial: [jn.train.jsonl("sweep.jsonl", **trial)]'
            raise NetError(f"expects callbacks as a function of a trial, got {type(make).__name__}: {hint}")
        self.make, self.team, self.design, self.interrupted = make, team, design, interrupted
        self.seen = ledger.done.copy()
        if make is not None:
            first = jax.tree.map(lambda column: column[0], team.inputs)
            self.program = many.program_of(team.build, team.given, first)
        self.begun: dict[int, Sequence[Callback]] = {}

    def see(self, ledger: Ledger) -> None:
        """Call those of the trials that have run a epoch since."""
        if self.make is None:
            return
        ledger.hold()
        for trial in map(int, np.flatnonzero(ledger.done > self.seen)):
            number, run = int(ledger.done[trial]) - 1, ledger.held.one(trial)
            last = {name: rows[trial, number] for name, rows in ledger.history.items()}
            row = {name: float(value) if np.ndim(value) == 0 else value for name, value in last.items()}
            ledger.over[trial] |= ask(self.interrupted, self._of(trial), number, run, row)
            if not ledger.left(trial, ledger.epochs):
                self._finish(trial, ledger)
        self.seen = ledger.done.copy()

    def finish(self, ledger: Ledger) -> None:
        """Tell those that have not ended that their trials do."""
        for trial in [*self.begun]:
            self._finish(trial, ledger)

    def close(self) -> None:
        """End those that something broke off."""
        for callbacks in self.begun.values():
            for callback in reversed(callbacks):
                callback.on_end()
        self.begun = {}

    def _of(self, trial: int) -> Sequence[Callback]:
        if trial not in self.begun:
            found = self.make(self._record(trial)) if self.make is not None else []
            for each in found:
                if not isinstance(each, Callback):
                    hint = "early stopping belongs into the program: program(..., stopping=...)"
                    raise NetError(f"expects callbacks of trial {trial}, got {type(each).__name__}; {hint}")
                if each.restore is not Callback().restore:
                    raise NetError("expects no checkpoint of one trial; sweep(..., checkpoint=folder) saves all")
            self.begun[trial] = found
            for each in found:
                each.on_start(self.program)
        return self.begun[trial]

    def _finish(self, trial: int, ledger: Ledger) -> None:
        callbacks = self.begun.pop(trial)
        for callback in callbacks:
            callback.on_finish(int(ledger.done[trial]), ledger.held.one(trial))
        for callback in reversed(callbacks):
            callback.on_end()

    def _record(self, trial: int) -> dict[str, Any]:
        labels = {name: rows[trial].item() for name, rows in self.design.labels.items()}
        return {"trial": trial, **labels, **self.design.of(trial)}
