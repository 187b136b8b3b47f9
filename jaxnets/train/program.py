"""A whole training run as pure functions: `start`, `run_epoch` and `finish`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.compiled import Compiled, compiled
from jaxnets.core.errors import NetError, check_count, known, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, check_key, fold
from jaxnets.core.paths import Pattern
from jaxnets.core.sharding import (
    Shardings,
    automatic,
    batch_sharding_of,
    check_divides,
    constrained_as,
    rows_of,
    shardings_of,
)
from jaxnets.data.loader import Stream
from jaxnets.train import arguments
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.data import Data, check_data
from jaxnets.train.epoch import Epoch
from jaxnets.train.evaluation import Totals, batch_indices, gather_batch, scan_batches
from jaxnets.train.labels import check_labels
from jaxnets.train.names import Directions, check_names
from jaxnets.train.objective import Loss
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import ObjectiveFunction, Options, revert_nonfinite, start
from jaxnets.train.streaming import Streamed, check_stream, refuse


class _Default(int):
    """The default batch size: equal to a 64 that is passed, but not the same object, so that streams can tell."""


History = dict[str, Any]
DEFAULT_BATCH_SIZE = _Default(64)
# A part of what a program is compiled for, not one of its arrays.
STATIC = {"static": True}


@dataclass(frozen=True, eq=False)
class Recipe(Epoch):
    """What a program was made of, and the pure functions that follow from it.

    Attributes:
        sampler: a function that draws the order of an epoch, or `None` for a random permutation.
        examples: how many examples an epoch trains on.
        batch_size: how many of them are in a batch.
        settings: how the program was written, as text by name.
    """

    sampler: Callable[[Key, Data], jax.Array] | None
    examples: int
    batch_size: int
    settings: Mapping[str, str] = field(compare=False)

    @property
    def directions(self) -> Directions:
        """Whether a lower or a higher value is better for each reported name, as metrics and objective declare it."""
        return Directions.of(self.metrics, self.objective, self.options.monitor)

    def start(self, key: Key, x: Any) -> TrainState:
        """Return the train state before the first step on inputs of some shape."""
        return start(self.net, self.optimizer, x, self.options, key=key)

    def run_epoch(self, state: TrainState, train: Data, validation: Data | None) -> tuple[TrainState, History]:
        """Return the train state one epoch later, and the epoch's values by name."""

        def one_batch(state: TrainState, rows: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Totals]:
            return self.train_step(state, gather_batch(train, *rows, self.batch_sharding))

        # Indices and weights of the batches in this epoch's order, (batches, batch)
        before, order = state, self.batch_rows(state, state.step, train)
        state, row = scan_batches(self.metrics, one_batch, state, order)
        state = revert_nonfinite(before, state)
        # After the check above: evaluation sees no parameters that it finds non-finite.
        evaluations = {} if validation is None else self.evaluate(self.evaluated(state, train), validation)
        row = self.report(state, row, evaluations)
        return self.update_plateau(state, row), row

    def next_batch(self, state: TrainState, train: Data) -> Batch:
        """Return the batch of the next step, augmented."""
        # The number of the step within its epoch, which has ⌈examples / batch_size⌉ steps.
        place = state.step % -(-self.examples // self.batch_size)
        # The order derives from the step at which the epoch began.
        index, weights = self.batch_rows(state, state.step - place, train)
        return self.prepare(state, gather_batch(train, index[place], weights[place], self.batch_sharding))

    def batch_rows(self, state: TrainState, first: jax.Array, train: Data) -> tuple[jax.Array, jax.Array]:
        """Return the examples and weights, `(batches, batch)`, of the epoch that begins at a step."""
        key = fold(jax.random.fold_in(state.key, first), "order")
        if self.sampler is None:
            order = jax.random.permutation(key, self.examples)
        else:
            order = _checked_order(self.sampler(key, train), self.examples)
        index, weights = batch_indices(self.examples, self.batch_size)
        return order[index], weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """A training run that has not started: a pytree of its data, and pure functions over them.

    `program(key)` is the whole run. The data are leaves of the program. So pass the program to `jit` as an argument,
    `jax.jit(lambda program, key: program(key))(program, key)`: then they are not compiled in as constants. With
    `jax.jit(program)(key)` they are, which is fine for small data.

    Attributes:
        train: inputs, targets and, if any, example weights to train on, on the device; empty if they come from a
            stream.
        validation: the same to evaluate, or `None`.
        epochs: the number of epochs.
        examples: how many examples an epoch trains on.
        recipe: what the program was made of.
        stopping: when to stop before the last epoch, or `None`.
        stream: what is done with the batches of a stream, or `None`. Only `jn.train.run` can run such a program.
    """

    train: Data
    validation: Data | None
    epochs: int = field(metadata=STATIC)
    examples: int = field(metadata=STATIC)
    recipe: Recipe = field(metadata=STATIC)
    stopping: EarlyStopping | None = field(default=None, metadata=STATIC)
    stream: Streamed | None = field(default=None, metadata=STATIC)

    def __repr__(self) -> str:
        settings = self.recipe.settings
        parts = [
            f"net {self.recipe.net.label}",
            f"objective {settings['objective']}",
            f"{self.examples} examples",
            f"{self.epochs} epochs",
            f"batch_size {settings['batch_size']}",
            *([f"metrics {settings['metrics']}"] if settings["metrics"] else []),
            *(["validation"] if self.validation or (self.stream and self.stream.validation) else []),
        ]
        return f"Program({', '.join(parts)})"

    @property
    def row(self) -> Any:
        """The shape and dtype of one input, as a batch of one."""
        data = self.train if self.stream is None else self.stream.shapes
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), data[0])

    def start(self, key: Key) -> TrainState:
        """Return the train state before the first step."""
        check_key(key)
        return begin(self.recipe, self.stopping, self.row, key)

    def run_epoch(self, state: TrainState) -> tuple[TrainState, History]:
        """Return the train state one epoch later, and that epoch's values by name.

        A run that has stopped or halted keeps its train state and reports NaN.

        Raises:
            NetError: if the program trains on a stream.
        """
        if self.stream is not None:
            raise refuse()
        return advance(self.recipe, self.stopping, shardings_of(state.params), state, self.train, self.validation)

    def finish(self, state: TrainState) -> TrainState:
        """Return the train state that a run ends with: with the best parameters, if early stopping restores them."""
        return state if self.stopping is None else self.stopping.finish(state)

    def next_batch(self, state: TrainState) -> Batch:
        """Return the batch of the next step, augmented. From a stream it is read."""
        if self.stream is not None:
            return self.recipe.prepare(state, Batch(*self.stream.at(state)))
        return self.recipe.next_batch(state, self.train)

    def __call__(self, key: Key) -> tuple[TrainState, History]:
        """Return the final train state, and the history: an array `(epochs,)` for each name.

        With `stopping`, the loop ends when the run does (under `vmap`, when all have), the rest of the history is NaN,
        and only forward-mode derivatives exist.

        Raises:
            NetError: if the program trains on a stream.
        """
        if self.stream is not None:
            raise refuse()
        state = self.start(key)
        if self.stopping is None:
            # `scan` has derivatives in both modes.
            return jax.lax.scan(lambda state, _: self.run_epoch(state), state, length=self.epochs)

        def goes_on(carry: tuple[jax.Array, TrainState, History]) -> jax.Array:
            number, state, _ = carry
            return (number < self.epochs) & ~jnp.asarray(halted(state))

        def one_epoch(carry: tuple[jax.Array, TrainState, History]) -> tuple[jax.Array, TrainState, History]:
            number, state, history = carry
            state, row = self.run_epoch(state)
            return number + 1, state, jax.tree.map(lambda rows, value: rows.at[number].set(value), history, row)

        # A loop that may end early cannot stack its rows: they are written into a history of full length.
        row = jax.eval_shape(self.run_epoch, state)[1]
        empty = jax.tree.map(lambda leaf: jnp.broadcast_to(_missing(leaf), (self.epochs, *leaf.shape)), row)
        _, state, history = jax.lax.while_loop(goes_on, one_epoch, (jnp.int32(0), state, empty))
        return self.finish(state), history


