"""The trials of a sweep as pure functions over train states stacked along a first axis `(trials, ...)`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, is_traced
from jaxnets.core.net import Key
from jaxnets.sweeps.space import Design, inputs
from jaxnets.tracing.jaxprs import primitives
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.epoch import halted
from jaxnets.train.names import Directions
from jaxnets.train.program import Program
from jaxnets.train.state import TrainState, is_key
from jaxnets.train.streaming import refuse

# Errors of JAX where Python code needs the value of a traced array.
NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


@dataclass(frozen=True)
class Builder:
    """Builds the program of a trial by calling a trial function with its hyperparameters."""

    trial_fn: Callable[..., Program]

    # The names of inputs that choose a trial's data, if any: trials with equal ones are computed side by side.
    data_inputs: ClassVar[tuple[str, ...]] = ()

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which builders are compared; computed once, since a sweep reads it in each epoch."""
        return Ingredients(self.trial_fn)

    def inputs(self, design: Design) -> Any:
        """Return the arguments of the trial function for all trials, stacked."""
        return inputs(design.hp)

    def __call__(self, extra: Any, inputs: dict[str, Any]) -> Program:
        """Return the program of one trial.

        Args:
            extra: what all trials get besides hyperparameters; nothing here.
            inputs: the trial's hyperparameters.
        """
        try:
            return self.trial_fn(inputs)
        except AttributeError as error:
            if error.obj is inputs:
                error.add_note(f"Hyperparameters are a dict: hp[{error.name!r}].")
            raise
        except KeyError as error:
            if error.args and error.args[0] not in inputs:
                names = ", ".join(inputs) or "none"
                error.add_note(
                    f"If {error.args[0]!r} is a hyperparameter that the trial function reads: the sweep has {names}."
                )
            raise


@dataclass(frozen=True)
class Layout:
    """How trials are computed together. An epoch is compiled for one layout.

    Attributes:
        strategy: "vmap" computes trials side by side, "map" one after another.
        batch_size: for "map", how many trials are computed at a time; `None` for one.
        mesh: the devices that trials are distributed over; `None` for the default device.
    """

    strategy: Literal["vmap", "map"]
    batch_size: int | None = None
    mesh: Mesh | None = None

    @property
    def devices(self) -> int:
        """How many devices there are; the number of places is a multiple of this."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def platform(self) -> str:
        """The kind of the devices, such as "cpu"."""
        return jax.default_backend() if self.mesh is None else self.mesh.devices.flat[0].platform

    @property
    def alone(self) -> bool:
        """Whether each trial is computed separately."""
        return self.strategy == "map" and self.batch_size in (None, 1)

    def place(self, tree: Any) -> Any:
        """Put arrays that are stacked by trial on the devices, each device with its own trials."""
        return _put(self._sharding(self._by_trial()), tree)

    def replicate(self, tree: Any) -> Any:
        """Put arrays that all trials share on each device."""
        return _put(self._sharding(PartitionSpec()), tree)

    def _sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        return None if self.mesh is None else NamedSharding(self.mesh, spec)

    def _by_trial(self) -> PartitionSpec:
        return PartitionSpec() if self.mesh is None else PartitionSpec(self.mesh.axis_names)

    def over_trials(
        self, one: Callable[[Any, Any], Any], shared: Any, trials: Any, seeds: int, data_inputs: tuple[str, ...]
    ) -> Any:
        """Return `one(shared, (inputs, state, active))` for each stacked trial; `run_epoch` explains `seeds`."""

        def local(shared: Any, trials: Any) -> Any:
            if self.strategy == "map":
                return jax.lax.map(partial(one, shared), trials, batch_size=self.batch_size)
            # With the same seeds in each configuration, what depends only on the seed is computed once.
            if seeds:
                return _vmap_by_seed(partial(one, shared), trials, seeds, data_inputs)
            return jax.vmap(one, (None, 0))(shared, trials)

        if self.mesh is None:
            return local(shared, trials)
        # Trials don't communicate, so each device runs its own part. `check_vma` can't follow the mix of replicated and
        # distributed values inside the user's network.
        spec = self._by_trial()
        sharded = jax.shard_map(
            local, mesh=self.mesh, in_specs=(PartitionSpec(), spec), out_specs=spec, check_vma=False
        )
        return sharded(shared, trials)


@dataclass(frozen=True)
class Shared:
    """What the programs of all trials have in common.

    Attributes:
        data: the arrays of the programs' data that do not depend on hyperparameters.
        epochs: how many epochs a trial has.
        stopping: the programs' early stopping, if any.
        directions: whether a lower or a higher value is better for each reported name.
        state: the shapes of one train state.
        primitives: the names of the primitives in the network's `apply`.
    """

    data: list[Any]
    epochs: int
    stopping: EarlyStopping | None
    directions: Directions
    state: TrainState
    primitives: frozenset[str]


def trace_shared(builder: Builder, extra: Any, design: Design) -> Shared:
    """Return what the programs of all trials have in common, by tracing the first one.

    Raises:
        NetError: if the trial function does not return a program, or needs to know the value of a hyperparameter.
    """
    seen: dict[str, Any] = {}
    # In the trace below, `extra` holds traced arrays.
    known, first = extra, jax.tree.map(lambda column: column[0], builder.inputs(design))

    def start(extra: Any, inputs: Any, key: Key) -> TrainState:
        try:
            program = build_program(builder, extra, inputs)
        except NEEDS_VALUE as error:
            needed = _needed(builder, known, first) or "a hyperparameter"
            raise NetError(
                f"expects a trial function that does not need to know the value of {needed}, since all trials are "
                "compiled as one: sweep over rates and strengths, but not over sizes, counts or what an `if` depends "
                "on; run a sweep for each of those"
            ) from error
        seen.update(epochs=program.epochs, stopping=program.stopping)
        seen["directions"] = program.recipe.directions
        # Data that depend on hyperparameters are traced here, and are computed again wherever the program is built.
        seen["data"] = [leaf for leaf in _data_leaves(program) if not is_traced(leaf)]
        state, x = program.start(key), jax.tree.map(lambda leaf: leaf[:1], program.train[0])
        seen["primitives"] = primitives(jax.make_jaxpr(program.recipe.net.apply)(state.params, state.state, x))
        return state

    state = jax.eval_shape(start, extra, first, design.keys[0])
    return Shared(state=state, **seen)


def _needed(builder: Builder, extra: Any, inputs: Any) -> str:
    """Return the hyperparameters whose values a trial function must know: it fails if only that one is traced."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(inputs)
    needed = list[str]()
    for place, (path, leaf) in enumerate(leaves):

        def build(traced: Any, place: int = place) -> None:
            values = [traced if number == place else value for number, (_, value) in enumerate(leaves)]
            build_program(builder, extra, jax.tree.unflatten(structure, values))

        try:
            jax.eval_shape(build, leaf)
        except NEEDS_VALUE:
            needed.append(f"hp[{path[-1].key!r}]")
    return " and ".join(needed)


