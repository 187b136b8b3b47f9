"""The runs of a sweep's trials in the host's memory."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.compiled import compiled
from jaxnets.sweeps import execution as many
from jaxnets.sweeps.strategy import Team
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.interruption import Interruption
from jaxnets.train.state import TrainState


class Held:
    """All trials' runs, stacked as NumPy arrays `(trials, ...)` that nobody else writes to.

    Attributes:
        like: the shapes of one run.
        arrays: the runs' leaves, keys as the words they are made of; zero for trials that have not begun.
        begun: `(trials,)`, which have.
    """

    def __init__(self, like: TrainState, trials: int) -> None:
        def blank(leaf: Any) -> np.ndarray:
            plain = jax.eval_shape(jax.random.key_data, leaf) if many.is_key(leaf) else leaf
            return np.zeros((trials, *plain.shape), plain.dtype)

        self.like, self.begun = like, np.zeros(trials, bool)
        self.arrays: TrainState = jax.tree.map(blank, like)

    def put(self, trials: Sequence[int] | np.ndarray, runs: TrainState) -> None:
        """Take stacked runs over from the devices; places beyond the trials' do not count."""

        def copy(own: np.ndarray, new: Any) -> None:
            own[trials] = (np.asarray(jax.random.key_data(new)) if many.is_key(new) else new)[: len(trials)]

        jax.tree.map(copy, self.arrays, many.on_host(runs, view=True))
        self.begun[trials] = True

    def take(self, trials: Sequence[int] | np.ndarray) -> TrainState:
        """Return copies of trials' runs, stacked."""
        return jax.tree.map(lambda own, like: _as(own[trials], like), self.arrays, self.like)

    def one(self, trial: int) -> TrainState:
        """Return a copy of a trial's run."""
        return jax.tree.map(lambda own, like: _as(np.array(own[trial]), like), self.arrays, self.like)


