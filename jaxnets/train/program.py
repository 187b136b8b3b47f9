"""A whole training run as a pair of pure functions, `start` and `epoch`."""

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
from jaxnets.train import arguments, evaluation
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.data import Data, check_data
from jaxnets.train.epoch import Epoch
from jaxnets.train.labels import check_labels
from jaxnets.train.names import Directions, check_names
from jaxnets.train.objective import Loss
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import ObjectiveFunction, Options, settled, start
from jaxnets.train.streaming import Streamed, check_stream, refuse


class _Usual(int):
    """Examples a batch where no size is given: equal to a 64 that is given, but not the same object."""


History = dict[str, Any]
USUAL = _Usual(64)
STATIC = {"static": True}  # what a compiled program is made for, rather than what it is given


@dataclass(frozen=True, eq=False)
class Recipe(Epoch):
    """What a program was made of, and the pure functions that follow from it.

    Attributes:
        sampler: gives the order of an epoch, or `None`.
        examples: how many examples one epoch learns from.
        batch_size: how many of them a step does.
        settings: how the program was written, as text by name.
    """

    sampler: Callable[[Key, Data], jax.Array] | None
    examples: int
    batch_size: int
    settings: Mapping[str, str] = field(compare=False)

    @property
    def directions(self) -> Directions:
        """Whether more or less of each reported value is better, as far as metrics and objective declare it."""
        return Directions.of(self.metrics, self.objective, self.options.monitor)

    def start(self, key: Key, x: Any) -> TrainState:
        """Return the run before its first step on inputs of some shape."""
        return start(self.net, self.optimizer, key, x, self.options)

    def run_epoch(self, run: TrainState, train: Data, held_out: Data | None) -> tuple[TrainState, History]:
        """Return the run one epoch later, and what is reported of it."""

        def one(run: TrainState, rows: tuple[jax.Array, jax.Array]) -> tuple[TrainState, evaluation.Tally]:
            return self.learn(run, evaluation.take(train, *rows, self.batch_sharding))

        before = run
        run, row = evaluation.over_batches(self.metrics, one, run, self.rows(run, run.step, train))
        run = settled(before, run)
        seen = {} if held_out is None else self.evaluate(self.shown(run, train), held_out)
        row = self.report(run, row, seen)
        return self.close(run, row), row

    def next_batch(self, run: TrainState, train: Data) -> Batch:
        """Return what the run's next step learns from, augmented and mixed."""
        place = run.step % -(-self.examples // self.batch_size)
        index, weights = self.rows(run, run.step - place, train)
        return self.prepare(run, evaluation.take(train, index[place], weights[place], self.batch_sharding))

    def rows(self, run: TrainState, first: jax.Array, train: Data) -> tuple[jax.Array, jax.Array]:
        """Return the examples of each batch of the epoch that began at a step, and their weights."""
        key = fold(jax.random.fold_in(run.key, first), "order")
        if self.sampler is None:
            places = jax.random.permutation(key, self.examples)
        else:
            places = _indices(self.sampler(key, train), self.examples)
        index, weights = evaluation.rows(self.examples, self.batch_size)
        return places[index], weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """A training run that has not begun: a pytree of its data, and the pure functions over it.

    `program(key)` is the whole run. As the data are leaves of the program, hand the program to `jit` as an
    argument, `jax.jit(lambda program, key: program(key))(program, key)`, and they are not baked into what is
    compiled, as they are by `jax.jit(program)(key)`, which does for small data.

    Attributes:
        train: inputs and targets that are learned from, on the device, and the weights of examples if any; nothing
            where these come from a stream.
        validation: likewise what is only looked at, or `None`.
        epochs: how many epochs the run has.
        examples: how many examples one epoch learns from.
        recipe: what the program was made of.
        stopping: when to stop before the last epoch, or `None`.
        stream: what is done with the batches of a stream, or `None`. Then `fit` alone can run it.
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
            *(["validation"] if self.validation or (self.stream and self.stream.held_out) else []),
        ]
        return f"Program({', '.join(parts)})"

    @property
    def row(self) -> Any:
        """The shape and dtype of one input, as a batch of one."""
        data = self.train if self.stream is None else self.stream.shapes
        return jax.tree.map(_one_row, data[0])

    def start(self, key: Key) -> TrainState:
        """Return the run before its first step."""
        check_key(key)
        return begin(self.recipe, self.stopping, self.row, key)

    def run_epoch(self, run: TrainState) -> tuple[TrainState, History]:
        """Return the run one epoch later, and that epoch's values by name.

        A run that has stopped, or stands still at a value that was not finite, stays as it is, with NaN for values.

        Raises:
            NetError: if the program learns from a stream.
        """
        if self.stream is not None:
            raise refuse()
        return advance(self.recipe, self.stopping, shardings_of(run.params), run, self.train, self.validation)

    def finish(self, run: TrainState) -> TrainState:
        """Return the run as its last epoch leaves it, or with the best parameters if stopping restores them."""
        return run if self.stopping is None else self.stopping.finish(run)

    def next_batch(self, run: TrainState) -> Batch:
        """Return what the run's next step learns from, augmented and mixed; it is read, where there is a stream."""
        if self.stream is not None:
            return self.recipe.prepare(run, Batch(*self.stream.at(run)))
        return self.recipe.next_batch(run, self.train)

    def __call__(self, key: Key) -> tuple[TrainState, History]:
        """Return the finished run, and the history: an array `(epochs,)` a name.

        With `stopping` the loop ends when the run does (under `vmap`, when all have), the history's rest is NaN, and
        derivatives are in forward mode alone.

        Raises:
            NetError: if the program learns from a stream.
        """
        if self.stream is not None:
            raise refuse()
        run = self.start(key)
        if self.stopping is None:
            return jax.lax.scan(lambda run, _: self.run_epoch(run), run, length=self.epochs)

        def goes_on(carry: tuple[jax.Array, TrainState, History]) -> jax.Array:
            number, run, _ = carry
            return (number < self.epochs) & ~jnp.asarray(halted(run))

        def one(carry: tuple[jax.Array, TrainState, History]) -> tuple[jax.Array, TrainState, History]:
            number, run, history = carry
            run, row = self.run_epoch(run)
            return number + 1, run, jax.tree.map(lambda rows, value: rows.at[number].set(value), history, row)

        row = jax.eval_shape(self.run_epoch, run)[1]
        empty = jax.tree.map(lambda leaf: jnp.broadcast_to(_nothing(leaf), (self.epochs, *leaf.shape)), row)
        _, run, history = jax.lax.while_loop(goes_on, one, (jnp.int32(0), run, empty))
        return self.finish(run), history


def begin(recipe: Recipe, stopping: EarlyStopping | None, row: Any, key: Key) -> TrainState:
    """Return `Program.start` as a function of arrays."""
    run = recipe.start(key, row)
    return run if stopping is None else stopping.start(run)


def advance(
    recipe: Recipe,
    stopping: EarlyStopping | None,
    where: Shardings | None,
    run: TrainState,
    train: Data,
    validation: Data | None,
) -> tuple[TrainState, History]:
    """Return `Program.run_epoch` as a function of arrays, with parameters that lie on the devices as is said."""
    new, row = recipe.run_epoch(run, train, validation)
    new = replace(new, params=constrained_as(new.params, where))
    if stopping is not None:
        new = stopping.update(new, row)
    over = halted(run)
    if over is None:
        return new, row
    # A select, which `vmap` would make of a branch anyhow; `fit` never gets here with a run that is over.
    still = run, jax.tree.map(_nothing, row)
    return jax.tree.map(lambda stays, goes: jnp.where(over, stays, goes), still, (new, row))


def compiled_epoch(program: Program, run: Any) -> Compiled:
    """Return `advance` compiled, `(run, train, validation) -> (run, row)`; the run's memory is given away."""
    arrays = run, program.train, program.validation
    return compiled(advance, [program.recipe, program.stopping, shardings_of(run.params)], arrays, donate=(0,))


def traced_epoch(program: Program, run: Any) -> Any:
    """Return what `jax.jit` makes of a epoch before it is compiled: its `jaxpr`, and `out_info`, `(run, row)`."""
    if (stream := program.stream) is None:
        return compiled_epoch(program, run).trace(run, program.train, program.validation)
    # Batch by batch on the host, so that there is no epoch as one function: one of a single batch stands for it.
    in_one = jax.jit(lambda *arrays: stream.in_one(program.stopping, *arrays))
    return in_one.trace(run, Batch(*stream.shapes), program.validation)


def halted(run: TrainState) -> jax.Array | None:
    """Tell whether a run goes no further: it has stopped, or stands still; `None` if it can do neither."""
    stopped = None if run.stopping is None else run.stopping.stopped
    failed = None if run.failed is None else run.failed >= 0
    return failed if stopped is None else stopped if failed is None else stopped | failed


@explained
def program(
    net: Net | Callable[[Any], Any],
    objective: ObjectiveFunction | Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = USUAL,
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

    An epoch visits every example once, in an order drawn from the key; the last batch is filled up with
    examples of weight 0, so that means are exact for any number of examples. Each epoch reports the means of
    the objective and its parts over the steps taken (`loss`, `cross_entropy`, `l2`, …), the metrics of the
    outputs in training, and all of them again as `validation/…`, in evaluation, over the whole validation set.

    Args:
        net: the network.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes, or a loss alone.
        optimizer: an Optax optimizer, with its schedule; `optax.chain(optax.clip_by_global_norm(1.0), ...)` clips.
        data: inputs and targets, pytrees with the examples along the first axis, and as a third, if not all
            examples count alike, weights `(examples,)`, ≥ 0. A list, a table of numbers, a series or another library's
            tensor is one array, as `np.asarray` makes it. They live on the device. Or a `jn.data.stream` of what
            does not fit there: it has its own batches and order, and only `fit` can run it.
        epochs: how often every example is seen, at least 1.
        batch_size: examples a step; `None` for all of them, 1 for stochastic gradient descent proper. A stream has its
            own: leave this out, or give the same.
        validation: inputs and targets to report on after each epoch, likewise; a stream only beside a stream.
        metrics: `jn.metrics` by the names to report them under, which no other value may have; a list of them goes by
            their own names.
        augment: `(key, example) -> example`, such as `jn.data.shift(1)`, drawn anew for each example and step.
        batch_augment: `(key, x, y, weights) -> (x, y, weights)` of a whole batch, after `augment`, such as
            `jn.data.mixup(0.2)`.
        sampler: `(key, data) -> indices (examples,)`, the order of an epoch, such as `jn.data.balanced(10)`; a random
            permutation if not given.
        freeze: a pattern over paths (see `jn.paths`), `"features/**"` or `("**", "!head/**")`: what matches has no
            gradient and no optimizer state, and the batch statistics of these layers stay. Weight decay inside the
            optimizer leaves them alone too.
        ema_decay: decay d in [0, 1) of an exponential moving average of the parameters, θ̄ ← d' θ̄ + (1 - d') θ with
            d' = min(d, (1 + t) / (10 + t)) after step t; may be traced. `state.ema` has it, and its evaluation is
            reported as `ema/validation/…`, with batch-norm statistics estimated anew from the training inputs.
        stopping: `early_stopping(...)`.
        options: what is rarely changed, as `Options(accumulate=4)`.

    Raises:
        NetError: for what is no network, loss, optimizer or data (the message says how to make it one), empty data,
            inputs and targets of different lengths, NaN among inputs, targets or weights, a batch larger than the data
            or one that can't be divided in equal parts or over the devices that the data lie on, labels that the
            network has no output for, two values under one name, or an option out of range.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> linear = program(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.adam(0.1), (x, y),
    ...                  epochs=20, metrics={"accuracy": jn.metrics.accuracy})
    >>> run, history = linear(jax.random.key(1))
    >>> history["loss"].shape, bool(history["accuracy"][-1] > 0.95)
    ((20,), True)
    """
    with labeled_as("program"):
        net, objective = arguments.network(net), arguments.objective_of(objective)
        metrics = arguments.metrics_of(metrics)
        arguments.check_optimizer(optimizer)
        data, validation = arguments.pair("data", data), arguments.pair("validation", validation, needed=False)
        arguments.check_functions(augment=augment, batch_augment=batch_augment, sampler=sampler)
        options = arguments.options_of(options, freeze, ema_decay, stopping)
    arguments.warn_of_probabilities(net, objective)
    stream = data if isinstance(data, Stream) else None
    with labeled_as("program"):
        if stream is None:
            examples = check_data("data", data, finite=options.halt_on_nonfinite)
            size = examples if batch_size is None else batch_size
        else:
            examples, size = check_stream(stream, epochs, batch_size, USUAL, sampler), stream.reading.batch_size
        if validation is not None and not (isinstance(validation, Stream) and stream is not None):
            check_data("validation", validation, finite=options.halt_on_nonfinite)
        check_names(metrics, objective, skipped=options.loss_scale is not None)
        given = (() if isinstance(each, Stream) else each for each in (data, validation))
        train, held_out = (automatic(jax.tree.map(jnp.asarray, each)) for each in given)
        batch_sharding = batch_sharding_of(train) if stream is None else rows_of(stream.place)
        for name, count in (("epochs", epochs), ("batch_size", size)):
            check_count(name, count)
        if sampler is not None:
            _indices(sampler(jax.random.key(0), train), examples)  # one epoch's, while values are known
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
    filled = bool(examples % size) or batch_augment is not None
    weighted = filled or (len(data) == 3 if stream is None else stream.reading.weighted)
    options, plateau = replace(options, weighted=weighted), options.plateau
    written = replace(options, monitor=None, ema_decay=None, plateau=None)
    settings = {
        "net": repr(net), "objective": repr(objective), "epochs": str(epochs), "batch_size": str(size),
        "metrics": ", ".join(sorted(metrics)), "options": repr(written),
        "augment": _written(augment), "batch_augment": _written(batch_augment), "sampler": _written(sampler),
        "stopping": repr(stopping),
        "plateau": plateau[0] if plateau else "none",
    }  # fmt: skip
    own = (
        net,
        objective,
        optimizer,
        metrics,
        options,
        augment,
        batch_augment,
        batch_sharding,
        batch_sharding_of(held_out),
        sampler,
    )
    recipe = Recipe(*own, examples, size, settings)
    stopping = None if stopping is None else stopping.settle(recipe.directions)
    if plateau is not None and recipe.directions.mode(plateau[0]) == "max":
        hint = 'take what is better the lower, ("validation/loss", ...)'
        raise NetError(f"expects plateau to look at a loss or an error, got {plateau[0]!r}; {hint}", label="program")
    streamed = None if stream is None else Streamed.of(stream, validation, recipe)
    return Program(train, held_out, epochs, examples, recipe, stopping, streamed)


def _indices(places: Any, examples: int) -> jax.Array:
    """Return the order of an epoch as an array.

    Raises:
        NetError: if it is not as many integers as there are examples, or a known one is none of them, of which an array
            would give the last example.
    """
    places = jnp.asarray(places)
    with labeled_as("program"):
        if places.shape != (examples,):
            raise NetError(f"expects sampler to give indices ({examples},), got {places.shape}")
        if not jnp.issubdtype(places.dtype, jnp.integer):
            raise NetError(f"expects sampler to give integers, got {places.dtype}")
        if (values := known(places)) is not None and ((values < -examples) | (values >= examples)).any():
            raise NetError(f"expects sampler to give indices below {examples}, got {values.max()}")
    return places


def _one_row(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype)


def _written(function: Any) -> str:
    return "none" if function is None else getattr(function, "__qualname__", type(function).__name__)


def _nothing(leaf: Any) -> jax.Array:
    """Return NaN in the shape of a value, or -1 where there is no NaN."""
    return jnp.full(leaf.shape, jnp.nan if jnp.issubdtype(leaf.dtype, jnp.inexact) else -1, leaf.dtype)