# The functions below take the parts of a program as arguments: what is compiled of them must not hold its data.


def begin(recipe: Recipe, stopping: EarlyStopping | None, row: Any, key: Key) -> TrainState:
    """Return the train state before the first step: `Program.start` as a function of arrays."""
    state = recipe.start(key, row)
    return state if stopping is None else stopping.start(state)


def advance(
    recipe: Recipe,
    stopping: EarlyStopping | None,
    shardings: Shardings | None,
    state: TrainState,
    train: Data,
    validation: Data | None,
) -> tuple[TrainState, History]:
    """Return the train state one epoch later, and its values: `Program.run_epoch` as a function of arrays.

    `shardings` says how the parameters lie on the devices, before and after.
    """
    after, row = recipe.run_epoch(state, train, validation)
    after = replace(after, params=constrained_as(after.params, shardings))
    if stopping is not None:
        after = stopping.update(after, row)
    over = halted(state)
    if over is None:
        return after, row
    # A select, as `vmap` would make one of a `cond` anyway; the host's loop never runs an epoch of a run that is over.
    kept = state, jax.tree.map(_missing, row)
    return jax.tree.map(lambda old, new: jnp.where(over, old, new), kept, (after, row))


def compiled_epoch(program: Program, state: Any) -> Compiled:
    """Return `advance` compiled as `(state, train, validation) -> (state, row)`; the train state is donated."""
    arrays = state, program.train, program.validation
    return compiled(advance, [program.recipe, program.stopping, shardings_of(state.params)], arrays, donate=(0,))


