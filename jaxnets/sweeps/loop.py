"""A sweep from its first epoch to its last, with progress, callbacks and checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.sweeps import execution
from jaxnets.sweeps.checkpoint import SweepCheckpoint
from jaxnets.sweeps.progress import progress_bar, sweep_progress
from jaxnets.sweeps.result import SweepResult, collect
from jaxnets.sweeps.space import Design
from jaxnets.sweeps.state import SweepState, advance
from jaxnets.sweeps.strategy import ExecutionOptions, Plan
from jaxnets.train.interruption import Interruption, interrupts
from jaxnets.train.loop import Callback, ask
from jaxnets.train.program import Program

Callbacks = Callable[[dict[str, Any]], Sequence[Callback]]


def run_all(
    plan: Plan, state: SweepState, interrupted: Interruption, after_epoch: Callable[[SweepState], None]
) -> None:
    """Run all trials from their current to their last epoch; `advance` describes the last two arguments."""
    advance(plan, state, range(len(plan.design)), state.epochs, interrupted=interrupted, after_epoch=after_epoch)


def run_sweep(
    label: str,
    make_plan: Callable[..., Plan],
    options: ExecutionOptions,
    progress: bool,
    callbacks: Callbacks | None,
    checkpoint: str | Path | None,
    overhead: float | None,
    *,
    schedule: Callable[..., None] = run_all,
    settings: Mapping[str, str] = {},
    interrupted: Interruption | None = None,
) -> SweepResult:
    """Run the trials of a sweep.

    Args:
        label: the text in front of the progress bar.
        make_plan: returns the sweep ready to run, given the options as keywords.
        options: how trials are computed.
        progress: whether to show a progress bar; this and the next three are as in `sweep`.
        callbacks: makes the callbacks of each trial.
        checkpoint: the folder to save in and to resume from.
        overhead: the fraction of the time that saving may take.
        schedule: runs the trials in some order, such as `run_all`.
        settings: what the schedule depends on, as short text by name, for checkpoints to compare.
        interrupted: true as soon as all trials are to stop; default: on a signal.

    Raises:
        NetError: as in `sweep`.
        OSError: as in `sweep`.
    """
    saved = None if checkpoint is None else SweepCheckpoint(checkpoint, overhead)
    with nullcontext() if saved is None else closing(saved.writer):
        # Bits depend on the strategy: a resumed sweep takes that of its checkpoint instead of measuring again.
        plan = make_plan(**(options if saved is None else saved.adopt(options)))
        state = SweepState(plan)
        if saved is not None:
            plan = saved.restore(plan, state, settings)
        with (
            interrupts() if interrupted is None else nullcontext(interrupted) as stop,
            progress_bar(progress, label, state.epochs * len(plan.design)) as show,
            closing(TrialCallbacks(callbacks, plan, state, stop)) as trial_callbacks,
        ):
            show_state = sweep_progress(show)

            # Callbacks first, since a trial that they end is saved as ended.
            def after_epoch(state: SweepState) -> None:
                trial_callbacks.after_epoch(state)
                if saved is not None:
                    saved.save(plan, state)
                show_state(state)

            schedule(plan, state, stop, after_epoch)
            if saved is not None:
                saved.save(plan, state, last=True)
            trial_callbacks.finish(state)
    return collect(plan, state)


class TrialCallbacks:
    """The callbacks of all trials, called as `fit` would call them.

    Raises:
        NetError: for anything but a function of a trial that returns callbacks.
    """

    def __init__(self, make: Callbacks | None, plan: Plan, state: SweepState, interrupted: Interruption) -> None:
        if make is not None and not callable(make):
            hint = 'callbacks=lambda trial: [jn.train.jsonl("sweep.jsonl", **trial)]'
            raise NetError(f"expects callbacks as a function of a trial, got {type(make).__name__}: {hint}")
        self.make: Callbacks | None = make
        self.design: Design = plan.design
        self.interrupted: Interruption = interrupted
        # Restored epochs were seen by the callbacks of the previous process.
        self.seen: np.ndarray = state.done.copy()
        if make is not None:
            self.program: Program = execution.build_program(plan.builder, plan.extra, plan.inputs_of(0))
        self.begun: dict[int, Sequence[Callback]] = {}

    def after_epoch(self, state: SweepState) -> None:
        """Call the callbacks of the trials that have run an epoch since the last call."""
        if self.make is None:
            return
        # Callbacks get train states in the host's memory.
        state.to_host()
        for trial in map(int, np.flatnonzero(state.done > self.seen)):
            number, train_state = int(state.done[trial]) - 1, state.host.take(trial)
            row = {name: rows[trial, number] for name, rows in state.history.items()}
            # A callback that asks to end the run ends its trial.
            state.over[trial] |= ask(self.interrupted, self._of(trial), number, train_state, row)
            if not state.continues(trial, state.epochs):
                self._finish(trial, state)
        self.seen = state.done.copy()

    def finish(self, state: SweepState) -> None:
        """End the trials that have begun and not ended: call their `on_finish` and `on_end`."""
        for trial in [*self.begun]:
            self._finish(trial, state)

    def close(self) -> None:
        """Call `on_end` of the remaining callbacks: those of trials ended by an exception."""
        for callbacks in self.begun.values():
            # In reverse order, as nested contexts end
            for callback in reversed(callbacks):
                callback.on_end()
        self.begun = {}

    def _of(self, trial: int) -> Sequence[Callback]:
        """Return a trial's callbacks; the first time, make and start them."""
        if trial not in self.begun:
            labels = {name: rows[trial].item() for name, rows in self.design.labels.items()}
            record = {"trial": trial, **labels, **self.design.of(trial)}
            callbacks = self.make(record) if self.make is not None else []
            for each in callbacks:
                if not isinstance(each, Callback):
                    hint = "early stopping is an option of the program: program(..., stopping=...)"
                    raise NetError(f"expects callbacks of trial {trial}, got {type(each).__name__}; {hint}")
                if each.restore is not Callback().restore:
                    raise NetError("expects no checkpoint of one trial; sweep(..., checkpoint=folder) saves all")
            # Recorded first, so that `close` ends them even if `on_start` raises.
            self.begun[trial] = callbacks
            for each in callbacks:
                each.on_start(self.program)
        return self.begun[trial]

    def _finish(self, trial: int, state: SweepState) -> None:
        callbacks = self.begun.pop(trial)
        for callback in callbacks:
            callback.on_finish(int(state.done[trial]), state.host.take(trial))
        for callback in reversed(callbacks):
            callback.on_end()
