"""Early stopping as part of a pure run: the train state holds the best parameters until the run ends."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import check_count, check_positive, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.train.names import Directions, Mode, check_scalar, settled
from jaxnets.train.state import TrainState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stopping:
    """The state of early stopping.

    Attributes:
        best: the best value so far, float32; NaN before there is one.
        best_epoch: the number of its epoch, from 0, int32; -1 before there is one.
        epoch: the number of epochs run, int32.
        stopped: whether the run has stopped, bool.
        kept: parameters, state and moving average after the best epoch; `None` if they are not restored.
    """

    best: Any
    best_epoch: Any
    epoch: Any
    stopped: Any
    kept: Any


@dataclass(frozen=True)
class EarlyStopping:
    """A rule for early stopping, made by `early_stopping`: pure functions over a train state.

    Attributes:
        metric: the value that is monitored, by its name in the history.
        patience: how many epochs in a row may pass without a better value.
        mode: whether "min" or "max" is better; `None` until a program that reports the value settles it.
        min_delta: by how much a value must be better to count.
        restore: whether the run ends with the best epoch's parameters, state and moving average.
    """

    metric: str
    patience: int
    mode: Mode | None = None
    min_delta: float = 0.0
    restore: bool = True

    def settle(self, directions: Directions) -> "EarlyStopping":
        """Return the rule with a mode: its own, or the one that a program's metrics and objective declare.

        Raises:
            NetError: if they declare none.
        """
        with labeled_as("early_stopping"):
            return replace(self, mode=settled(self.metric, self.mode, directions))

    def start(self, state: TrainState) -> TrainState:
        """Return an initial train state with the state of early stopping."""
        # Copied, because the train state is donated to the compiled epoch, so no two of its arrays may share memory.
        kept = jax.tree.map(jnp.copy, _snapshot(state)) if self.restore else None
        memory = Stopping(
            best=jnp.full((), jnp.nan, jnp.float32),
            best_epoch=jnp.full((), -1, jnp.int32),
            epoch=jnp.zeros((), jnp.int32),
            stopped=jnp.zeros((), bool),
            kept=kept,
        )
        return replace(state, stopping=memory)

    def update(self, state: TrainState, row: dict[str, Any]) -> TrainState:
        """Return the train state after early stopping has seen an epoch's values.

        Raises:
            NetError: if the metric is not reported, or not a scalar.
        """
        check_scalar(self.metric, row, "early_stopping")
        value, before = row[self.metric].astype(jnp.float32), state.stopping
        gain = value - before.best if self.mode == "max" else before.best - value
        # NaN is never better, and any number is better than the initial NaN.
        better = (gain > self.min_delta) | (jnp.isnan(before.best) & ~jnp.isnan(value))
        best_epoch = jnp.where(better, before.epoch, before.best_epoch)
        kept = before.kept
        if self.restore:
            kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), _snapshot(state), before.kept)
        waited = before.epoch - jnp.maximum(best_epoch, -1)
        memory = Stopping(
            best=jnp.where(better, value, before.best),
            best_epoch=best_epoch,
            epoch=before.epoch + 1,
            stopped=waited >= self.patience,
            kept=kept,
        )
        return replace(state, stopping=memory)

    def finish(self, state: TrainState) -> TrainState:
        """Return the train state with the best epoch's parameters, if they are restored and there was a best."""
        if not self.restore:
            return state
        memory = state.stopping
        best = jax.tree.map(
            lambda kept, last: jnp.where(memory.best_epoch >= 0, kept, last), memory.kept, _snapshot(state)
        )
        return replace(state, **best)


@explained
def early_stopping(
    metric: str,
    *,
    patience: int,
    mode: Mode | None = None,
    min_delta: float = 0.0,
    restore: bool = True,
) -> EarlyStopping:
    """Stop a run when a value has not improved for some epochs, and restore the best epoch.

    It is part of the run itself, so it works in `program(key)`, under `vmap` and in `jn.train.run`: pass it to
    `program(..., stopping=...)`, or among the callbacks of `run` or `fit`. NaN is never better.

    Args:
        metric: the value's name in the history, `"validation/loss"` or `"ema/validation/accuracy"`.
        patience: how many epochs in a row may pass without a better value.
        mode: whether "min" or "max" is better. By default, what the program's metric of that name declares
            (`Metric.higher_is_better`); "min" for its loss and the parts of its objective.
        min_delta: by how much a value must be better to count, ≥ 0.
        restore: whether the run ends with the best epoch's parameters, state and moving average.

    Raises:
        NetError: for a patience below 1, a negative `min_delta` or another mode; from `program` or `run`, if the mode
            is neither given nor declared, as for the values of `monitor=`.

    Prechelt, "Early Stopping – But When?" (1998), criterion UP.

    >>> early_stopping("validation/loss", patience=5)
    EarlyStopping(metric='validation/loss', patience=5, mode=None, min_delta=0.0, restore=True)
    """
    with labeled_as("early_stopping"):
        check_count("patience", patience)
        if mode is not None:
            settled(metric, mode, None)
        check_positive("min_delta", min_delta, zero=True)
    return EarlyStopping(metric, patience, mode, min_delta, restore)


def _snapshot(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "state": state.state, "ema": state.ema}
