"""Many runs of one study as one: pure functions over runs stacked along a first axis `(trials, ...)`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, is_traced
from jaxnets.core.net import Key
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.names import Directions
from jaxnets.train.program import Program, halted
from jaxnets.train.state import TrainState
from jaxnets.train.streaming import refuse

UNKNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


@dataclass(frozen=True)
class Plain:
    """A study as it is given: it takes a trial's hyperparameters."""

    study: Callable[..., Program]

    @cached_property
    def ingredients(self) -> Ingredients:
        """What it is compared by, as it is now: a sweep asks in every epoch."""
        return Ingredients(self.study)

    def __call__(self, given: Any, trial: dict[str, Any]) -> Program:
        """Return the trial's program."""
        try:
            return self.study(trial)
        except AttributeError as error:
            if error.obj is trial:
                error.add_note(f"Hyperparameters are a dict: hp[{error.name!r}].")
            raise
        except KeyError as error:
            if error.args and error.args[0] not in trial:
                there = ", ".join(trial) or "none"
                error.add_note(f"If the study asks for a hyperparameter {error.args[0]!r}: the sweep has {there}.")
            raise


@dataclass(frozen=True)
class Layout:
    """How trials are computed together: what a compiled epoch is made for.

    Attributes:
        strategy: "vmap" computes trials side by side, "map" one after another.
        batch_size: for "map", how many trials are computed side by side in turn; `None` for one.
        mesh: the devices that trials are shared out to, or `None` for the default one.
    """

    strategy: Literal["vmap", "map"]
    batch_size: int | None = None
    mesh: Mesh | None = None

    @property
    def devices(self) -> int:
        """How many devices there are: trials come in multiples of it."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def platform(self) -> str:
        """What the devices are, such as "cpu"."""
        return jax.default_backend() if self.mesh is None else self.mesh.devices.flat[0].platform

    @property
    def alone(self) -> bool:
        """Whether each trial is computed by itself."""
        return self.strategy == "map" and self.batch_size in (None, 1)

    def place(self, tree: Any) -> Any:
        """Put what is stacked by trial on its devices."""
        return _put(self._sharding(self._trials()), tree)

    def place_whole(self, tree: Any) -> Any:
        """Put what all trials share on each device."""
        return _put(self._sharding(PartitionSpec()), tree)

    def _sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        return None if self.mesh is None else NamedSharding(self.mesh, spec)

    def _trials(self) -> PartitionSpec:
        return PartitionSpec() if self.mesh is None else PartitionSpec(self.mesh.axis_names)

    def over(self, one: Callable[[Any, Any], Any], shared: Any, trials: Any, seeds: int = 0) -> Any:
        """Return `one(shared, (own, run, goes))` for each of the trials; `epoch` describes `seeds`."""

        def local(shared: Any, trials: Any) -> Any:
            if self.strategy == "vmap" and seeds:
                return _in_step(partial(one, shared), trials, seeds)
            if self.strategy == "vmap":
                return jax.vmap(one, (None, 0))(shared, trials)
            return jax.lax.map(partial(one, shared), trials, batch_size=self.batch_size)

        if self.mesh is None:
            return local(shared, trials)
        spec = self._trials()
        sharded = jax.shard_map(
            local, mesh=self.mesh, in_specs=(PartitionSpec(), spec), out_specs=spec, check_vma=False
        )
        return sharded(shared, trials)


@dataclass(frozen=True)
class Shared:
    """What a study's programs have in common.

    Attributes:
        data: the arrays of the programs' data that do not depend on hyperparameters.
        epochs: how many epochs a run has.
        examples: how many examples a epoch learns from.
        stopping: when runs stop.
        directions: whether more or less of each reported value is better.
        run: the shapes of one run.
        network: the jaxpr of the network's application, as text.
        ranges: between which values each metric lies.
    """

    data: list[Any]
    epochs: int
    examples: int
    stopping: EarlyStopping | None
    directions: Directions
    run: TrainState
    network: str
    ranges: Mapping[str, tuple[float, float]]


def look(build: Plain, given: Any, trial: Any, key: Key) -> Shared:
    """Return what the programs of a study share, by tracing it once.

    Raises:
        NetError: if the study gives no program, or needs to know the value of a hyperparameter.
    """
    seen: dict[str, Any] = {}

    def start(given: Any, trial: Any, key: Key) -> TrainState:
        try:
            program = program_of(build, given, trial)
        except UNKNOWN as error:
            raise NetError(
                "expects a study that does not need to know a hyperparameter's value, since all trials are compiled "
                "as one: rates, strengths and the like may be swept, but sizes, counts and `if` may not; make a study "
                "for each of those"
            ) from error
        seen.update(epochs=program.epochs, examples=program.examples, stopping=program.stopping)
        seen["directions"] = program.recipe.directions
        seen["ranges"] = {name: metric.range for name, metric in program.recipe.metrics.items()}
        seen["data"] = [leaf for leaf in _leaves(program) if not is_traced(leaf)]
        run, x = program.start(key), jax.tree.map(lambda leaf: leaf[:1], program.train[0])
        seen["network"] = str(jax.make_jaxpr(program.recipe.net.apply)(run.params, run.state, x))
        return run

    run = jax.eval_shape(start, given, trial, key)
    return Shared(run=run, **seen)


def start(build: Plain, given: Any, data: Sequence[Any], trials: Any, keys: Key) -> TrainState:
    """Return stacked runs before their first step, each the bits that it has alone."""
    return jax.lax.map(lambda own: _bound(build, given, data, own[0]).start(own[1]), (trials, keys))


def alone(
    build: Plain, given: Any, data: Sequence[Any], trial: Any, run: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """Return one trial's run one epoch later, and what is reported of it."""
    return _bound(build, given, data, trial).run_epoch(run)


