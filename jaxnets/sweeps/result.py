"""What comes of a sweep: each trial's history and run, and what they say together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, labeled_as, require
from jaxnets.sweeps import execution as many
from jaxnets.sweeps.space import Design, Values
from jaxnets.sweeps.state import Ledger
from jaxnets.sweeps.strategy import Team
from jaxnets.train.names import Directions, Mode, settled
from jaxnets.train.state import TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Best:
    """The best configuration of a sweep.

    Attributes:
        hp: its hyperparameters.
        value: the metric's mean over its trials, or the trial's own value.
        trial: the number of its best trial.
        trials: the numbers of all its trials.
    """

    hp: dict[str, Any]
    value: float
    trial: int
    trials: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class SweepResult:
    """What `sweep` returns. Trials are numbered from 0: configuration after configuration, seed after seed.

    Attributes:
        history: an array `(trials, epochs)` for each name reported. What a trial did not run, since it stopped,
            failed or was dropped, is NaN, or -1 where there is no NaN.
        hp: each hyperparameter's values `(trials,)`.
        labels: what tells trials of one configuration apart, `(trials,)` each: `seed`, and `fold` in
            cross-validation.
        config: `(trials,)`, the number of each trial's configuration.
        keys: `(trials,)`, what each trial's randomness came from.
        runs: the finished runs, stacked, as NumPy arrays; all zero for a trial that has not begun.
        epochs: `(trials,)`, how many epochs each has run.
        reported: `(trials,)`, the epoch that the finished run's values are from: the best if it was restored,
            the last if not, -1 if there is none.
        failed: `(trials,)`, the step at which a value was not finite, -1 if there was none.
        dropped: `(trials,)`, whether `halving` left a trial out.
        layout: how trials were computed together: "vmap" or "map", and on which devices.
        directions: whether more or less of each reported value is better, as the programs declare it.
        ranges: between which values each metric lies, as it declares.
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
    layout: many.Layout = field(repr=False)
    directions: Directions | None = field(default=None, repr=False)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.config)

    def __repr__(self) -> str:
        configs = len(np.unique(self.config))
        return (
            f"SweepResult({len(self)} trials of {configs} configurations of {', '.join(self.hp) or 'nothing'}; "
            f"{(self.failed >= 0).sum()} failed)"
        )

    def run(self, trial: int) -> TrainState:
        """Return a trial's finished run.

        Raises:
            NetError: if there is no such trial, or it has not begun.
        """
        if not 0 <= trial < len(self):
            raise NetError(f"expects a trial from 0 to {len(self) - 1}, got {trial}", label="run")
        if not self.epochs[trial]:
            raise NetError(f"finds that trial {trial} has not begun", label="run")
        return jax.tree.map(jnp.asarray, many.unstack(self.runs, trial))

    def value(self, metric: str) -> np.ndarray:
        """Return what each finished run has of a metric, `(trials,)`; NaN if it failed or has not begun.

        Raises:
            NetError: if it was not reported, or is no scalar.
        """
        rows = self.history.get(metric)
        if rows is None or rows.ndim != 2:
            scalars = ", ".join(name for name, each in self.history.items() if each.ndim == 2)
            raise NetError(f"finds no scalar {metric!r} in the history; it has {scalars}")
        there = (self.reported >= 0) & (self.failed < 0)
        found = rows[np.arange(len(self)), np.maximum(self.reported, 0)].astype(np.float64)
        return np.where(there, found, np.nan)

    def table(self) -> list[dict[str, Any]]:
        """Return a record for each trial: its number, labels and hyperparameters, and its finished run's values.

        `epochs` says how far it went; `failed` has the step at which a value was not finite, or `None`. A value that
        has a hyperparameter's name, as the part `l2` of an objective may, is called `reported/l2`.
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
        """Return a record for each trial that met a value that was not finite: who it is, and the step."""
        return [
            {"trial": int(trial), **self._of(int(trial)), "step": int(self.failed[trial])}
            for trial in np.flatnonzero(self.failed >= 0)
        ]

    def best(self, metric: str, mode: Mode | None = None, *, by: Literal["config", "trial"] = "config") -> Best:
        """Return the configuration that is best on average over its seeds, so that a lucky seed does not win.

        A configuration with a trial that failed is out, and so is what `halving` dropped.

        Args:
            metric: its name in the history, such as "validation/accuracy".
            mode: whether "min" or "max" is better; what the programs' metrics and objective declare if not given.
            by: "trial" for the single best trial.

        Raises:
            NetError: for a metric that was not reported, one of which nothing declares the mode, or no finite value.
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
        """Draw a metric's mean over seeds, with a 95 % band: by a hyperparameter, or over epochs.

        The band is the t interval of the mean, m ± t s / √n, as far as the metric's range goes. By a hyperparameter
        there is a line for each combination of the others; points with bars where these were drawn at random. The axis
        is logarithmic where the values are spread so.

        Args:
            x: a hyperparameter, or "epoch" for the curves of up to eight configurations, evenly chosen by where they
                ended. A curve ends where the first of its trials did.
            metric: its name in the history.

        Raises:
            NetError: for a name that is not there.
        """
        from jaxnets.plot import sweeps

        with labeled_as("plot"):
            if x != "epoch" and x not in self.hp:
                raise NetError(f"finds no hyperparameter {x!r}; the sweep has {', '.join(['epoch', *self.hp])}")
            values = self.value(metric)
        limits = self.ranges.get(metric.rpartition("validation/")[2], (-np.inf, np.inf))
        if x == "epoch":
            return sweeps.over_epochs(self.history[metric], values, self.hp, self.config, metric, limits)
        return sweeps.by_hyperparameter(x, values, self.hp, self.config, metric, limits)

    def _of(self, trial: int) -> dict[str, Any]:
        return {name: column[trial].item() for name, column in (self.labels | self.hp).items()}


def collect(team: Team, design: Design, ledger: Ledger) -> SweepResult:
    """Return what is known of all trials, with their runs finished."""
    stopping = team.shared.stopping
    return SweepResult(
        ledger.history, design.hp, design.labels, design.config, design.keys, ledger.stacked(stopping=stopping),
        ledger.done, ledger.reported(stopping), ledger.failed(), ledger.dropped, team.layout, team.shared.directions,
        team.shared.ranges,
    )  # fmt: skip


def joined(results: Sequence[SweepResult]) -> SweepResult:
    """Return several results as one, trials and configurations numbered on."""
    first, begin = results[0], np.cumsum([0] + [each.config.max() + 1 for each in results])
    config = np.concatenate([each.config + start for each, start in zip(results, begin)])

    def whole(name: str) -> Any:
        return jax.tree.map(many.concatenate, *[getattr(each, name) for each in results])

    names = ("history", "hp", "labels", "keys", "runs", "epochs", "reported", "failed", "dropped")
    own = {"layout": first.layout, "directions": first.directions, "ranges": first.ranges}
    return SweepResult(config=config, **own, **{name: whole(name) for name in names})


def means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return each group's mean; NaN if one of its values is."""
    return np.array([values[groups == group].mean() for group in range(groups.max() + 1)])
