"""The parts of an epoch as pure functions: prepare a batch, train on it, evaluate, and report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import jax
import optax
from jax.sharding import NamedSharding

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import labeled_as
from jaxnets.core.net import Key, Net, Params, State, fold
from jaxnets.metrics import Metric
from jaxnets.train.data import Data
from jaxnets.train.ema import estimate_statistics
from jaxnets.train.evaluation import Totals, batch_totals, evaluate
from jaxnets.train.names import SKIPPED, check_scalar, merge_unique
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import ObjectiveFunction, Options, make_train_step

Values = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Epoch:
    """Pure functions over a train state, wherever its batches come from; `program` describes each attribute.

    Epochs with equal ingredients are equal, so that code compiled for one serves the other.

    Attributes:
        net: the network.
        objective: what is minimized.
        optimizer: the Optax optimizer.
        metrics: metrics of the outputs to report, by name.
        options: what a step does beyond plain gradient descent.
        augment: what each example goes through.
        batch_augment: what a batch goes through after that.
        batch_sharding: how the rows of a batch lie on the devices, `None` if they are not sharded.
        validation_sharding: how those of the validation data do.
    """

    net: Net
    objective: ObjectiveFunction
    optimizer: optax.GradientTransformation
    metrics: Mapping[str, Metric]
    options: Options
    augment: Callable[[Key, Any], Any] | None
    batch_augment: Callable[[Key, Any, Any, jax.Array], tuple[Any, Any, jax.Array]] | None
    batch_sharding: NamedSharding | None
    validation_sharding: NamedSharding | None

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which epochs are compared."""
        return Ingredients(*(getattr(self, each.name) for each in fields(self) if each.compare))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epoch) and self.ingredients == other.ingredients

    def __hash__(self) -> int:
        return hash(self.ingredients)

    def prepare(self, state: TrainState, batch: Batch) -> Batch:
        """Return a batch augmented as the next step takes it."""
        # Augmentation derives from key and step alone, so that a resumed run repeats it.
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
        # Metrics in training see the outputs of the step itself, so they cost no further forward pass.
        return state, batch_totals(self.metrics, outputs, batch, parts)

    def evaluated(self, state: TrainState, train: Data | None = None) -> dict[str, tuple[Params, State]]:
        """Return `(params, state)` to evaluate, by prefix of its values: the train state's and, if any, its average's.

        With training data, the moving average gets its own batch-norm statistics, else those of the train state.
        """
        found = {"validation": (state.params, state.state)}
        if state.ema is not None:
            # The statistics in training are those of other parameters than the average's.
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

    def evaluate(self, evaluated: Mapping[str, tuple[Params, State]], validation: Data) -> dict[str, Values]:
        """Return the values over the validation data, by prefix, of each `(params, state)` that `evaluated` returns."""
        sharding = self.validation_sharding
        with labeled_as(child="validation"):
            return {
                prefix: evaluate(self.net, each, validation, self.metrics, self.objective, batch_sharding=sharding)
                for prefix, each in evaluated.items()
            }

    def update_plateau(self, state: TrainState, row: Values) -> TrainState:
        """Return the train state after `reduce_on_plateau` has seen the epoch's values.

        Raises:
            NetError: if the value that it follows is not reported, or no scalar.
        """
        if self.options.plateau is None:
            return state
        name, transformation = self.options.plateau
        check_scalar(name, row, "plateau")
        # It is a transformation of no updates: only its factor is used, in the next epoch's steps.
        return replace(state, plateau=transformation.update({}, state.plateau, value=row[name])[1])

    def report(self, state: TrainState, row: Values, evaluations: Mapping[str, Values]) -> Values:
        """Return the epoch's values together with those of evaluations under their prefixes."""
        skipped = {} if state.scale is None else {SKIPPED: state.scale.skipped}
        found = {f"{prefix}/{name}": value for prefix, values in evaluations.items() for name, value in values.items()}
        return merge_unique(row, skipped, found)
