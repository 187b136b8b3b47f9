"""What a run is made of, and its parts as pure functions over a train state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, known, labeled_as
from jaxnets.core.net import Key, Net, Params, State, fold
from jaxnets.core.sharding import Shardings, constrained_as
from jaxnets.metrics import Metric
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.ema import estimate_statistics
from jaxnets.train.evaluation import (
    Totals,
    batch_indices,
    batch_totals,
    evaluate_batch,
    evaluate_data,
    gather_batch,
    merge_totals,
    reported_values,
    scan_batches,
    zero_totals,
)
from jaxnets.train.names import SKIPPED, Directions, check_scalar, merge_unique
from jaxnets.train.options import Options
from jaxnets.train.state import Batch, Data, TrainState
from jaxnets.train.step import ObjectiveFunction, make_train_step, revert_nonfinite, start

History = dict[str, Any]
# Examples computed at once in evaluation.
EVALUATION_SIZE = 256


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a program was made of, except for its data, and the pure functions that follow from it.

    Recipes with equal ingredients are equal, so that code compiled for one is reused for the other. A recipe must not
    hold data.

    Attributes:
        net: the network.
        objective: what is minimized.
        optimizer: the Optax optimizer.
        metrics: metrics of the outputs to report, by name.
        options: what a step does beyond plain gradient descent.
        stopping: when to stop before the last epoch, or `None`.
        augment: the augmentation of each example.
        batch_augment: the augmentation of a whole batch, after that.
        sampler: a function that draws the order of an epoch, or `None` for a random permutation.
        examples: how many examples an epoch trains on.
        batch_size: how many of them are in a batch.
        batch_sharding: the sharding of the rows of a batch, `None` if they are not sharded.
        validation_sharding: the sharding of the rows of the validation data, or `None`.
        settings: how the program was written, as text by name.
    """

    net: Net
    objective: ObjectiveFunction
    optimizer: optax.GradientTransformation
    metrics: Mapping[str, Metric]
    options: Options
    stopping: EarlyStopping | None
    augment: Callable[[Key, Any], Any] | None
    batch_augment: Callable[[Key, Any, Any, jax.Array], tuple[Any, Any, jax.Array]] | None
    sampler: Callable[[Key, Data], jax.Array] | None
    examples: int
    batch_size: int
    batch_sharding: NamedSharding | None
    validation_sharding: NamedSharding | None
    settings: Mapping[str, str] = field(compare=False)

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which recipes are compared."""
        return Ingredients(*(getattr(self, each.name) for each in fields(self) if each.compare))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.ingredients == other.ingredients

    def __hash__(self) -> int:
        return hash(self.ingredients)

    @property
    def directions(self) -> Directions:
        """Whether a lower or a higher value is better for each reported name, as metrics and objective declare it."""
        return Directions.of(self.metrics, self.objective, self.options.monitor)

    def start(self, x: Any, key: Key) -> TrainState:
        """Return the train state before the first step on inputs of some shape."""
        state = start(self.net, self.optimizer, x, self.options, key=key)
        return state if self.stopping is None else self.stopping.start(state)

    def run_epoch(
        self, shardings: Shardings | None, state: TrainState, train: Data, validation: Data | None
    ) -> tuple[TrainState, History]:
        """Return the train state one epoch later, and the epoch's values by name.

        A run that has stopped or halted keeps its train state and reports NaN. `shardings` are those of the parameters,
        before and after.
        """

        def one_batch(state: TrainState, rows: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Totals]:
            return self.train_step(state, gather_batch(train, *rows, self.batch_sharding))

        before, order = state, self.batch_rows(state, state.step, train)
        state, row = scan_batches(self.metrics, one_batch, state, order)
        state = revert_nonfinite(before, state)
        # After the check above, so that no non-finite parameters are evaluated.
        evaluations = {} if validation is None else self.evaluate(state, validation, train)
        state = replace(state, params=constrained_as(state.params, shardings))
        state, row = self.close(state, row, evaluations)
        over = halted(before)
        if over is None:
            return state, row
        # A select, since `vmap` would turn a `cond` into one anyway. The host's loop never runs an epoch of a run that
        # is over.
        kept = before, jax.tree.map(missing, row)
        return jax.tree.map(lambda old, new: jnp.where(over, old, new), kept, (state, row))

    def next_batch(self, state: TrainState, train: Data) -> Batch:
        """Return the batch of the next step, augmented."""
        return self.prepare(state, gather_batch(train, *self.next_rows(state, train), self.batch_sharding))

    def next_rows(self, state: TrainState, train: Data) -> tuple[jax.Array, jax.Array]:
        """Return the examples and weights, `(batch,)`, of the next step."""
        # The number of the step within its epoch, which has ⌈examples / batch_size⌉ steps.
        place = state.step % -(-self.examples // self.batch_size)
        # The order derives from the step at which the epoch began.
        index, weights = self.batch_rows(state, state.step - place, train)
        return index[place], weights[place]

    def batch_rows(self, state: TrainState, first: jax.Array, train: Data) -> tuple[jax.Array, jax.Array]:
        """Return the examples and weights, `(batches, batch)`, of the epoch that begins at a step."""
        order = self.draw_order(fold(jax.random.fold_in(state.key, first), "order"), train)
        index, weights = batch_indices(self.examples, self.batch_size)
        return order[index], weights

    def draw_order(self, key: Key, train: Data) -> jax.Array:
        """Return the order of an epoch, one index for each example.

        Raises:
            NetError: if the sampler returns anything but one integer for each example, or a concrete one is out of
                range: indexing an array would clip it to the last example.
        """
        if self.sampler is None:
            return jax.random.permutation(key, self.examples)
        order, examples = jnp.asarray(self.sampler(key, train)), self.examples
        with labeled_as("program"):
            if order.shape != (examples,):
                raise NetError(f"expects sampler to return indices ({examples},), got {order.shape}")
            if not jnp.issubdtype(order.dtype, jnp.integer):
                raise NetError(f"expects sampler to return integers, got {order.dtype}")
            if (values := known(order)) is not None and ((values < -examples) | (values >= examples)).any():
                raise NetError(f"expects sampler to return indices below {examples}, got {values.max()}")
        return order

    def prepare(self, state: TrainState, batch: Batch) -> Batch:
        """Return a batch augmented for the next step."""
        # Augmentation depends only on key and step, so that a resumed run repeats it.
        key = jax.random.fold_in(state.key, state.step)
        if self.augment is not None:
            # One key per example
            keys = jax.random.split(fold(key, "augment"), len(batch.weights))
            batch = replace(batch, x=jax.vmap(self.augment)(keys, batch.x))
        if self.batch_augment is not None:
            batch = Batch(*self.batch_augment(fold(key, "mix"), batch.x, batch.y, batch.weights))
        return batch

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Totals]:
        """Return the train state one step later, and the totals of the batch."""
        batch = self.prepare(state, batch)
        step_fn = make_train_step(
            self.net, self.objective, self.optimizer, self.options, batch_sharding=self.batch_sharding
        )
        state, outputs, parts = step_fn(state, batch)
        # Training metrics use the outputs of the step itself, so they cost no further forward pass.
        return state, batch_totals(self.metrics, outputs, batch, parts)

    def evaluated(self, state: TrainState, train: Data | None = None) -> dict[str, tuple[Params, State]]:
        """Return `(params, state)` to evaluate, by prefix of its values: the train state's and, if any, its average's.

        With training data, the moving average gets its own batch-norm statistics, otherwise those of the train state.
        """
        found = {"validation": (state.params, state.state)}
        if state.ema is not None:
            # The statistics gathered in training are not those of the averaged parameters.
            statistics = state.state
            if train is not None:
                x, _, *weights = train
                statistics = estimate_statistics(
                    self.net,
                    state.ema,
                    statistics,
                    x,
                    key=state.key,
                    weights=weights[0] if weights else None,
                    batch_sharding=self.batch_sharding,
                )
            found["ema/validation"] = state.ema, statistics
        return found

    def evaluate(self, state: TrainState, validation: Data, train: Data | None = None) -> dict[str, History]:
        """Return the values over the validation data, by prefix, of all that `evaluated` returns."""
        evaluated = self.evaluated(state, train)
        how = self.net, self.metrics, self.objective, EVALUATION_SIZE, self.validation_sharding
        with labeled_as(child="validation"):
            return {prefix: evaluate_data(*how, *each, validation) for prefix, each in evaluated.items()}

    def close(self, state: TrainState, row: History, evaluations: Mapping[str, History]) -> tuple[TrainState, History]:
        """Return the train state after `plateau` and early stopping have seen the epoch's values, and these values.

        Raises:
            NetError: if the value that one of them monitors is not reported, or not a scalar.
        """
        skipped = {} if state.scale is None else {SKIPPED: state.scale.skipped}
        found = {f"{prefix}/{name}": value for prefix, values in evaluations.items() for name, value in values.items()}
        row = merge_unique(row, skipped, found)
        if self.options.plateau is not None:
            name, transformation = self.options.plateau
            check_scalar(name, row, "plateau")
            # Called without updates: only its factor is used, in the next epoch's steps.
            state = replace(state, plateau=transformation.update({}, state.plateau, value=row[name])[1])
        return state if self.stopping is None else self.stopping.update(state, row), row

    def finish(self, state: TrainState) -> TrainState:
        """Return the train state that a run ends with: with the best parameters, if early stopping restores them."""
        return state if self.stopping is None else self.stopping.finish(state)

    # An epoch of a stream, whose batches come one at a time

    def single_batch_epoch(
        self, validates: bool, state: TrainState, batch: Batch, validation: Data | None
    ) -> tuple[TrainState, History]:
        """Return the result of an epoch of a single batch; `validates` says whether validation is a stream, too."""
        after, totals, _ = self.train_on_batch(state, self.no_totals(state, batch), batch)
        state = revert_nonfinite(state, after)
        evaluated = self.evaluate_on_batch(state, None, batch)[0] if validates else {}
        return self.close_totals(state, totals, evaluated, validation)

    def no_totals(self, state: TrainState, batch: Batch) -> Totals:
        """Return the totals of no batch yet."""
        return zero_totals(jax.eval_shape(self.train_step, state, batch)[1])

    def train_on_batch(self, state: TrainState, totals: Totals, batch: Batch) -> tuple[TrainState, Totals, jax.Array]:
        """Return the train state and the epoch's totals one batch later, and whether training has halted."""
        state, new = self.train_step(state, batch)
        failed = jnp.zeros((), bool) if state.failed is None else state.failed >= 0
        return state, merge_totals(self.metrics, totals, new), failed

    def evaluate_on_batch(
        self, state: TrainState, totals: dict[str, Totals] | None, batch: Batch
    ) -> tuple[dict[str, Totals], jax.Array]:
        """Return the totals of each evaluation one batch later, and `False` as an array to wait for."""
        new = {
            prefix: evaluate_batch(self.net, *each, batch, self.metrics, self.objective)
            for prefix, each in self.evaluated(state).items()
        }
        if totals is not None:
            new = {prefix: merge_totals(self.metrics, totals[prefix], each) for prefix, each in new.items()}
        return new, jnp.zeros((), bool)

    def close_totals(
        self, state: TrainState, totals: Totals, evaluated: dict[str, Totals], validation: Data | None
    ) -> tuple[TrainState, History]:
        """Return what `close` returns, for totals, or for validation data that are on the device."""
        evaluations = {prefix: reported_values(self.metrics, each) for prefix, each in evaluated.items()}
        if validation:
            evaluations = self.evaluate(state, validation)
        return self.close(state, reported_values(self.metrics, totals), evaluations)


def halted(state: TrainState) -> jax.Array | None:
    """Tell whether a run is over: stopped early, or halted at a non-finite value; `None` if it can't be either."""
    stopped = None if state.stopping is None else state.stopping.stopped
    failed = None if state.failed is None else state.failed >= 0
    return failed if stopped is None else stopped if failed is None else stopped | failed


def missing(leaf: Any) -> jax.Array:
    """Return NaN in the shape of a value, or -1 if its dtype has no NaN."""
    return jnp.full(leaf.shape, jnp.nan if jnp.issubdtype(leaf.dtype, jnp.inexact) else -1, leaf.dtype)
