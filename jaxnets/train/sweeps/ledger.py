"""What the host knows of each member of a sweep while it runs."""

from collections.abc import Callable, Iterable, Sequence

import jax.numpy as jnp
import numpy as np

from jaxnets.compiled import compiled
from jaxnets.train.interruption import Interruption
from jaxnets.train.run import Run
from jaxnets.train.stopping import EarlyStopping
from jaxnets.train.sweeps import members as many
from jaxnets.train.sweeps.held import Held
from jaxnets.train.sweeps.strategy import Team


class Ledger:
    """Where each member stands, what it has reported, and its run when it is not on the devices.

    Attributes:
        done: `(members,)`, how many segments each has run.
        over: `(members,)`, whether it goes no further.
        dropped: `(members,)`, whether that is because others were better.
        judged: at which segment they were last compared for that.
        history: an array `(members, segments, ...)` for each name; what was not run is NaN, or -1 where there is none.
        held: the members' runs in the host's memory; see `hold`.
        inside: the members that are being computed, by their places.
        width: how many places there are.
    """

    def __init__(self, team: Team) -> None:
        members = len(team.keys)
        self.done = np.zeros(members, int)
        self.over, self.dropped, self.judged = np.zeros(members, bool), np.zeros(members, bool), 0
        self.history: dict[str, np.ndarray] = {}
        self.held = Held(team.shared.run, members)
        self.segments = team.shared.segments
        self.inside: list[int] = []
        self.width = 0
        self._placed: Run | None = None

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

    def place(self, team: Team, inside: list[int], width: int) -> Run:
        """Put members' runs on the devices, places filled up with the first, and return them."""
        new = [member for member in inside if not self.held.begun[member]]
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

    def moved(self, runs: Run) -> None:
        """Take note of the runs on the devices one segment later."""
        self._placed = runs

    def hold(self) -> None:
        """Copy the runs on the devices to the host's memory."""
        if self._placed is not None:
            self.held.put(self.inside, self._placed)

    def clear(self) -> None:
        """Take all members off the devices."""
        self.hold()
        self.inside, self._placed = [], None

    def stacked(self, *, stopping: EarlyStopping | None = None) -> Run:
        """Return all members' runs in the host's memory as one; zero for those that have not begun.

        Args:
            stopping: if the members end here, what may restore their best parameters.
        """
        runs = self.held.take(np.arange(len(self.done)))
        if stopping is None or not stopping.restore:
            return runs
        return many.on_host(compiled(many.finish, [stopping], [runs])(runs))

    def reported(self, stopping: EarlyStopping | None) -> np.ndarray:
        """Return the segment `(members,)` that each finished run's values are from, -1 if there is none."""
        last = self.done - 1
        if stopping is None or not stopping.restore:
            return last
        best = np.where(self.held.begun, self.held.arrays.stopping.best_segment, -1)
        return np.where(best >= 0, best, last)

    def failed(self) -> np.ndarray:
        """Return the step `(members,)` at which a value was not finite, -1 if there was none."""
        failed = self.held.arrays.failed
        return np.full(len(self.done), -1) if failed is None else np.where(self.held.begun, failed, -1)


def filled(inside: list[int], width: int) -> list[int]:
    """Return which member each place is given, those behind the last to the first."""
    return inside + inside[:1] * (width - len(inside))


def advance(
    team: Team,
    ledger: Ledger,
    members: Iterable[int],
    until: int,
    *,
    interrupted: Interruption | None = None,
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
        interrupted: true as soon as the members are to stand where they are.
        show: called after each segment.
    """
    waiting = [member for member in members if ledger.left(member, until) and member not in ledger.inside]
    if ledger.inside:  # as a checkpoint has it
        runs, width = ledger.place(team, ledger.inside, ledger.width), ledger.width
    else:
        runs, width = None, team.fitting(len(waiting))
    while not interrupted:
        going = [member for member in ledger.inside if ledger.left(member, until)]
        if not going and not waiting:
            break
        free, smaller = width - len(going), width if waiting else team.fitting(len(going))
        if (waiting and 4 * free >= width) or smaller < width:
            ledger.hold()
            inside, waiting = going + waiting[:free], waiting[free:]
            runs, width = ledger.place(team, inside, smaller), smaller
        inside = ledger.inside
        active = np.array([ledger.left(member, until) for member in inside] + [False] * (width - len(inside)))
        places = filled(inside, width)
        runs, rows, over = team.segment(places, runs, active)  # pyright: ignore[reportArgumentType]
        ledger.moved(runs)
        ledger.note(places, active, *many.on_host((rows, over)))
        show(ledger)
    ledger.clear()