def traced_epoch(program: Program, state: Any) -> Any:
    """Return the trace that `jax.jit` makes of an epoch: its `jaxpr`, and `out_info`, which is `(state, row)`."""
    if (stream := program.stream) is None:
        return compiled_epoch(program, state).trace(state, program.train, program.validation)
    # An epoch of a stream is a loop on the host. A single batch stands for it, with all that is computed.
    single = jax.jit(lambda *arrays: stream.single_batch_epoch(program.stopping, *arrays))
    return single.trace(state, Batch(*stream.shapes), program.validation)


def halted(state: TrainState) -> jax.Array | None:
    """Tell whether a run is over: stopped early, or halted at a non-finite value; `None` if it can't be either."""
    stopped = None if state.stopping is None else state.stopping.stopped
    failed = None if state.failed is None else state.failed >= 0
    return failed if stopped is None else stopped if failed is None else stopped | failed


@explained
def program(
    net: Net | Callable[[Any], Any],
    objective: ObjectiveFunction | Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = DEFAULT_BATCH_SIZE,
    validation: Any = None,
    metrics: arguments.Metrics = None,
    augment: Callable[[Key, Any], Any] | None = None,
    batch_augment: Callable[[Key, Any, Any, jax.Array], tuple[Any, Any, jax.Array]] | None = None,
    sampler: Callable[[Key, Data], jax.Array] | None = None,
    freeze: Pattern | None = None,
    ema_decay: Any = None,
    stopping: EarlyStopping | None = None,
    options: Options = Options(),
) -> Program:
    """Return the program that trains a network by mini-batch gradient descent.

    An epoch visits every example once, in an order drawn from the key; the last batch is filled up with examples of
    weight 0, so that means are exact for any number of examples. Each epoch reports the means of the objective and its
    parts over its steps (`loss`, `cross_entropy`, `l2`, …), the metrics of the outputs in training, and all of them
    again as `validation/…`, in evaluation mode, over the whole validation set.

    Args:
        net: the network.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes it, or a loss.
        optimizer: an Optax optimizer with its schedule; `optax.chain(optax.clip_by_global_norm(1.0), ...)` clips.
        data: inputs and targets, pytrees with the examples along the first axis, and optionally example weights
            `(examples,)`, ≥ 0, as a third. A list, a table of numbers, a series or another library's tensor is one
            array, as `np.asarray` converts it. They live on the device. Or a `jn.data.stream` of data that do not fit
            there: it has its own batches and order, and only `jn.train.run` can run it.
        epochs: how often every example is seen, at least 1.
        batch_size: examples per step, by default 64; `None` for all of them, 1 for stochastic gradient descent proper.
            A stream has its own: omit this, or pass the same.
        validation: inputs and targets to evaluate after each epoch, in the same forms; a stream only beside a stream.
        metrics: one of `jn.metrics`, a list of them, reported under their own names, or a dict by the names to report.
            No other value may have these names.
        augment: `(key, example) -> example`, such as `jn.data.shift(1)`, drawn for each example in each step.
        batch_augment: `(key, x, y, weights) -> (x, y, weights)` of a whole batch, after `augment`, such as
            `jn.data.mixup(0.2)`.
        sampler: `(key, data) -> indices (examples,)`, the order of an epoch, such as `jn.data.balanced(10)`; by
            default a random permutation.
        freeze: a pattern over paths (see `jn.paths`), `"features/**"` or `("**", "!head/**")`: parameters that match
            have no gradient and no optimizer state, and their layers keep their batch statistics. Weight decay inside
            the optimizer leaves them alone, too.
        ema_decay: decay d in [0, 1) of an exponential moving average of the parameters, θ̄ ← d' θ̄ + (1 - d') θ with
            d' = min(d, (1 + t) / (10 + t)) after step t; may be traced. `state.ema` holds it, and its evaluation is
            reported as `ema/validation/…`, with batch-norm statistics estimated from the training inputs.
        stopping: `early_stopping(...)`.
        options: what is rarely changed, such as `Options(accumulate=4)`.

    Raises:
        NetError: for what is no network, loss, optimizer or data (the message says how to make it one), empty data,
            inputs and targets of different lengths, NaN among inputs, targets or weights, a batch larger than the data
            or one that can't be divided into equal parts or over the devices that the data lie on, labels that the
            network has no output for, two values under one name, or an option out of range.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> linear = program(jn.dense(2), jn.losses.cross_entropy, optax.adam(0.1), (x, y),
    ...                  epochs=20, metrics={"accuracy": jn.metrics.accuracy})
    >>> state, history = linear(jax.random.key(1))
    >>> history["loss"].shape, bool(history["accuracy"][-1] > 0.95)
    ((20,), True)
    """
    with labeled_as("program"):
        options = arguments.options_of(options, freeze, ema_decay, stopping)
    functions = {"augment": augment, "batch_augment": batch_augment, "sampler": sampler}
    made_of = (net, objective, optimizer, data, validation, metrics, functions, stopping, options)
    return build("program", *made_of, epochs, batch_size)


