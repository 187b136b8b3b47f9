"""A whole training run as a pair of pure functions, `start` and `segment`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.errors import NetError, check_count
from jaxnets.metrics import Metric
from jaxnets.net import Key, Net, fold
from jaxnets.train import run as runs
from jaxnets.train import tally
from jaxnets.train.run import ObjectiveFunction, Run

History = dict[str, Any]
Data = tuple[Any, Any]
STATIC = {"static": True}  # what a compiled program is made for, rather than what it is given


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Program:
    """A training run that has not begun: a pytree of its data, and the pure functions over it.

    `program(key)` is the whole run. As the data are leaves of the program, hand the program to `jit` as an
    argument, `jax.jit(lambda program, key: program(key))(program, key)`, and they are not baked into what is
    compiled.

    Attributes:
        train: inputs and targets that are learned from, on the device.
        validation: inputs and targets that are only looked at, or `None`.
        start_fn: `(key, train) -> run`.
        segment_fn: `(run, train, validation) -> (run, row)`, one epoch and what is reported of it.
        segments: how many segments the run has.
        examples: how many examples one segment learns from.
    """

    train: Data
    validation: Data | None
    start_fn: Callable[..., Run] = field(metadata=STATIC)
    segment_fn: Callable[..., tuple[Run, History]] = field(metadata=STATIC)
    segments: int = field(metadata=STATIC)
    examples: int = field(metadata=STATIC)

    def start(self, key: Key) -> Run:
        """Return the run before its first step."""
        return self.start_fn(key, self.train)

    def segment(self, run: Run) -> tuple[Run, History]:
        """Return the run one epoch later, and that epoch's scalars by name."""
        return self.segment_fn(run, self.train, self.validation)

    def __call__(self, key: Key) -> tuple[Run, History]:
        """Return the finished run, and the history: an array `(segments,)` a name."""
        return jax.lax.scan(lambda run, _: self.segment(run), self.start(key), length=self.segments)


def program(
    net: Net,
    objective: ObjectiveFunction,
    optimizer: optax.GradientTransformation,
    data: Data,
    *,
    epochs: int,
    batch_size: int | None = 64,
    validation: Data | None = None,
    metrics: Mapping[str, Metric] | None = None,
    augment: Callable[[Key, Any], Any] | None = None,
) -> Program:
    """Return the program that trains a network by mini-batch gradient descent.

    An epoch visits every example once, in an order drawn from the key; the last batch is filled up with
    examples of weight 0, so that means are exact for any number of examples. Each epoch reports the means of
    the objective and its parts over the steps taken (`loss`, `cross_entropy`, `l2`, …), the metrics of the
    outputs in training, and all of them again as `validation/…`, in evaluation, over the whole validation set.

    Args:
        net: the network.
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes.
        optimizer: an Optax optimizer, with its schedule.
        data: inputs and targets, pytrees with the examples along the first axis. They live on the device.
        epochs: how often every example is seen, at least 1.
        batch_size: examples a step; `None` for all of them, 1 for stochastic gradient descent proper.
        validation: inputs and targets to report on after each epoch.
        metrics: `jn.metrics` by the names to report them under.
        augment: `(key, example) -> example`, such as `jn.data.shift(1)`, drawn anew for each example and step.

    Raises:
        NetError: for empty data, inputs and targets of different lengths, or a batch larger than the data.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> linear = program(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.adam(0.1), (x, y),
    ...                  epochs=20, metrics={"accuracy": jn.metrics.accuracy})
    >>> run, history = linear(jax.random.key(1))
    >>> history["loss"].shape, bool(history["accuracy"][-1] > 0.95)
    ((20,), True)
    """
    metrics = dict(metrics or {})
    examples = _check_data("data", data)
    if validation is not None:
        _check_data("validation", validation)
    _check_metrics(metrics)
    try:
        check_count("epochs", epochs)
        check_count("batch_size", examples if batch_size is None else batch_size)
    except NetError as error:
        error.label = "program"
        raise
    size = examples if batch_size is None else batch_size
    if size > examples:
        raise NetError(
            f"expects a batch no larger than the data, got batch_size={size} for {examples} examples; "
            f"batch_size=None takes them all at once",
            label="program",
        )
    one_step = runs.step(net, objective, optimizer)

    def start_fn(key: Key, train: Data) -> Run:
        return runs.start(net, optimizer, key, jax.tree.map(lambda leaf: leaf[:1], train[0]))

    def segment_fn(run: Run, train: Data, held_out: Data | None) -> tuple[Run, History]:
        index, weights = tally.rows(examples, size)
        order = jax.random.permutation(fold(jax.random.fold_in(run.key, run.step), "order"), examples)

        def one(run: Run, batch: tuple[jax.Array, jax.Array]) -> tuple[Run, tally.Tally]:
            chosen = tally.take(train, *batch)
            if augment is not None:
                keys = jax.random.split(fold(jax.random.fold_in(run.key, run.step), "augment"), size)
                chosen = replace(chosen, x=jax.vmap(augment)(keys, chosen.x))
            run, outputs, parts = one_step(run, chosen)
            return run, tally.measure(metrics, outputs, chosen, parts)

        run, row = tally.over_batches(metrics, one, run, (order[index], weights))
        if held_out is not None:
            seen = tally.evaluate(net, run.params, run.state, held_out, metrics, objective)
            row |= {f"validation/{name}": value for name, value in seen.items()}
        return run, row

    return Program(
        jax.tree.map(jnp.asarray, data), jax.tree.map(jnp.asarray, validation), start_fn, segment_fn, epochs, examples
    )


def _check_data(name: str, data: Any) -> int:
    if not isinstance(data, tuple) or len(data) != 2:
        raise NetError(f"expects {name} as a pair (inputs, targets), got {type(data).__name__}", label="program")
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(part)] for part in data]
    lengths = {shape[:1] for part in shapes for shape in part}
    if () in lengths or not all(shapes):
        raise NetError(f"expects arrays with the examples along the first axis in {name}", label="program")
    if len(lengths) > 1:
        raise NetError(
            f"expects as many inputs as targets in {name}, got inputs {shapes[0]} and targets {shapes[1]}",
            label="program",
        )
    if (0,) in lengths:
        raise NetError(f"expects at least one example in {name}, got none", label="program")
    return shapes[0][0][0]


def _check_metrics(metrics: Mapping[str, Any]) -> None:
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise NetError(
                f"expects metrics from jn.metrics, got {type(metric).__name__} for {name!r}; "
                f"jn.metrics.mean(loss) makes one of a loss",
                label="program",
            )
