"""How the trials of a sweep are computed: side by side or in turn, how many at a time, on which devices."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypedDict
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnets.core.compiled import Compiled, compiled
from jaxnets.core.errors import NetError, check_count
from jaxnets.sweeps import execution as many
from jaxnets.sweeps.execution import Layout, Plain, Shared
from jaxnets.train.state import TrainState

SMALL = 2**16  # parameters: what trials side by side read on a CPU, beyond that they lose more than they gain
COSTLY = re.compile(r"\b(conv_general_dilated|scan|while)\[")  # what is computed in turn there
FEW = 8  # trials a device: enough to tell what is faster, and not worth another compilation below
Strategy = Literal["vmap", "map", "measure"]
_measured: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()  # what was faster, by study


class Computed(TypedDict, total=False):
    """How the trials of a sweep are computed; `sweep` describes each."""

    strategy: Strategy | None
    batch_size: int | None
    chunk: int | None
    memory_budget: int | None
    mesh: Mesh | None


@dataclass(frozen=True)
class Team:
    """A sweep ready to run.

    Attributes:
        build: makes a trial's program of `given` and its own inputs.
        given: what the study takes besides hyperparameters, on the devices.
        inputs: each trial's hyperparameters, NumPy arrays `(trials,)`.
        keys: `(trials,)`.
        shared: what the programs have in common, its data on the devices.
        layout: how trials are computed together.
        width: how many are computed at a time, all devices together.
    """

    build: Plain
    given: Any
    inputs: Any
    keys: Any
    shared: Shared
    layout: Layout
    width: int

    def start(self, trials: list[int], *, places: int = 0) -> TrainState:
        """Return trials' runs before their first step, stacked.

        Args:
            trials: at least one.
            places: fill them up with the first to so many, that other numbers need no other program.
        """
        which = np.asarray(trials + trials[:1] * (places - len(trials)))
        own = jax.tree.map(lambda column: column[which], self.inputs)
        arrays = self.given, self.shared.data, own, self.keys[which]
        return compiled(many.start, [self.build], arrays)(*arrays)

    def run_epoch(
        self, trials: list[int], runs: TrainState, active: np.ndarray
    ) -> tuple[TrainState, dict[str, Any], Any]:
        """Return the runs one epoch later, what is reported, and which go no further.

        Args:
            trials: which trial each of the runs is.
            runs: stacked, on the devices; their memory is given away.
            active: which of them go on.
        """
        function, arrays = self.compiled(trials, runs, active)
        return function(*arrays)

    def compiled(self, trials: list[int], runs: TrainState, active: np.ndarray) -> tuple[Compiled, tuple[Any, ...]]:
        """Return the function that `epoch` calls, and what it calls it with."""
        own = jax.tree.map(lambda column: column[np.asarray(trials)], self.inputs)
        placed, goes = self.layout.place((own, active))
        arrays = self.given, self.shared.data, placed, runs, goes
        seeds = self._seeds(trials) if self.layout.strategy == "vmap" else 0
        return compiled(many.run_epoch, [self.build, self.layout, seeds], arrays, donate=(3,)), arrays

    def _seeds(self, trials: list[int]) -> int:
        """Return how many seeds the places are laid out in, configuration by configuration; 0 if they are not.

        Only where nobody waits for a place, so that all who have one are at the same step.
        """
        here = self.kinds[np.asarray(trials)].reshape(self.layout.devices, -1)
        count = len(np.unique(here))
        if self.width < len(self.keys) or here.shape[1] % count:
            return 0
        rows = here.reshape(-1, count)
        return count if (rows == rows[0]).all() and len(np.unique(rows[0])) == count else 0

    @cached_property
    def kinds(self) -> np.ndarray:
        """Return each trial's key as a small number, equal for equal keys."""
        words = np.asarray(jax.random.key_data(self.keys))
        return np.unique(words, axis=0, return_inverse=True)[1].reshape(-1)

    def fitting(self, trials: int) -> int:
        """Return how many places some trials need: halves of the width, so that few sizes are compiled.

        In turn, places that are not active cost nothing, and the width stays.
        """
        width = self.width
        while self.layout.strategy == "vmap" and width > FEW * self.layout.devices:
            half = _up(-(-width // 2), self.layout.devices)
            if half < trials:
                break
            width = half
        return width


def prepare(
    build: Plain,
    given: Any,
    inputs: Any,
    keys: Any,
    *,
    strategy: Strategy | None = None,
    batch_size: int | None = None,
    chunk: int | None = None,
    memory_budget: int | None = None,
    mesh: Mesh | None = None,
) -> Team:
    """Return a sweep ready to run; `sweep` describes the options."""
    if strategy not in ("vmap", "map", "measure", None):
        raise NetError(f"expects strategy 'vmap', 'map', 'measure' or None, got {strategy!r}")
    for name, count in (("batch_size", batch_size), ("chunk", chunk), ("memory_budget", memory_budget)):
        if count is not None:
            check_count(name, count)
    if batch_size is not None and strategy != "map":
        raise NetError(f"expects strategy='map' with batch_size={batch_size}: vmap takes all trials of a chunk at once")
    total = len(keys)
    layout = Layout(
        strategy if strategy in ("vmap", "map") else "vmap",
        batch_size,
        mesh if mesh is not None else _all_devices(total),
    )
    first = jax.tree.map(lambda column: column[0], inputs)
    shared = many.look(build, given, first, keys[0])
    shared = replace(shared, data=layout.place_whole(shared.data))
    width = _even(total, chunk or total, layout.devices)
    team = Team(build, layout.place_whole(given), inputs, keys, shared, layout, width)
    if strategy is None and layout.platform == "cpu":
        team = replace(team, layout=replace(layout, strategy=_known(shared)))
    elif strategy in ("measure", None) and width > layout.devices:
        known = _measured.setdefault(build.study, {})
        kind = (
            tuple(leaf.shape for leaf in jax.tree.leaves(shared.run)),
            layout.mesh,
            min(width, FEW * layout.devices),
        )
        if kind not in known:
            known[kind] = _faster(team)
        team = replace(team, layout=replace(layout, strategy=known[kind]))
    if memory_budget is None and width > FEW * layout.devices:
        memory_budget = _free_memory()
    if memory_budget is not None:
        team = replace(team, width=_within(team, memory_budget, width, total))
    return team


def _free_memory() -> int | None:
    """Return what a device that says how much memory it has can spare, but for a reserve of a fifth."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(0.8 * (stats["bytes_limit"] - stats["bytes_in_use"])) if "bytes_limit" in stats else None


def _all_devices(trials: int) -> Mesh | None:
    devices = jax.local_devices()[:trials]
    return Mesh(np.array(devices), ("trials",)) if len(devices) > 1 else None


def _even(trials: int, at_a_time: int, devices: int) -> int:
    """Return how many trials to take at a time, so that the last time is as full as can be."""
    times = -(-trials // min(at_a_time, trials))
    return _up(-(-trials // times), devices)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _few(team: Team) -> tuple[list[int], Callable[[], TrainState], np.ndarray]:
    """Return some trials, a function that puts their runs on the devices, and that all are active."""
    places = [place % len(team.keys) for place in range(min(team.width, FEW * team.layout.devices))]
    started = team.start(places)

    def runs() -> TrainState:  # made anew each time: a epoch gives their memory away
        return team.layout.place(jax.tree.map(jnp.copy, started))

    return places, runs, np.ones(len(places), bool)


def _known(shared: Shared) -> Literal["vmap", "map"]:
    """Return what was faster on CPUs: side by side for small networks of products alone, in turn for all others."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shared.run.params))
    return "vmap" if parameters <= SMALL and not COSTLY.search(shared.network) else "map"


def _faster(team: Team) -> Literal["vmap", "map"]:
    """Return what takes less time for one epoch of a few trials, as measured."""
    trials, runs, active = _few(team)
    seconds = {}
    for strategy in ("vmap", "map"):
        own = replace(team, layout=replace(team.layout, strategy=strategy))
        jax.block_until_ready(own.run_epoch(trials, runs(), active))  # compiles
        times = []
        while len(times) < 5 and sum(times) < 0.2:
            placed = jax.block_until_ready(runs())
            began = time.perf_counter()
            jax.block_until_ready(own.run_epoch(trials, placed, active))
            times.append(time.perf_counter() - began)
        seconds[strategy] = min(times)
    return "vmap" if seconds["vmap"] <= seconds["map"] else "map"


def _within(team: Team, budget: int, width: int, total: int) -> int:
    """Return how many trials fit a budget of bytes a device, by what the compiler says a few of them need."""
    trials, runs, active = _few(team)
    function, arrays = team.compiled(trials, runs(), active)
    devices, each = team.layout.devices, len(trials) // team.layout.devices
    whole = _bytes((team.shared.data, team.given))
    single = _bytes(team.shared.run)
    needs = function.trace(*arrays).lower().compile().memory_analysis()
    scratch = 0 if needs is None else needs.temp_size_in_bytes
    if team.layout.strategy == "vmap":
        fixed, single = whole, 2 * single + scratch // each
    else:
        fixed, single = whole + scratch, 2 * single
    fit = (budget - fixed) // single
    if fit < 1:
        raise NetError(
            f"expects memory_budget for one trial at least, {fixed + single:,} bytes a device, got {budget:,}"
        )
    return _even(total, min(width, fit * devices), devices)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
