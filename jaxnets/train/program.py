"""A whole training run as pure functions: `start`, `run_epoch` and `finish`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.checks import check_function
from jaxnets.core.compiled import Compiled, compiled
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, check_key
from jaxnets.core.paths import Pattern
from jaxnets.core.sharding import automatic, batch_sharding_of, check_divides, rows_of, shardings_of
from jaxnets.data.loader import Stream
from jaxnets.train import arguments
from jaxnets.train.arguments import check_data
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.epoch import History, Recipe, halted, missing
from jaxnets.train.labels import check_augmented, check_labels
from jaxnets.train.names import Directions, check_names
from jaxnets.train.objective import Loss
from jaxnets.train.options import Options
from jaxnets.train.state import Batch, Data, TrainState
from jaxnets.train.step import ObjectiveFunction
from jaxnets.train.streaming import Streamed, refuse


class _Default(int):
    """The default batch size: equal to a 64 that is passed, but not the same object, so that a stream can tell them."""


DEFAULT_BATCH_SIZE = _Default(64)
# A static part of a program, not one of its arrays.
STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """A training run that has not started: a pytree of its data, and pure functions over them.

    `program(key)` is the whole run. The data are leaves of the program, so pass the program to `jit` as an argument,
    `jax.jit(lambda program, key: program(key))(program, key)`: then they are not compiled in as constants. With
    `jax.jit(program)(key)` they are, which is fine for small data.

    Attributes:
        train: inputs, targets and, if any, example weights to train on, on the device; empty if they come from a
            stream.
        validation: inputs, targets and, if any, example weights to evaluate, or `None`.
        epochs: the number of epochs.
        recipe: what the program was made of.
        stream: the streams that it reads, or `None`. Only `jn.train.run` can run such a program.
    """

    train: Data
    validation: Data | None
    epochs: int = field(metadata=STATIC)
    recipe: Recipe = field(metadata=STATIC)
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
    def examples(self) -> int:
        """How many examples an epoch trains on."""
        return self.recipe.examples

    @property
    def stopping(self) -> EarlyStopping | None:
        """When to stop before the last epoch, or `None`."""
        return self.recipe.stopping

    @property
    def row(self) -> Any:
        """The shape and dtype of one input, as a batch of one."""
        data = self.train if self.stream is None else self.stream.shapes
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), data[0])

    def start(self, key: Key) -> TrainState:
        """Return the train state before the first step."""
        check_key(key)
        return self.recipe.start(self.row, key)

    def run_epoch(self, state: TrainState) -> tuple[TrainState, History]:
        """Return the train state one epoch later, and that epoch's values by name.

        A run that has stopped or halted keeps its train state and reports NaN.

        Raises:
            NetError: if the program trains on a stream.
        """
        if self.stream is not None:
            raise refuse()
        return self.recipe.run_epoch(shardings_of(state.params), state, self.train, self.validation)

    def finish(self, state: TrainState) -> TrainState:
        """Return the train state that a run ends with: with the best parameters, if early stopping restores them."""
        return self.recipe.finish(state)

    def next_batch(self, state: TrainState) -> Batch:
        """Return the batch of the next step, augmented; that of a stream is read."""
        if self.stream is not None:
            return self.recipe.prepare(state, Batch(*self.stream.at(state)))
        return self.recipe.next_batch(state, self.train)

    def __call__(self, key: Key) -> tuple[TrainState, History]:
        """Return the final train state, and the history: an array `(epochs,)` for each name.

        With `stopping`, the loop ends when the run does (under `vmap`, when all runs have ended), the rest of the
        history is NaN, and only forward-mode derivatives exist.

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
        empty = jax.tree.map(lambda leaf: jnp.broadcast_to(missing(leaf), (self.epochs, *leaf.shape)), row)
        _, state, history = jax.lax.while_loop(goes_on, one_epoch, (jnp.int32(0), state, empty))
        return self.finish(state), history


def compiled_epoch(program: Program, state: Any) -> Compiled:
    """Return an epoch compiled as `(state, train, validation) -> (state, row)`; the train state is donated."""
    static = [program.recipe, shardings_of(state.params)]
    return compiled(Recipe.run_epoch, static, (state, program.train, program.validation), donate=(0,))


