"""The state of a sweep between two epochs, and the loop that advances it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.compiled import compiled
from jaxnets.sweeps import execution
from jaxnets.sweeps.strategy import Plan
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.interruption import Interruption
from jaxnets.train.state import TrainState, is_key


class HostStates:
    """The train states of all trials in the host's memory, as NumPy arrays `(trials, ...)`.

    Attributes:
        like: the shapes of one train state.
        arrays: the leaves, random keys as their data; zero for trials that have not begun.
        begun: `(trials,)`, which trials have begun.
    """

    def __init__(self, like: TrainState, trials: int) -> None:
        def blank(leaf: Any) -> np.ndarray:
            plain = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
            return np.zeros((trials, *plain.shape), plain.dtype)

        self.like: TrainState = like
        self.begun: np.ndarray = np.zeros(trials, bool)
        self.arrays: TrainState = jax.tree.map(blank, like)

    def put(self, trials: Sequence[int] | np.ndarray, states: TrainState) -> None:
        """Copy stacked states from the devices; places after those of the trials are ignored."""

        def copy(own: np.ndarray, new: Any) -> None:
            # NumPy holds the data of random keys.
            own[trials] = (np.asarray(jax.random.key_data(new)) if is_key(new) else new)[: len(trials)]

        jax.tree.map(copy, self.arrays, execution.on_host(states, view=True))
        self.begun[trials] = True

    def take(self, trials: Sequence[int] | np.ndarray | int) -> TrainState:
        """Return copies of trials' states, stacked, or of one trial's state."""

        def copy(own: np.ndarray, like: Any) -> Any:
            return _restore_key(np.asarray(own.take(trials, axis=0)), like)

        return jax.tree.map(copy, self.arrays, self.like)


def _restore_key(array: np.ndarray, like: Any) -> Any:
    """Return an array, or if `like` is of random keys, the keys whose data it holds."""
    if not is_key(like):
        return array
    # The dtype of keys contains their implementation, which JAX reads only from a traced array.
    implementation: list[Any] = []
    jax.eval_shape(lambda key: implementation.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(jnp.asarray(array), impl=implementation[0])


class SweepState:
    """The progress and history of each trial, and its train state while it is not on the devices.

    Attributes:
        done: `(trials,)`, how many epochs each trial has run.
        over: `(trials,)`, whether the trial has ended.
        dropped: `(trials,)`, whether `halving` dropped the trial.
        judged: the epoch at which `halving` last compared the trials.
        history: an array `(trials, epochs, ...)` for each reported name; NaN, or -1 for integers, where nothing ran.
        host: the trials' train states in the host's memory; `to_host` updates those that are on the devices.
        epochs: how many epochs a trial has.
        placed: the trials on the devices, in the order of their places.
        width: how many places there are.
    """

    def __init__(self, plan: Plan) -> None:
        trials = len(plan.design)
        self.done: np.ndarray = np.zeros(trials, int)
        self.over: np.ndarray = np.zeros(trials, bool)
        self.dropped: np.ndarray = np.zeros(trials, bool)
        self.judged: int = 0
        self.history: dict[str, np.ndarray] = {}
        self.host: HostStates = HostStates(plan.shared.state, trials)
        self.epochs: int = plan.shared.epochs
        self.placed: list[int] = []
        self.width: int = 0
        self.on_devices: TrainState | None = None

    def continues(self, trial: int, until: int) -> bool:
        """Tell whether a trial has epochs to run before epoch `until`."""
        return not self.over[trial] and self.done[trial] < until

    def occupants(self) -> list[int]:
        """Return the trial in each place; places after those of the trials repeat the first, and are never active."""
        return self.placed + self.placed[:1] * (self.width - len(self.placed))

    def record(self, active: np.ndarray, rows: dict[str, np.ndarray], over: np.ndarray) -> None:
        """Add an epoch of the active places to the history."""
        places = np.flatnonzero(active)
        trials = np.asarray(self.occupants())[places]
        for name, values in rows.items():
            if name not in self.history:
                shape = (len(self.done), self.epochs, *values.shape[1:])
                # Epochs that have not run are NaN, or -1 where the dtype has no NaN.
                blank = np.nan if jnp.issubdtype(values.dtype, jnp.inexact) else -1
                self.history[name] = np.full(shape, blank, values.dtype)
            self.history[name][trials, self.done[trials]] = values[places]
        self.done[trials] += 1
        self.over[trials] = over[places]

    def place(self, plan: Plan, trials: list[int], width: int) -> None:
        """Put trials on the devices, in `width` places. Call `to_host` first if other trials are there."""
        self.placed, self.width = trials, width
        new = [trial for trial in trials if not self.host.begun[trial]]
        if new == trials and width == plan.width:
            # No trial has begun: states go straight to the devices, without a copy on the host.
            states = plan.start(new, places=width)
        else:
            if new:
                # In as many places as before, so that `start` is not compiled again for another number.
                self.host.put(new, plan.start(new, places=plan.width))
            states = self.host.take(self.occupants())
        self.on_devices = plan.layout.place(states)

    def to_host(self) -> None:
        """Copy the states on the devices to the host's memory."""
        if self.on_devices is not None:
            self.host.put(self.placed, self.on_devices)

    def clear(self) -> None:
        """Take all trials off the devices."""
        self.to_host()
        self.placed, self.on_devices = [], None

    def stacked(self, *, stopping: EarlyStopping | None = None) -> TrainState:
        """Return all trials' states in the host's memory, stacked; zero for those that have not begun.

        Args:
            stopping: if the trials have ended, the early stopping that may restore their best parameters.
        """
        states = self.host.take(np.arange(len(self.done)))
        if stopping is None or not stopping.restore:
            return states
        return execution.on_host(compiled(execution.finish, [stopping], [states])(states))

    def reported(self, stopping: EarlyStopping | None) -> np.ndarray:
        """Return the epoch `(trials,)` of each finished trial's parameters; -1 if there is none."""
        last = self.done - 1
        if stopping is None or not stopping.restore:
            return last
        best = np.where(self.host.begun, self.host.arrays.stopping.best_epoch, -1)
        return np.where(best >= 0, best, last)

    def failed(self) -> np.ndarray:
        """Return the step `(trials,)` at which a value was not finite; -1 if there was none."""
        failed = self.host.arrays.failed
        return np.full(len(self.done), -1) if failed is None else np.where(self.host.begun, failed, -1)


