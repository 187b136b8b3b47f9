"""What the host knows of each member of a sweep while it runs."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.train.run import Run
from jaxnets.train.stopping import EarlyStopping
from jaxnets.train.sweeps import members as many
from jaxnets.train.sweeps.strategy import Team


class Ledger:
    """Where each member stands, what it has reported, and its run when it is not on the devices.

    Attributes:
        done: `(members,)`, how many segments each has run.
        over: `(members,)`, whether it goes no further.
        history: an array `(members, segments, ...)` for each name; what was not run is NaN, or -1 where there is none.
        runs: each member's run in the host's memory, `None` before it starts.
    """

    def __init__(self, members: int, segments: int) -> None:
        self.done = np.zeros(members, int)
        self.over = np.zeros(members, bool)
        self.history: dict[str, np.ndarray] = {}
        self.runs: list[Run | None] = [None] * members
        self.segments = segments

    def left(self, member: int, until: int) -> bool:
        """Tell whether a member has segments to run up to one."""
        return not self.over[member] and self.done[member] < until

    def note(self, members: Sequence[int], active: np.ndarray, rows: dict[str, np.ndarray], over: np.ndarray) -> None:
        """Write down a segment of those members that were active."""
        places = np.flatnonzero(active)
        who = np.asarray(members)[places]
        for name, values in rows.items():
            if name not in self.history:
                shape = (len(self.done), self.segments, *values.shape[1:])
                blank = np.nan if jnp.issubdtype(values.dtype, jnp.inexact) else -1
                self.history[name] = np.full(shape, blank, values.dtype)
            self.history[name][who, self.done[who]] = values[places]
        self.done[who] += 1
        self.over[who] = over[places]

    def reported(self, stopping: EarlyStopping | None) -> np.ndarray:
        """Return the segment `(members,)` that each finished run's values are from, -1 if there is none."""
        last = self.done - 1
        if stopping is None or not stopping.restore:
            return last
        best = [-1 if run is None else int(run.stopping.best_segment) for run in self.runs]
        return np.where(np.asarray(best) >= 0, best, last)

    def failed(self) -> np.ndarray:
        """Return the step `(members,)` at which a value was not finite, -1 if there was none."""
        return np.array([-1 if run is None or run.failed is None else int(run.failed) for run in self.runs])


def advance(
    team: Team,
    ledger: Ledger,
    members: Iterable[int],
    until: int,
    *,
    interrupted: Sequence[Any] = (),
    show: Callable[[Ledger], None] = lambda ledger: None,
) -> None:
    """Run members up to a segment, as many at a time as the team's width.

    When a quarter of the places have fallen free, those who wait take them; when none wait and half are free, the
    places are halved.

    Args:
        team: the sweep.
        ledger: where the members stand; it is written on.
        members: who is to run.
        until: up to which segment.
        interrupted: holds something as soon as the members are to stand where they are.
        show: called after each segment.
    """
    waiting = [member for member in members if ledger.left(member, until)]
    inside: list[int] = []
    runs, width = None, team.fitting(len(waiting))
    while not interrupted:
        going = [member for member in inside if ledger.left(member, until)]
        if not going and not waiting:
            break
        free, smaller = width - len(going), width if waiting else team.fitting(len(going))
        if (waiting and 4 * free >= width) or smaller < width:
            _store(ledger, inside, runs)
            inside, waiting = going + waiting[:free], waiting[free:]
            runs, width = _load(team, ledger, inside, smaller), smaller
        active = np.array([ledger.left(member, until) for member in inside] + [False] * (width - len(inside)))
        places = inside + inside[:1] * (width - len(inside))
        runs, rows, over = team.segment(places, runs, active)  # pyright: ignore[reportArgumentType]
        ledger.note(places, active, *jax.device_get((rows, over)))
        show(ledger)
    _store(ledger, inside, runs)


def _load(team: Team, ledger: Ledger, members: list[int], width: int) -> Run:
    """Return the members' runs on the devices, places filled up with the first."""
    found = [ledger.runs[member] or team.start(member) for member in members]
    return team.layout.place(many.stack(found + found[:1] * (width - len(found))))


def _store(ledger: Ledger, members: list[int], runs: Run | None) -> None:
    """Bring the members' runs back to the host's memory."""
    if runs is not None:
        held = many.on_host(runs)
        for place, member in enumerate(members):
            ledger.runs[member] = many.unstack(held, place)