def traced_epoch(program: Program, state: Any) -> Any:
    """Return the trace that `jax.jit` makes of an epoch: its `jaxpr`, and `out_info`, which is `(state, row)`."""
    if (stream := program.stream) is None:
        return compiled_epoch(program, state).trace(state, program.train, program.validation)
    # An epoch of a stream is a loop on the host. An epoch of a single batch has the same computations.
    arrays = state, Batch(*stream.shapes), program.validation
    static = [program.recipe, stream.validation is not None]
    return compiled(Recipe.single_batch_epoch, static, arrays).trace(*arrays)


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
            array, as `np.asarray` converts it. They are kept on the device. Or a `jn.data.stream` of data that do not
            fit there: it has its own batches and order, and only `jn.train.run` can run it.
        epochs: how often every example is seen, at least 1.
        batch_size: examples per step, by default 64; `None` for all of them, 1 for single-example stochastic gradient
            descent. A stream has its own batch size: omit this, or pass the same.
        validation: inputs and targets to evaluate after each epoch, in the same forms; a stream only if `data` is one.
        metrics: one of `jn.metrics`, a list of them, reported under their own names, or a dict by the names to report.
            No other value may have these names.
        augment: `(key, example) -> example`, such as `jn.data.shift(1)`, with new draws for each example in each step.
        batch_augment: `(key, x, y, weights) -> (x, y, weights)` of a whole batch, after `augment`, such as
            `jn.data.mixup(0.2)`.
        sampler: `(key, data) -> indices (examples,)`, the order of an epoch, such as `jn.data.balanced(10)`; by
            default a random permutation.
        freeze: a pattern over paths (see `jn.paths`), `"features/**"` or `("**", "!head/**")`: parameters that match
            have no gradient and no optimizer state, and their layers keep their batch statistics. Weight decay inside
            the optimizer does not change them either.
        ema_decay: decay d in [0, 1) of an exponential moving average of the parameters, θ̄ ← d' θ̄ + (1 - d') θ with
            d' = min(d, (1 + t) / (10 + t)) after step t; may be traced. `state.ema` holds it, and its evaluation is
            reported as `ema/validation/…`, with batch-norm statistics estimated from the training inputs.
        stopping: `early_stopping(...)`.
        options: rarely needed options, such as `Options(accumulate=4)`.

    Raises:
        NetError: for an invalid network, loss, optimizer or data (the message says how to convert it), empty data,
            inputs and targets of different lengths, NaN among inputs, targets or weights, a batch larger than the data
            or one that can't be divided into equal parts or over the devices of the data, labels without an output of
            the network, two values under one name, or an option out of range.

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
    kind: Callable[..., Recipe] = Recipe,
) -> Program:
    """Return the program of these arguments, converted and checked; `label` is the function named in errors."""
    sampler = functions["sampler"]
    with labeled_as(label):
        net, objective = arguments.network(net), arguments.objective_of(objective)
        metrics = arguments.metrics_of(metrics)
        arguments.check_optimizer(optimizer)
        data, validation = arguments.pair("data", data), arguments.pair("validation", validation, needed=False)
        check_function("augment", functions["augment"], "(key, example) -> example")
        check_function("batch_augment", functions["batch_augment"], "(key, x, y, weights) -> (x, y, weights)")
        check_function("sampler", sampler, "(key, data) -> indices (examples,)")
    arguments.warn_of_probabilities(net, objective)
    stream = data if isinstance(data, Stream) else None
    with labeled_as(label):
        check_count("epochs", epochs)
        # `size` is the batch size: as given, all examples, or that of the stream.
        if stream is None:
            examples = check_data("data", data, finite=options.halt_on_nonfinite)
            size = examples if batch_size is None else batch_size
        else:
            arguments.check_stream(stream, epochs, batch_size, DEFAULT_BATCH_SIZE, sampler)
            examples, size = len(stream.reading.source), stream.reading.batch_size
        if validation is not None and not (isinstance(validation, Stream) and stream is not None):
            check_data("validation", validation, finite=options.halt_on_nonfinite)
        check_names(metrics, objective, skipped=options.loss_scale is not None)
        # Streamed data are not on the device: an empty tuple stands for them.
        arrays = (() if isinstance(each, Stream) else each for each in (data, validation))
        train, held_out = (automatic(jax.tree.map(jnp.asarray, each)) for each in arrays)
        batch_sharding = batch_sharding_of(train) if stream is None else rows_of(stream.place)
        check_count("batch_size", size)
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
    # Batch statistics must be weighted only if the weights can differ.
    filled = bool(examples % size) or functions["batch_augment"] is not None
    weighted = filled or (len(data) == 3 if stream is None else stream.reading.weighted)
    options, plateau = replace(options, weighted=weighted), options.plateau
    settings = {
        "net": repr(net),
        "objective": repr(objective),
        "epochs": str(epochs),
        "batch_size": str(size),
        "metrics": ", ".join(sorted(metrics)),
        # Text for checkpoints to compare, without options whose `repr` may differ between processes
        "options": repr(replace(options, monitor=None, ema_decay=None, plateau=None)),
        **{
            name: "none" if function is None else getattr(function, "__qualname__", type(function).__name__)
            for name, function in functions.items()
        },
        "stopping": repr(stopping),
        "plateau": plateau[0] if plateau else "none",
    }
    # Whether a lower or a higher value is better is known only now, from metrics and objective.
    directions = Directions.of(metrics, objective, options.monitor)
    if plateau is not None and directions.mode(plateau[0]) == "max":
        hint = 'use a value that is better the lower, ("validation/loss", ...)'
        raise NetError(f"expects plateau to follow a loss or an error, got {plateau[0]!r}; {hint}", label=label)
    recipe = kind(
        net,
        objective,
        optimizer,
        metrics,
        options,
        None if stopping is None else stopping.settle(directions),
        **functions,
        examples=examples,
        batch_size=size,
        batch_sharding=batch_sharding,
        validation_sharding=batch_sharding_of(held_out),
        settings=settings,
    )
    if sampler is not None:
        with labeled_as(label):
            # An order is drawn here to check its indices: inside `jit` their values are not known.
            recipe.draw_order(jax.random.key(0), train)
    streamed = None if stream is None else Streamed.of(stream, validation, recipe)
    with labeled_as(label):
        check_augmented(net, functions["augment"], train[0] if streamed is None else streamed.shapes[0])
    return Program(train, held_out, epochs, recipe, streamed)