def run_epoch(
    build: Plain,
    layout: Layout,
    seeds: int,
    given: Any,
    data: Sequence[Any],
    trials: Any,
    runs: TrainState,
    active: Any,
) -> tuple[TrainState, dict[str, Any], Any]:
    """Return stacked runs one epoch later, what is reported of each, and which go no further.

    Args:
        build: the study.
        layout: how trials are computed together.
        seeds: if not 0, the active runs have taken the same number of steps, and the places are `(configurations,
            seeds)`, so that those of one seed learn from the same batches: side by side these are drawn once.
        given: what the study takes besides hyperparameters.
        data: the arrays of `look`.
        trials: hyperparameters, stacked.
        runs: stacked.
        active: `(trials,)`; a run that is not stays as it is.
    """

    def one(shared: Any, single: Any) -> tuple[TrainState, dict[str, Any], Any]:
        (given, data), (trial, run, goes) = shared, single
        go = _bound(build, given, data, trial).run_epoch
        if layout.alone:  # a branch that is not taken costs nothing
            go = jax.jit(go)  # traced once for both uses
            shapes = jax.eval_shape(go, run)[1]
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            run, row = jax.lax.cond(goes, go, lambda run: (run, nothing), run)
        else:  # both would be computed, and slower than the one
            new, row = go(run)
            run = jax.tree.map(partial(jnp.where, goes), new, run)
        over = halted(run)
        return run, row, jnp.zeros((), bool) if over is None else over

    return layout.over(one, (given, data), (trials, runs, active), seeds)


def _in_step(one: Callable[[Any], Any], trials: tuple[Any, TrainState, Any], seeds: int) -> Any:
    """Return `one((own, run, goes))` for each of the trials, with one key for all of a seed, and one step for all."""
    _, runs, active = trials
    step = runs.step[jnp.argmax(active)]

    def of_seed(together: Any, key: Key) -> Any:
        def of_one(single: Any) -> Any:
            own, run, goes = single
            new, row, over = one((own, replace(run, key=key, step=step), goes))
            return replace(new, step=jnp.where(goes, new.step, run.step)), row, over

        return jax.vmap(of_one)(together)

    folded = jax.tree.map(lambda leaf: leaf.reshape(-1, seeds, *leaf.shape[1:]), trials)
    found = jax.vmap(of_seed, (1, 0), 1)(folded, runs.key[:seeds])
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)


def finish(stopping: EarlyStopping, runs: TrainState) -> TrainState:
    """Return stacked runs with their best parameters, if stopping restores them."""
    return jax.vmap(stopping.finish)(runs)


def on_host(tree: Any, *, view: bool = False) -> Any:
    """Return copies in the host's memory, as NumPy arrays, whole in each process; keys stay JAX's.

    Args:
        tree: of arrays.
        view: whether the result may share memory with them: to be read before theirs is given away.
    """
    from jax.experimental.multihost_utils import process_allgather

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf if is_key(leaf) else np.asarray(leaf) if view else np.array(leaf)
        if is_key(leaf):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return np.array(process_allgather(leaf, tiled=True))

    return jax.tree.map(one, tree)


def concatenate(*parts: Any) -> Any:
    """Return stacked arrays in the host's memory one behind another."""
    return jnp.concatenate(parts) if is_key(parts[0]) else np.concatenate(parts)


def unstack(runs: TrainState, place: int) -> TrainState:
    """Return one of stacked runs in the host's memory."""
    return jax.tree.map(lambda leaf: leaf[place], runs)


def program_of(build: Plain, given: Any, trial: Any) -> Program:
    """Return a trial's program, with data that do not depend on the trial as known arrays, not as constants."""
    with jax.ensure_compile_time_eval():
        program = build(given, trial)
    if not isinstance(program, Program):
        hint = "end it with `return jn.train.program(...)`"
        raise NetError(f"expects a study that returns a Program, got {type(program).__name__}; {hint}")
    if program.stream is not None:
        raise refuse()
    return program


def _bound(build: Plain, given: Any, data: Sequence[Any], trial: Any) -> Program:
    """Return a trial's program with the data that were handed over in place of its own."""
    program = program_of(build, given, trial)
    handed = iter(data)
    leaves = [leaf if is_traced(leaf) else next(handed) for leaf in _leaves(program)]
    train, validation = jax.tree.unflatten(jax.tree.structure((program.train, program.validation)), leaves)
    return replace(program, train=train, validation=validation)


def _leaves(program: Program) -> list[Any]:
    return jax.tree.leaves((program.train, program.validation))


def _put(sharding: NamedSharding | None, tree: Any) -> Any:
    """Put what every process has whole on the devices of all."""
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(leaf: Any) -> Any:
        if is_key(leaf):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jax.make_array_from_callback(np.shape(leaf), sharding, np.asarray(leaf).__getitem__)

    return jax.tree.map(one, tree)


def is_key(leaf: Any) -> bool:
    """Tell whether an array is of random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