def advance(
    plan: Plan,
    state: SweepState,
    trials: Iterable[int],
    until: int,
    *,
    interrupted: Interruption | None = None,
    after_epoch: Callable[[SweepState], None] = lambda state: None,
) -> None:
    """Train trials up to an epoch, as many at a time as there are places.

    When a quarter of the places are free, waiting trials take them; when none wait and half are free, the number of
    places is halved.

    Args:
        plan: the sweep.
        state: the state of the sweep, which is updated in place.
        trials: the trials to run.
        until: the epoch up to which they run.
        interrupted: true as soon as the trials are to stop.
        after_epoch: called with the state after each epoch.
    """
    waiting = [trial for trial in trials if state.continues(trial, until) and trial not in state.placed]
    if state.placed:
        # Restored from a checkpoint: the same trials in the same places, so that the bits are the same.
        state.place(plan, state.placed, state.width)
    else:
        state.width = plan.places_for(len(waiting))
    while not interrupted:
        # Trials that have more epochs to run keep their places; those of the others are free.
        going = [trial for trial in state.placed if state.continues(trial, until)]
        if not going and not waiting:
            break
        free = state.width - len(going)
        width = state.width if waiting else plan.places_for(len(going))
        # Moving trials costs a copy to the host and back, so it waits until enough places are free.
        if (waiting and 4 * free >= state.width) or width < state.width:
            state.to_host()
            state.place(plan, going + waiting[:free], width)
            waiting = waiting[free:]
        # Places after those of the trials are never active.
        active = np.zeros(state.width, bool)
        active[: len(state.placed)] = [state.continues(trial, until) for trial in state.placed]
        assert state.on_devices is not None
        state.on_devices, rows, over = plan.run_epoch(state.occupants(), state.on_devices, active)
        state.record(active, *execution.on_host((rows, over)))
        after_epoch(state)
    state.clear()
