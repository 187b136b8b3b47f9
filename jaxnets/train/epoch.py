"""What an epoch is made of: a batch made ready, learned from, and what is reported in the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Key, Net, Params, State, fold
from jaxnets.metrics import Metric
from jaxnets.train import evaluation
from jaxnets.train.data import Data
from jaxnets.train.ema import reestimate
from jaxnets.train.evaluation import Tally
from jaxnets.train.names import SKIPPED, together
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import ObjectiveFunction, Options, make_train_step

Values = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Epoch:
    """Pure functions over a run, wherever its batches come from; `program` describes each attribute.

    Two of the same ingredients are equal, so that what is compiled for one serves the other.

    Attributes:
        net: the network.
        objective: what is minimized.
        optimizer: the Optax optimizer.
        metrics: what is reported of outputs, by name.
        options: what a step does beyond plain gradient descent.
        augment: what each example goes through.
        batch_augment: what a batch goes through behind that.
        batch_sharding: how the rows of a batch are shared out to devices, `None` if they are not.
        held_out_sharding: likewise those of the data that are only looked at.
    """

    net: Net
    objective: ObjectiveFunction
    optimizer: optax.GradientTransformation
    metrics: Mapping[str, Metric]
    options: Options
    augment: Callable[[Key, Any], Any] | None
    batch_augment: Callable[[Key, Any, Any, jax.Array], tuple[Any, Any, jax.Array]] | None
    batch_sharding: NamedSharding | None
    held_out_sharding: NamedSharding | None

    @cached_property
    def ingredients(self) -> Ingredients:
        """What it is compared by."""
        return Ingredients(*(getattr(self, each.name) for each in fields(self) if each.compare))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epoch) and self.ingredients == other.ingredients

    def __hash__(self) -> int:
        return hash(self.ingredients)

    def prepare(self, run: TrainState, batch: Batch) -> Batch:
        """Return a batch augmented and mixed, as the run's next step takes it."""
        key = jax.random.fold_in(run.key, run.step)
        if self.augment is not None:
            keys = jax.random.split(fold(key, "augment"), len(batch.weights))
            batch = replace(batch, x=jax.vmap(self.augment)(keys, batch.x))
        if self.batch_augment is not None:
            batch = Batch(*self.batch_augment(fold(key, "mix"), batch.x, batch.y, batch.weights))
        return batch

    def learn(self, run: TrainState, batch: Batch) -> tuple[TrainState, Tally]:
        """Return the run one step later, and what the step adds to the epoch's tally."""
        batch = self.prepare(run, batch)
        one = make_train_step(
            self.net, self.objective, self.optimizer, self.options, batch_sharding=self.batch_sharding
        )
        run, outputs, parts = one(run, batch)
        return run, evaluation.measure(self.metrics, outputs, batch, parts)

    def shown(self, run: TrainState, train: Data | None = None) -> dict[str, tuple[Params, State]]:
        """Return what is evaluated, by the name in front: the run, and the average with statistics from the data."""
        found = {"validation": (run.params, run.state)}
        if run.ema is not None:
            state = run.state
            if train is not None:
                x, _, *weights = train
                own = weights[0] if weights else None
                state = reestimate(
                    self.net, run.ema, state, x, key=run.key, weights=own, batch_sharding=self.batch_sharding
                )
            found["ema/validation"] = run.ema, state
        return found

    def evaluate(self, shown: Mapping[str, tuple[Params, State]], held_out: Data) -> dict[str, Values]:
        """Return the values of each that is shown, over all the data."""
        batch_sharding = self.held_out_sharding
        with labeled_as(child="validation"):
            return {
                name: evaluation.evaluate(
                    self.net, shown_one, held_out, self.metrics, self.objective, batch_sharding=batch_sharding
                )
                for name, shown_one in shown.items()
            }

    def close(self, run: TrainState, row: Values) -> TrainState:
        """Return the run with what `reduce_on_plateau` makes of the epoch's values.

        Raises:
            NetError: if the value that it looks at is not reported, or no scalar.
        """
        if self.options.plateau is None:
            return run
        name, transformation = self.options.plateau
        if name not in row or jnp.shape(row[name]):
            scalars = ", ".join(key for key, value in row.items() if not jnp.shape(value))
            raise NetError(f"finds no scalar {name!r} in the history; it has {scalars}", label="plateau")
        return replace(run, plateau=transformation.update({}, run.plateau, value=row[name])[1])

    def report(self, run: TrainState, row: Values, seen: Mapping[str, Values]) -> Values:
        """Return the epoch's values with those of evaluations, each under its name."""
        skipped = {} if run.scale is None else {SKIPPED: run.scale.skipped}
        held_out = {f"{front}/{name}": value for front, values in seen.items() for name, value in values.items()}
        return together(row, skipped, held_out)
