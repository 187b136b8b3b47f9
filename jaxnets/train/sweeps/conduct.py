"""A sweep from its first segment to its last, with what a person watches and what is kept."""

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets.errors import NetError
from jaxnets.train.fit import Callback, ask
from jaxnets.train.interruption import Interruption, interrupts
from jaxnets.train.sweeps import members as many
from jaxnets.train.sweeps.designs import Design
from jaxnets.train.sweeps.kept import Kept
from jaxnets.train.sweeps.ledger import Ledger, advance
from jaxnets.train.sweeps.progress import showing, standing
from jaxnets.train.sweeps.result import SweepResult, collect
from jaxnets.train.sweeps.strategy import Computed, Team

Callbacks = Callable[[dict[str, Any]], Sequence[Callback]]


class Course:
    """Which members run how far: all of them to their last segment."""

    def settings(self) -> dict[str, str]:
        """Return what it depends on, as short text by name."""
        return {}

    def run(
        self, team: Team, ledger: Ledger, design: Design, interrupted: Interruption, show: Callable[[Ledger], None]
    ) -> None:
        """Run the members from where they stand; the last two are as in `advance`."""
        advance(team, ledger, range(len(design)), ledger.segments, interrupted=interrupted, show=show)


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
    """Run the members of a design.

    Args:
        label: what stands in front of the bar.
        planned: makes the sweep ready, by how its members are computed.
        how: that.
        design: the members.
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
        total = ledger.segments * len(design)
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
    """The callbacks of all members, called as `fit` would call them.

    Raises:
        NetError: for anything but a function of a member that gives callbacks.
    """

    def __init__(
        self, make: Callbacks | None, team: Team, design: Design, ledger: Ledger, interrupted: Interruption
    ) -> None:
        if make is not None and not callable(make):
            mend = 'callbacks=lambda member: [jn.train.jsonl("sweep.jsonl", **member)]'
            raise NetError(f"expects callbacks as a function of a member, got {type(make).__name__}: {mend}")
        self.make, self.team, self.design, self.interrupted = make, team, design, interrupted
        self.seen = ledger.done.copy()
        if make is not None:
            first = jax.tree.map(lambda column: column[0], team.inputs)
            self.program = many.program_of(team.build, team.given, first)
        self.begun: dict[int, Sequence[Callback]] = {}

    def see(self, ledger: Ledger) -> None:
        """Call those of the members that have run a segment since."""
        if self.make is None:
            return
        ledger.hold()
        for member in map(int, np.flatnonzero(ledger.done > self.seen)):
            number, run = int(ledger.done[member]) - 1, ledger.held.one(member)
            last = {name: rows[member, number] for name, rows in ledger.history.items()}
            row = {name: float(value) if np.ndim(value) == 0 else value for name, value in last.items()}
            ledger.over[member] |= ask(self.interrupted, self._of(member), number, run, row)
            if not ledger.left(member, ledger.segments):
                self._finish(member, ledger)
        self.seen = ledger.done.copy()

    def finish(self, ledger: Ledger) -> None:
        """Tell those that have not ended that their members do."""
        for member in [*self.begun]:
            self._finish(member, ledger)

    def close(self) -> None:
        """End those that something broke off."""
        for callbacks in self.begun.values():
            for callback in reversed(callbacks):
                callback.on_end()
        self.begun = {}

    def _of(self, member: int) -> Sequence[Callback]:
        if member not in self.begun:
            found = self.make(self._record(member)) if self.make is not None else []
            for each in found:
                if not isinstance(each, Callback):
                    mend = "early stopping belongs into the program: program(..., stopping=...)"
                    raise NetError(f"expects callbacks of member {member}, got {type(each).__name__}; {mend}")
                if each.restore is not Callback().restore:
                    raise NetError("expects no checkpoint of one member; sweep(..., checkpoint=folder) saves all")
            self.begun[member] = found
            for each in found:
                each.on_start(self.program)
        return self.begun[member]

    def _finish(self, member: int, ledger: Ledger) -> None:
        callbacks = self.begun.pop(member)
        for callback in callbacks:
            callback.on_finish(int(ledger.done[member]), ledger.held.one(member))
        for callback in reversed(callbacks):
            callback.on_end()

    def _record(self, member: int) -> dict[str, Any]:
        labels = {name: rows[member].item() for name, rows in self.design.labels.items()}
        return {"member": member, **labels, **self.design.of(member)}