def build(
    label: str,
    net: Any,
    objective: Any,
    optimizer: optax.GradientTransformation,
    data: Any,
    validation: Any,
    metrics: arguments.Metrics,
    functions: dict[str, Any],
    stopping: EarlyStopping | None,
    options: Options,
    epochs: int,
    batch_size: int | None,
) -> Program:
    """Return the program of these arguments, converted and checked; errors are those of the function `label`."""
    with labeled_as(label):
        net, objective = arguments.network(net), arguments.objective_of(objective)
        metrics = arguments.metrics_of(metrics)
        arguments.check_optimizer(optimizer)
        data, validation = arguments.pair("data", data), arguments.pair("validation", validation, needed=False)
        arguments.check_functions(**functions)
    arguments.warn_of_probabilities(net, objective)
    stream = data if isinstance(data, Stream) else None
    sampler = functions["sampler"]
    with labeled_as(label):
        # `size` is the batch size: as given, all examples, or that of the stream.
        if stream is None:
            examples = check_data("data", data, finite=options.halt_on_nonfinite)
            size = examples if batch_size is None else batch_size
        else:
            examples = check_stream(stream, epochs, batch_size, DEFAULT_BATCH_SIZE, sampler)
            size = stream.reading.batch_size
        if validation is not None and not (isinstance(validation, Stream) and stream is not None):
            check_data("validation", validation, finite=options.halt_on_nonfinite)
        check_names(metrics, objective, skipped=options.loss_scale is not None)
        # Streamed data are not on the device: an empty tuple stands for them.
        arrays = (() if isinstance(each, Stream) else each for each in (data, validation))
        train, held_out = (automatic(jax.tree.map(jnp.asarray, each)) for each in arrays)
        batch_sharding = batch_sharding_of(train) if stream is None else rows_of(stream.place)
        check_count("epochs", epochs)
        check_count("batch_size", size)
        if sampler is not None:
            # An order is drawn here to check its indices, whose values are not known inside `jit`.
            _checked_order(sampler(jax.random.key(0), train), examples)
        if size > examples:
            hint = "batch_size=None takes them all at once"
            raise NetError(
                f"expects a batch no larger than the data, got batch_size={size} for {examples} examples; {hint}"
            )
        check_divides("a batch", size, batch_sharding)
        if size % options.accumulate:
            raise NetError(f"expects a batch of equal parts, got batch_size={size} in accumulate={options.accumulate}")
        check_divides("a part of a batch", size // options.accumulate, batch_sharding)
    sets = {"data": data, "validation": validation}
    check_labels(net, objective, metrics, {name: each for name, each in sets.items() if isinstance(each, tuple)})
    # Batch statistics have to follow the weights only if these can differ.
    filled = bool(examples % size) or functions["batch_augment"] is not None
    weighted = filled or (len(data) == 3 if stream is None else stream.reading.weighted)
    options = replace(options, weighted=weighted)
    plateau = options.plateau
    # Text for checkpoints to compare, without options whose `repr` may differ between processes.
    written = replace(options, monitor=None, ema_decay=None, plateau=None)
    settings = {
        "net": repr(net),
        "objective": repr(objective),
        "epochs": str(epochs),
        "batch_size": str(size),
        "metrics": ", ".join(sorted(metrics)),
        "options": repr(written),
        **{name: _name_of(function) for name, function in functions.items()},
        "stopping": repr(stopping),
        "plateau": plateau[0] if plateau else "none",
    }
    recipe = Recipe(
        net,
        objective,
        optimizer,
        metrics,
        options,
        functions["augment"],
        functions["batch_augment"],
        batch_sharding,
        batch_sharding_of(held_out),
        sampler,
        examples,
        size,
        settings,
    )
    # Whether a lower or a higher value is better is known only now, from metrics and objective.
    stopping = None if stopping is None else stopping.settle(recipe.directions)
    if plateau is not None and recipe.directions.mode(plateau[0]) == "max":
        hint = 'use a value that is better the lower, ("validation/loss", ...)'
        raise NetError(f"expects plateau to follow a loss or an error, got {plateau[0]!r}; {hint}", label=label)
    streamed = None if stream is None else Streamed.of(stream, validation, recipe)
    return Program(train, held_out, epochs, examples, recipe, stopping, streamed)


def _checked_order(order: Any, examples: int) -> jax.Array:
    """Return the order of an epoch as an array.

    Raises:
        NetError: if it does not have one integer for each example, or a concrete one is out of range: indexing an
            array would clip it to the last example.
    """
    order = jnp.asarray(order)
    with labeled_as("program"):
        if order.shape != (examples,):
            raise NetError(f"expects sampler to return indices ({examples},), got {order.shape}")
        if not jnp.issubdtype(order.dtype, jnp.integer):
            raise NetError(f"expects sampler to return integers, got {order.dtype}")
        if (values := known(order)) is not None and ((values < -examples) | (values >= examples)).any():
            raise NetError(f"expects sampler to return indices below {examples}, got {values.max()}")
    return order


def _name_of(function: Any) -> str:
    return "none" if function is None else getattr(function, "__qualname__", type(function).__name__)


def _missing(leaf: Any) -> jax.Array:
    """Return NaN in the shape of a value, or -1 if its dtype has no NaN."""
    return jnp.full(leaf.shape, jnp.nan if jnp.issubdtype(leaf.dtype, jnp.inexact) else -1, leaf.dtype)