def start(builder: Builder, extra: Any, data: Sequence[Any], inputs: Any, keys: Key) -> TrainState:
    """Return stacked train states before their first step."""
    # One after another, not side by side: each trial then starts from the same bits as a single run.
    return jax.lax.map(lambda trial: _with_data(builder, extra, data, trial[0]).start(trial[1]), (inputs, keys))


def run_epoch_alone(
    builder: Builder, extra: Any, data: Sequence[Any], inputs: Any, state: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """Return one trial's state one epoch later, and the values that it reports."""
    return _with_data(builder, extra, data, inputs).run_epoch(state)


def run_epoch(
    builder: Builder,
    layout: Layout,
    seeds: int,
    extra: Any,
    data: Sequence[Any],
    inputs: Any,
    states: TrainState,
    active: Any,
) -> tuple[TrainState, dict[str, Any], Any]:
    """Return stacked train states one epoch later, the values that each reports, and which are over.

    Args:
        builder: builds the trials' programs.
        layout: how trials are computed together.
        seeds: the number of seeds if places are laid out as `(configurations, seeds)` and all active trials have taken
            the same number of steps, otherwise 0. The batches of a seed are then drawn once for all configurations.
        extra: what all trials get besides hyperparameters.
        data: the arrays that `trace_shared` found.
        inputs: each trial's hyperparameters, stacked.
        states: the trials' train states, stacked.
        active: `(trials,)`; inactive trials keep their state.
    """

    def one(shared: Any, trial: Any) -> tuple[TrainState, dict[str, Any], Any]:
        (extra, data), (inputs, state, active) = shared, trial
        epoch = _with_data(builder, extra, data, inputs).run_epoch
        if layout.alone:
            # `cond` skips an inactive trial at no cost. `jit` traces the epoch once for its shapes and for the branch.
            epoch = jax.jit(epoch)
            shapes = jax.eval_shape(epoch, state)[1]
            # An inactive trial reports zeros, which the host does not read.
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            state, row = jax.lax.cond(active, epoch, lambda state: (state, nothing), state)
        else:
            # Under vmap `cond` would compute both branches and select; only selecting is faster.
            new, row = epoch(state)
            state = jax.tree.map(partial(jnp.where, active), new, state)
        over = halted(state)
        return state, row, jnp.zeros((), bool) if over is None else over

    return layout.over_trials(one, (extra, data), (inputs, states, active), seeds, builder.data_inputs)


def _vmap_by_seed(
    one: Callable[[Any], Any], trials: tuple[Any, TrainState, Any], seeds: int, data_inputs: tuple[str, ...]
) -> Any:
    """Return `one((inputs, state, active))` for each trial, with one key for each seed and one step number for all.

    What an epoch draws depends only on its key and step. As these are not batched over configurations, `vmap` computes
    the order of the examples, and everything else that depends only on key and step, once per seed. The same holds for
    the inputs `data_inputs`, and for what they choose.
    """
    _, states, active = trials
    # The step of the first active place: inactive ones may be behind.
    step = states.step[jnp.argmax(active)]

    def of_seed(trials: Any, key: Key, chosen: dict[str, Any]) -> Any:
        def of_configuration(trial: Any) -> Any:
            inputs, state, active = trial
            inputs = {**inputs, **chosen} if chosen else inputs
            new, row, over = one((inputs, replace(state, key=key, step=step), active))
            # An inactive trial keeps its own step.
            return replace(new, step=jnp.where(active, new.step, state.step)), row, over

        return jax.vmap(of_configuration)(trials)

    # (trials, ...) → (seeds, configurations, ...)
    folded = jax.tree.map(lambda leaf: leaf.reshape(-1, seeds, *leaf.shape[1:]).swapaxes(0, 1), trials)
    # All configurations have the keys of the first.
    chosen = {name: trials[0][name][:seeds] for name in data_inputs}
    if chosen:
        # One data set after another: a batch is then multiplied by the kernels of all configurations at once.
        result = jax.lax.map(lambda each: of_seed(*each), (folded, states.key[:seeds], chosen))
    else:
        result = jax.vmap(of_seed)(folded, states.key[:seeds], chosen)
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]), result)


