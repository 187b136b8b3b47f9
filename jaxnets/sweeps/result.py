"""The result of a sweep: the history and train state of each trial, the best configuration, tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, labeled_as, require
from jaxnets.sweeps import execution
from jaxnets.sweeps.space import Values
from jaxnets.sweeps.state import SweepState
from jaxnets.sweeps.strategy import Plan
from jaxnets.train.names import Directions, Mode, settled
from jaxnets.train.state import TrainState, is_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Best:
    """The best configuration of a sweep.

    Attributes:
        hp: its hyperparameters.
        value: the metric's mean over its trials, or the value of the trial.
        trial: the number of its best trial.
        trials: the numbers of all its trials.
    """

    hp: dict[str, Any]
    value: float
    trial: int
    trials: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class SweepResult:
    """The result of `sweep`. Trials are numbered from 0: configuration after configuration, seed after seed.

    Attributes:
        history: an array `(trials, epochs, ...)` for each reported name. Epochs that a trial did not run, because it
            stopped, failed or was dropped, are NaN, or -1 for integers.
        hp: each hyperparameter's values `(trials,)`.
        labels: what distinguishes trials of one configuration, `(trials,)` each: `seed`, and in cross-validation
            `fold`.
        config: `(trials,)`, the number of each trial's configuration.
        keys: `(trials,)`, the random key of each trial.
        runs: the final train states, stacked, as NumPy arrays; zero for a trial that has not begun.
        epochs: `(trials,)`, how many epochs each trial has run.
        reported: `(trials,)`, the epoch of the final parameters: the best if early stopping restored it, otherwise the
            last; -1 if there is none.
        failed: `(trials,)`, the step at which a value was not finite; -1 if there was none.
        dropped: `(trials,)`, whether `halving` dropped the trial.
        layout: how trials were computed together: "vmap" or "map", and on which devices.
        directions: whether a lower or a higher value is better for each reported name, as the programs declare it.
    """

    history: dict[str, np.ndarray]
    hp: Values
    labels: Values
    config: np.ndarray
    keys: Any
    runs: TrainState
    epochs: np.ndarray
    reported: np.ndarray
    failed: np.ndarray
    dropped: np.ndarray
    layout: execution.Layout = field(repr=False)
    directions: Directions | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.config)

    def __repr__(self) -> str:
        configs = len(np.unique(self.config))
        return (
            f"SweepResult({len(self)} trials of {configs} configurations of {', '.join(self.hp) or 'nothing'}; "
            f"{(self.failed >= 0).sum()} failed)"
        )

    def run(self, trial: int) -> TrainState:
        """Return the final train state of a trial.

        Raises:
            NetError: if there is no such trial, or it has not begun.
        """
        if not 0 <= trial < len(self):
            raise NetError(f"expects a trial from 0 to {len(self) - 1}, got {trial}", label="run")
        if not self.epochs[trial]:
            raise NetError(f"finds that trial {trial} has not begun", label="run")
        return jax.tree.map(lambda leaf: jnp.asarray(leaf[trial]), self.runs)

    def value(self, metric: str) -> np.ndarray:
        """Return a metric at the end of each trial, `(trials,)`; NaN if the trial failed or has not begun.

        This is the value of the final parameters, which are the best ones where early stopping restored them.

        Raises:
            NetError: if it was not reported, or is not a scalar.
        """
        rows = scalar_rows(self.history, metric)
        values = rows[np.arange(len(self)), np.maximum(self.reported, 0)].astype(np.float64)
        return np.where((self.reported >= 0) & (self.failed < 0), values, np.nan)

    def table(self) -> list[dict[str, Any]]:
        """Return a record for each trial: its number, labels, hyperparameters and final values.

        `epochs` is how many it has run; `failed` is the step at which a value was not finite, or `None`. A reported
        value with the name of a hyperparameter, as the part `l2` of an objective may have, is called `reported/l2`.
        """
        columns = {"trial": np.arange(len(self)), **self.labels, **self.hp, "epochs": self.epochs}
        for name in [name for name, rows in self.history.items() if rows.ndim == 2]:
            columns[f"reported/{name}" if name in columns else name] = self.value(name)
        failed = [None if step < 0 else int(step) for step in self.failed]
        return [
            {name: column[trial].item() for name, column in columns.items()} | {"failed": failed[trial]}
            for trial in range(len(self))
        ]

    def frame(self) -> "DataFrame":
        """Return the table as a pandas `DataFrame`, with the trial's number as its index.

        Raises:
            ModuleNotFoundError: if pandas is not installed.
        """
        pandas = require("pandas", "search")
        return pandas.DataFrame(self.table()).set_index("trial")

    def failures(self) -> list[dict[str, Any]]:
        """Return a record for each trial that failed at a non-finite value: number, labels, hyperparameters, step."""
        return [
            {
                "trial": int(trial),
                **{name: column[trial].item() for name, column in (self.labels | self.hp).items()},
                "step": int(self.failed[trial]),
            }
            for trial in np.flatnonzero(self.failed >= 0)
        ]

    def best(self, metric: str, mode: Mode | None = None, *, by: Literal["config", "trial"] = "config") -> Best:
        """Return the configuration that is best on average over its seeds, so that a lucky seed does not win.

        A configuration with a trial that failed, or that `halving` dropped, is not considered.

        Args:
            metric: its name in the history, such as "validation/accuracy".
            mode: whether "min" or "max" is better; default: what the programs' metrics and objective declare.
            by: "trial" for the best single trial.

        Raises:
            NetError: for a metric that was not reported or whose mode is unknown, or if no value is finite.
        """
        with labeled_as("best"):
            if by not in ("config", "trial"):
                raise NetError(f"expects by 'config' or 'trial', got {by!r}")
            values = np.where(self.dropped, np.nan, self.value(metric))
            sign = 1 if settled(metric, mode, self.directions) == "max" else -1
            groups = self.config if by == "config" else np.arange(len(self))
            scores = sign * means(values, groups)
            if not np.isfinite(scores).any():
                raise NetError(f"finds no {'configuration' if by == 'config' else 'trial'} with a finite {metric!r}")
        group = int(np.nanargmax(np.where(np.isfinite(scores), scores, np.nan)))
        trials = np.flatnonzero(groups == group)
        trial = int(trials[np.argmax(sign * values[trials])])
        hp = {name: column[trial].item() for name, column in self.hp.items()}
        return Best(hp, float(sign * scores[group]), trial, tuple(trials.tolist()))

    def plot(self, x: str, metric: str) -> "Figure":
        """Draw a metric's mean over seeds with its 95 % interval, against a hyperparameter or over epochs.

        The interval is a bootstrap over seeds, `jaxnets.plot.style.bootstrap`; for fewer than five seeds it is their
        range. Against a hyperparameter there is a line for each combination of the others, or a point for each
        configuration where these were drawn at random. The axis is logarithmic if the values are spaced
        logarithmically.

        Args:
            x: a hyperparameter, or "epoch" for the curves of up to eight configurations, spread evenly over the ranking
                by final value. A curve ends with the first of its trials.
            metric: its name in the history.

        Raises:
            NetError: for a hyperparameter or metric that the sweep does not have.
        """
        from jaxnets.plot import sweeps

        with labeled_as("plot"):
            if x != "epoch" and x not in self.hp:
                raise NetError(f"finds no hyperparameter {x!r}; the sweep has {', '.join(['epoch', *self.hp])}")
            values = self.value(metric)
        if x == "epoch":
            return sweeps.over_epochs(self.history[metric], values, self.hp, self.config, metric)
        return sweeps.by_hyperparameter(x, values, self.hp, self.config, metric)


def collect(plan: Plan, state: SweepState) -> SweepResult:
    """Return the result of a sweep that has ended or was interrupted."""
    design, stopping = plan.design, plan.shared.stopping
    return SweepResult(
        history=state.history,
        hp=design.hp,
        labels=design.labels,
        config=design.config,
        keys=design.keys,
        runs=state.stacked(stopping=stopping),
        epochs=state.done,
        reported=state.reported(stopping),
        failed=state.failed(),
        dropped=state.dropped,
        layout=plan.layout,
        directions=plan.shared.directions,
    )


def joined(results: Sequence[SweepResult]) -> SweepResult:
    """Return several results as one; trials and configurations are numbered from the first to the last."""
    begin = np.cumsum([0] + [each.config.max() + 1 for each in results])
    config = np.concatenate([each.config + start for each, start in zip(results, begin)])

    def concatenate(*parts: Any) -> Any:
        return jnp.concatenate(parts) if is_key(parts[0]) else np.concatenate(parts)

    names = ("history", "hp", "labels", "keys", "runs", "epochs", "reported", "failed", "dropped")
    whole = {name: jax.tree.map(concatenate, *[getattr(each, name) for each in results]) for name in names}
    return replace(results[0], config=config, **whole)


def scalar_rows(history: Mapping[str, np.ndarray], metric: str) -> np.ndarray:
    """Return the history `(trials, epochs)` of a metric.

    Raises:
        NetError: if it was not reported, or is not a scalar.
    """
    rows = history.get(metric)
    if rows is None or rows.ndim != 2:
        scalars = ", ".join(name for name, each in history.items() if each.ndim == 2)
        raise NetError(f"finds no scalar {metric!r} in the history; it has {scalars}")
    return rows


def means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the mean of each group; NaN if one of its values is NaN."""
    return np.array([values[groups == group].mean() for group in range(groups.max() + 1)])
