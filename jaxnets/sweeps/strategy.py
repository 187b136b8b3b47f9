"""How the trials of a sweep are computed: side by side or one after another, how many at a time, on which devices."""

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
from jaxnets.sweeps import execution
from jaxnets.sweeps.execution import Builder, Layout, Shared
from jaxnets.sweeps.space import Design
from jaxnets.train.state import TrainState

# On a CPU, "vmap" is faster up to this many parameters; experiments/benchmarks/sweep_strategy.py measures it.
SMALL = 2**16
# Primitives for which "map" is faster on a CPU.
EXPENSIVE = frozenset({"conv_general_dilated", "scan", "while"})
# Trials per device: enough for a measurement, and too few for a smaller width to be worth another compilation.
FEW = 8
Strategy = Literal["vmap", "map", "measure"]
# The faster strategy, by trial function.
_measured: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


class ExecutionOptions(TypedDict, total=False):
    """How the trials of a sweep are computed; `sweep` describes each."""

    strategy: Strategy | None
    batch_size: int | None
    chunk: int | None
    memory_budget: int | None
    mesh: Mesh | None


@dataclass(frozen=True)
class Plan:
    """A sweep that is ready to run.

    A *place* is a position along the first axis of the stacked train states; trials occupy places.

    Attributes:
        builder: builds a trial's program from `extra` and its own inputs.
        extra: what all trials get besides hyperparameters, on the devices.
        design: the trials.
        shared: what all programs have in common, its data on the devices.
        layout: how trials are computed together.
        width: how many places there are at most, on all devices together.
    """

    builder: Builder
    extra: Any
    design: Design
    shared: Shared
    layout: Layout
    width: int

    @cached_property
    def inputs(self) -> Any:
        """The builder's inputs for each trial, NumPy arrays `(trials,)`."""
        return self.builder.inputs(self.design)

    def inputs_of(self, trials: list[int] | np.ndarray | int) -> Any:
        """Return the inputs of some trials, stacked, or of a single trial."""
        return jax.tree.map(lambda column: column[np.asarray(trials)], self.inputs)

    def start(self, trials: list[int], *, places: int = 0) -> TrainState:
        """Return trials' states before their first step, stacked.

        Args:
            trials: at least one.
            places: repeat the first trial up to this many places, so that fewer trials need no other compilation.
        """
        which = np.asarray(trials + trials[:1] * (places - len(trials)))
        arrays = self.extra, self.shared.data, self.inputs_of(which), self.design.keys[which]
        return compiled(execution.start, [self.builder], arrays, by_program=True)(*arrays)

    def run_epoch(
        self, trials: list[int], states: TrainState, active: np.ndarray
    ) -> tuple[TrainState, dict[str, Any], Any]:
        """Return the states one epoch later, the values that they report, and which are over.

        Args:
            trials: the trial in each place.
            states: stacked, on the devices; they are donated.
            active: `(places,)`; inactive places keep their state.
        """
        function, arrays = self.compiled(trials, states, active)
        return function(*arrays)

    def compiled(self, trials: list[int], states: TrainState, active: np.ndarray) -> tuple[Compiled, tuple[Any, ...]]:
        """Return the function that `run_epoch` calls, and its arguments."""
        inputs, active = self.layout.place((self.inputs_of(trials), active))
        arrays = self.extra, self.shared.data, inputs, states, active
        seeds = self._seeds(trials) if self.layout.strategy == "vmap" else 0
        static = [self.builder, self.layout, seeds]
        return compiled(execution.run_epoch, static, arrays, donate=(3,), by_program=True), arrays

    def _seeds(self, trials: list[int]) -> int:
        """Return the number of seeds if each device's places are a table `(configurations, seeds)`, otherwise 0."""
        # If there are fewer places than trials, those in them are at different steps.
        if self.width < len(self.design):
            return 0
        # (devices, places per device)
        here = self.seed_numbers[np.asarray(trials)].reshape(self.layout.devices, -1)
        count = len(np.unique(here))
        if here.shape[1] % count:
            return 0
        # (configurations, seeds)
        rows = here.reshape(-1, count)
        # Each row must be the same permutation of all seeds.
        return count if (rows == rows[0]).all() and len(np.unique(rows[0])) == count else 0

    @cached_property
    def seed_numbers(self) -> np.ndarray:
        """Each trial's key and choice of data as a small number, equal for equal ones."""
        chosen = [np.asarray(self.inputs[name])[:, None] for name in self.builder.data_inputs]
        words = np.hstack([np.asarray(jax.random.key_data(self.design.keys)), *chosen])
        return np.unique(words, axis=0, return_inverse=True)[1].reshape(-1)

    def places_for(self, trials: int) -> int:
        """Return how many places to use: the width, halved while the trials fit, so that few widths are compiled."""
        width = self.width
        # With "map", an idle place costs nothing, and the width is kept.
        while self.layout.strategy == "vmap" and width > FEW * self.layout.devices:
            half = _round_up(-(-width // 2), self.layout.devices)
            if half < trials:
                break
            width = half
        return width


def prepare(
    builder: Builder,
    extra: Any,
    design: Design,
    *,
    strategy: Strategy | None = None,
    batch_size: int | None = None,
    chunk: int | None = None,
    memory_budget: int | None = None,
    mesh: Mesh | None = None,
) -> Plan:
    """Return a sweep that is ready to run. `Plan` describes the arguments, `sweep` the options.

    Raises:
        NetError: as in `sweep`.
    """
    check_options(strategy, batch_size=batch_size, chunk=chunk, memory_budget=memory_budget)
    if batch_size is not None and strategy != "map":
        raise NetError(f"expects strategy='map' with batch_size={batch_size}: vmap takes all trials of a chunk at once")
    mesh = mesh if mesh is not None else _all_devices(len(design))
    layout = Layout("map" if strategy == "map" else "vmap", batch_size, mesh)
    # The programs of all trials have the same shapes, so one trial is traced.
    shared = execution.trace_shared(builder, extra, design)
    shared = replace(shared, data=layout.replicate(shared.data))
    width = _even(len(design), chunk or len(design), layout.devices)
    plan = Plan(builder, layout.replicate(extra), design, shared, layout, width)
    # On CPU a rule chooses the strategy. Elsewhere, or if asked for, a few trials are measured, unless each device has
    # only one.
    if strategy is None and layout.platform == "cpu":
        plan = replace(plan, layout=replace(layout, strategy=_faster_on_cpu(shared)))
    elif strategy in ("measure", None) and width > layout.devices:
        # Measured once for each trial function, network and number of places.
        known = _measured.setdefault(builder.trial_fn, {})
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(shared.state))
        kind = shapes, mesh, min(width, FEW * layout.devices)
        if kind not in known:
            known[kind] = _measure_faster(plan)
        plan = replace(plan, layout=replace(layout, strategy=known[kind]))
    # Few trials are assumed to fit; otherwise as many run at a time as free memory allows.
    if memory_budget is None and width > FEW * layout.devices:
        memory_budget = _free_memory()
    if memory_budget is not None:
        plan = replace(plan, width=_within(plan, memory_budget))
    return plan


def check_options(strategy: Any, **counts: int | None) -> None:
    """Check the strategy, and counts by name.

    Raises:
        NetError: if one of them is none of those that `sweep` takes.
    """
    if strategy not in ("vmap", "map", "measure", None):
        raise NetError(f"expects strategy 'vmap', 'map', 'measure' or None, got {strategy!r}")
    for name, count in counts.items():
        if count is not None:
            check_count(name, count)


def _free_memory() -> int | None:
    """Return four fifths of a device's free memory, or `None` where the device does not report it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(0.8 * (stats["bytes_limit"] - stats["bytes_in_use"])) if "bytes_limit" in stats else None


def _all_devices(trials: int) -> Mesh | None:
    devices = jax.local_devices()[:trials]
    return Mesh(np.array(devices), ("trials",)) if len(devices) > 1 else None


def _even(trials: int, most: int, devices: int) -> int:
    """Return how many trials to run at a time, at most `most`, so that the chunks are about equal in size."""
    times = -(-trials // min(most, trials))
    return _round_up(-(-trials // times), devices)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _few(plan: Plan) -> tuple[list[int], Callable[[], TrainState], np.ndarray]:
    """Return some trials, a function that puts their states on the devices, and `active` with all of them."""
    trials = [place % len(plan.design) for place in range(min(plan.width, FEW * plan.layout.devices))]
    started = plan.start(trials)

    # Copies, since an epoch donates its states.
    def states() -> TrainState:
        return plan.layout.place(jax.tree.map(jnp.copy, started))

    return trials, states, np.ones(len(trials), bool)


def _faster_on_cpu(shared: Shared) -> Literal["vmap", "map"]:
    """Return the faster strategy on CPUs: "vmap" for small networks of matrix products, "map" for others."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shared.state.params))
    return "vmap" if parameters <= SMALL and not EXPENSIVE & shared.primitives else "map"


def _measure_faster(plan: Plan) -> Literal["vmap", "map"]:
    """Return the strategy that takes less time for one epoch of a few trials."""
    trials, states, active = _few(plan)
    seconds = {}
    for strategy in ("vmap", "map"):
        with_strategy = replace(plan, layout=replace(plan.layout, strategy=strategy))
        # The first call compiles.
        jax.block_until_ready(with_strategy.run_epoch(trials, states(), active))
        times = []
        while len(times) < 5 and sum(times) < 0.2:
            # Each epoch gets new copies, made before the clock starts.
            placed = jax.block_until_ready(states())
            began = time.perf_counter()
            jax.block_until_ready(with_strategy.run_epoch(trials, placed, active))
            times.append(time.perf_counter() - began)
        seconds[strategy] = min(times)
    return "vmap" if seconds["vmap"] <= seconds["map"] else "map"


def _within(plan: Plan, budget: int) -> int:
    """Return how many trials fit a budget of bytes per device, by the compiler's memory analysis of a few trials."""
    trials, states, active = _few(plan)
    function, arrays = plan.compiled(trials, states(), active)
    analysis = function.executable(*arrays).memory_analysis()
    scratch = 0 if analysis is None else analysis.temp_size_in_bytes
    devices = plan.layout.devices
    # A fixed part, and a part per trial: its state, as input and as output.
    fixed, each = _bytes((plan.shared.data, plan.extra)), 2 * _bytes(plan.shared.state)
    # With "vmap", each trial has its own scratch memory; with "map", they share it.
    if plan.layout.strategy == "vmap":
        each += scratch // (len(trials) // devices)
    else:
        fixed += scratch
    fit = (budget - fixed) // each
    if fit < 1:
        need = f"{fixed + each:,} bytes per device"
        raise NetError(f"expects memory_budget for at least one trial, {need}, got {budget:,}")
    return _even(len(plan.design), min(plan.width, fit * devices), devices)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