def finish(stopping: EarlyStopping, states: TrainState) -> TrainState:
    """Return stacked train states with their best parameters, if early stopping restores them."""
    return jax.vmap(stopping.finish)(states)


def on_host(tree: Any, *, view: bool = False) -> Any:
    """Return arrays as NumPy arrays in the host's memory, whole in each process; random keys remain JAX arrays.

    Args:
        tree: a pytree of arrays.
        view: whether the result may share memory with them; read it before they are donated.
    """
    from jax.experimental.multihost_utils import process_allgather

    def one(leaf: Any) -> Any:
        # This process has the whole array.
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf if is_key(leaf) else np.asarray(leaf) if view else np.array(leaf)
        if is_key(leaf):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        # Other processes have parts of it.
        return np.array(process_allgather(leaf, tiled=True))

    return jax.tree.map(one, tree)


def build_program(builder: Builder, extra: Any, inputs: Any) -> Program:
    """Return a trial's program.

    Raises:
        NetError: if the trial function returns anything else, or a program that reads a stream.
    """
    # What does not depend on the trial is computed now, so that such data are concrete, not traced.
    with jax.ensure_compile_time_eval():
        program = builder(extra, inputs)
    if not isinstance(program, Program):
        hint = "end it with `return jn.train.program(...)`"
        raise NetError(f"expects a trial function that returns a Program, got {type(program).__name__}; {hint}")
    if program.stream is not None:
        raise refuse()
    return program


def _with_data(builder: Builder, extra: Any, data: Sequence[Any], inputs: Any) -> Program:
    """Return a trial's program with the arrays `data` in place of its own, which would be compiled in as constants."""
    program = build_program(builder, extra, inputs)
    remaining = iter(data)
    # Arrays that depend on hyperparameters are traced, and are not replaced.
    leaves = [leaf if is_traced(leaf) else next(remaining) for leaf in _data_leaves(program)]
    train, validation = jax.tree.unflatten(jax.tree.structure((program.train, program.validation)), leaves)
    return replace(program, train=train, validation=validation)


def _data_leaves(program: Program) -> list[Any]:
    return jax.tree.leaves((program.train, program.validation))


def _put(sharding: NamedSharding | None, tree: Any) -> Any:
    """Put arrays, of which each process has a whole copy, on the devices of all processes."""
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    # Each process puts the parts of its own devices.
    def one(leaf: Any) -> Any:
        if is_key(leaf):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jax.make_array_from_callback(np.shape(leaf), sharding, np.asarray(leaf).__getitem__)

    return jax.tree.map(one, tree)
