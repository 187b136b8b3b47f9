"""Early stopping as part of a pure run: the best is kept inside it, and restored when it ends."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, check_count, check_positive, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.train.names import Directions, Mode, settled
from jaxnets.train.state import TrainState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stopping:
    """What early stopping remembers.

    Attributes:
        best: the best value seen, float32; NaN before any.
        best_segment: the number of the epoch that had it, int32; -1 before any.
        epoch: how many epochs have run, int32.
        stopped: whether the run has stopped, bool.
        kept: parameters, state and average after the best epoch.
    """

    best: Any
    best_segment: Any
    epoch: Any
    stopped: Any
    kept: Any


@dataclass(frozen=True)
class EarlyStopping:
    """When to stop, made by `early_stopping`: pure functions over a run.

    Attributes:
        metric: what is looked at, by its name in the history.
        patience: how many epochs without a better value are waited for.
        mode: whether "min" or "max" is better; `None` until a program that has the metric takes the rule up.
        min_delta: by how much a value must be better to count.
        restore: whether the finished run has the best epoch's parameters, state and average.
    """

    metric: str
    patience: int
    mode: Mode | None = None
    min_delta: float = 0.0
    restore: bool = True

    def settle(self, directions: Directions) -> "EarlyStopping":
        """Return the rule for a program, with the mode that its metrics and objective declare if it has none.

        Raises:
            NetError: if they declare none.
        """
        with labeled_as("early_stopping"):
            return replace(self, mode=settled(self.metric, self.mode, directions))

    def start(self, run: TrainState) -> TrainState:
        """Return a run that has not begun, with nothing seen yet."""
        zero, none = jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)
        kept = _copied(_snapshot(run)) if self.restore else None
        return replace(
            run, stopping=Stopping(jnp.full((), jnp.nan, jnp.float32), none, zero, jnp.zeros((), bool), kept)
        )

    def update(self, run: TrainState, row: dict[str, Any]) -> TrainState:
        """Return the run with what its last epoch showed.

        Raises:
            NetError: if the metric is not reported, or no scalar.
        """
        if self.metric not in row or jnp.shape(row[self.metric]):
            scalars = ", ".join(name for name, value in row.items() if not jnp.shape(value))
            raise NetError(f"finds no scalar {self.metric!r} in the history; it has {scalars}", label="early_stopping")
        with labeled_as("early_stopping"):
            mode = settled(self.metric, self.mode, None)
        value, seen = row[self.metric].astype(jnp.float32), run.stopping
        gain = value - seen.best if mode == "max" else seen.best - value
        better = (gain > self.min_delta) | (jnp.isnan(seen.best) & ~jnp.isnan(value))
        best_segment = jnp.where(better, seen.run_epoch, seen.best_segment)
        kept = seen.kept
        if self.restore:
            kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), _snapshot(run), seen.kept)
        waited = seen.run_epoch - jnp.maximum(best_segment, -1)
        return replace(
            run,
            stopping=Stopping(
                jnp.where(better, value, seen.best), best_segment, seen.run_epoch + 1, waited >= self.patience, kept
            ),
        )

    def finish(self, run: TrainState) -> TrainState:
        """Return the run with the best epoch's parameters, if they are to be restored and there was one."""
        if not self.restore:
            return run
        best = jax.tree.map(
            lambda kept, last: jnp.where(run.stopping.best_segment >= 0, kept, last), run.stopping.kept, _snapshot(run)
        )
        return replace(run, **best)


@explained
def early_stopping(
    metric: str,
    *,
    patience: int,
    mode: Mode | None = None,
    min_delta: float = 0.0,
    restore: bool = True,
) -> EarlyStopping:
    """Stop a run when a metric has not got better for some epochs, and go back to the best.

    It is part of the run itself, so that it holds for `program(key)`, under `vmap` and in `fit` alike: give it to
    `program(..., stopping=...)`, or to `fit` among the callbacks. Values that are NaN are never better.

    Args:
        metric: its name in the history, `"validation/loss"` or `"ema/validation/accuracy"`.
        patience: how many epochs (epochs) in a row may pass without a better value.
        mode: whether "min" or "max" is better. If not given, what the program's metric of that name declares
            (`Metric.higher_is_better`); "min" for its loss and the parts of its objective.
        min_delta: by how much a value must be better to count, ≥ 0.
        restore: whether the finished run has the best epoch's parameters, state and average.

    Raises:
        NetError: for a patience below 1, a negative `min_delta` or another mode; from `program` or `fit`, if no mode is
            given and none declared, as for what `monitor=` reports.

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


def _snapshot(run: TrainState) -> dict[str, Any]:
    return {"params": run.params, "state": run.state, "ema": run.ema}


def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)