def _as(array: np.ndarray, like: Any) -> Any:
    if not many.is_key(like):
        return array
    # words become keys of the like's kind, which a shape tells to traced code alone
    kind: list[Any] = []
    jax.eval_shape(lambda key: kind.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(jnp.asarray(array), impl=kind[0])


class Ledger:
    """Where each trial stands, what it has reported, and its run when it is not on the devices.

    Attributes:
        done: `(trials,)`, how many epochs each has run.
        over: `(trials,)`, whether it goes no further.
        dropped: `(trials,)`, whether that is because others were better.
        judged: at which epoch they were last compared for that.
        history: an array `(trials, epochs, ...)` for each name; what was not run is NaN, or -1 where there is none.
        held: the trials' runs in the host's memory; see `hold`.
        inside: the trials that are being computed, by their places.
        width: how many places there are.
    """

    def __init__(self, team: Team) -> None:
        trials = len(team.keys)
        self.done = np.zeros(trials, int)
        self.over, self.dropped, self.judged = np.zeros(trials, bool), np.zeros(trials, bool), 0
        self.history: dict[str, np.ndarray] = {}
        self.held = Held(team.shared.run, trials)
        self.epochs = team.shared.epochs
        self.inside: list[int] = []
        self.width = 0
        self._placed: TrainState | None = None

    def left(self, trial: int, until: int) -> bool:
        """Tell whether a trial has epochs to run up to one."""
        return not self.over[trial] and self.done[trial] < until

    def note(self, trials: Sequence[int], active: np.ndarray, rows: dict[str, np.ndarray], over: np.ndarray) -> None:
        """Write down a epoch of those trials that were active."""
        places = np.flatnonzero(active)
        who = np.asarray(trials)[places]
        for name, values in rows.items():
            if name not in self.history:
                shape = (len(self.done), self.epochs, *values.shape[1:])
                blank = np.nan if jnp.issubdtype(values.dtype, jnp.inexact) else -1
                self.history[name] = np.full(shape, blank, values.dtype)
            self.history[name][who, self.done[who]] = values[places]
        self.done[who] += 1
        self.over[who] = over[places]

    def place(self, team: Team, inside: list[int], width: int) -> TrainState:
        """Put trials' runs on the devices, places filled up with the first, and return them."""
        new = [trial for trial in inside if not self.held.begun[trial]]
        if new == inside and width == team.width:  # as they are made, not by way of the host's memory
            runs = team.start(new, places=width)
        else:
            if new:
                self.held.put(new, team.start(new, places=team.width))
            runs = self.held.take(filled(inside, width))
        runs = team.layout.place(runs)
        self.inside, self.width = inside, width
        self._placed = runs
        return runs

    def moved(self, runs: TrainState) -> None:
        """Take note of the runs on the devices one epoch later."""
        self._placed = runs

    def hold(self) -> None:
        """Copy the runs on the devices to the host's memory."""
        if self._placed is not None:
            self.held.put(self.inside, self._placed)

    def clear(self) -> None:
        """Take all trials off the devices."""
        self.hold()
        self.inside, self._placed = [], None

    def stacked(self, *, stopping: EarlyStopping | None = None) -> TrainState:
        """Return all trials' runs in the host's memory as one; zero for those that have not begun.

        Args:
            stopping: if the trials end here, what may restore their best parameters.
        """
        runs = self.held.take(np.arange(len(self.done)))
        if stopping is None or not stopping.restore:
            return runs
        return many.on_host(compiled(many.finish, [stopping], [runs])(runs))

    def reported(self, stopping: EarlyStopping | None) -> np.ndarray:
        """Return the epoch `(trials,)` that each finished run's values are from, -1 if there is none."""
        last = self.done - 1
        if stopping is None or not stopping.restore:
            return last
        best = np.where(self.held.begun, self.held.arrays.stopping.best_segment, -1)
        return np.where(best >= 0, best, last)

    def failed(self) -> np.ndarray:
        """Return the step `(trials,)` at which a value was not finite, -1 if there was none."""
        failed = self.held.arrays.failed
        return np.full(len(self.done), -1) if failed is None else np.where(self.held.begun, failed, -1)


def filled(inside: list[int], width: int) -> list[int]:
    """Return which trial each place is given, those behind the last to the first."""
    return inside + inside[:1] * (width - len(inside))


def advance(
    team: Team,
    ledger: Ledger,
    trials: Iterable[int],
    until: int,
    *,
    interrupted: Interruption | None = None,
    show: Callable[[Ledger], None] = lambda ledger: None,
) -> None:
    """TrainState trials up to a epoch, as many at a time as the team's width.

    When a quarter of the places have fallen free, those who wait take them; when none wait and half are free, the
    places are halved.

    Args:
        team: the sweep.
        ledger: where the trials stand; it is written on.
        trials: who is to run.
        until: up to which epoch.
        interrupted: true as soon as the trials are to stand where they are.
        show: called after each epoch.
    """
    waiting = [trial for trial in trials if ledger.left(trial, until) and trial not in ledger.inside]
    if ledger.inside:  # as a checkpoint has it
        runs, width = ledger.place(team, ledger.inside, ledger.width), ledger.width
    else:
        runs, width = None, team.fitting(len(waiting))
    while not interrupted:
        going = [trial for trial in ledger.inside if ledger.left(trial, until)]
        if not going and not waiting:
            break
        free, smaller = width - len(going), width if waiting else team.fitting(len(going))
        if (waiting and 4 * free >= width) or smaller < width:
            ledger.hold()
            inside, waiting = going + waiting[:free], waiting[free:]
            runs, width = ledger.place(team, inside, smaller), smaller
        inside = ledger.inside
        active = np.array([ledger.left(trial, until) for trial in inside] + [False] * (width - len(inside)))
        places = filled(inside, width)
        runs, rows, over = team.run_epoch(places, runs, active)  # pyright: ignore[reportArgumentType]
        ledger.moved(runs)
        ledger.note(places, active, *many.on_host((rows, over)))
        show(ledger)
    ledger.clear()
