"""Successive halving: many trials begin, the better ones go on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.sweeps.loop import Callbacks, Course, conduct
from jaxnets.sweeps.result import Mode, SweepResult, means
from jaxnets.sweeps.space import Design
from jaxnets.sweeps.state import Ledger, advance
from jaxnets.sweeps.strategy import Computed, Team
from jaxnets.sweeps.sweep import Options, Study, parted, plan
from jaxnets.train.interruption import Interruption
from jaxnets.train.names import settled


def halving(
    study: Study,
    metric: str,
    *,
    mode: Mode | None = None,
    first: int = 1,
    factor: int = 3,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    checkpoint: str | Path | None = None,
    overhead: float | None = 0.02,
    **options: Unpack[Options],
) -> SweepResult:
    """Sweep by successive halving: after r, rη, rη², … epochs only the best 1/η of the configurations go on.

    A configuration is judged by the metric's mean over its seeds. Of 81 with η = 3 and r = 1, 27 run a third epoch,
    9 a tenth, 3 a 28th, and one to the end: each rung costs about as much as another. All compare at the same
    epoch, since the trials of a sweep run side by side; nothing is promoted ahead of the others.

    Args:
        study: as in `sweep`; its epochs are what the winner runs.
        metric: what is judged by, such as "validation/accuracy".
        mode: whether "min" or "max" is better; what the programs' metrics and objective declare if not given.
        first: r, how many epochs each trial runs, at least 1.
        factor: η, at least 2.
        progress: whether to show a bar.
        callbacks: gives the callbacks of each trial, as in `sweep`.
        checkpoint: a folder to save in and go on from, as in `sweep`.
        overhead: which share of the time that may take.
        **options: the design, and how trials are computed, as in `sweep`.

    Returns:
        As `sweep`; what was dropped has no history from there, and is never `best`.

    Raises:
        NetError: as `sweep`, for a metric that is not reported, or numbers out of range.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016); the rungs
    as in Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2018), algorithm 1.

    >>> import jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jnp.linspace(-1, 1, 20)[:, None]
    >>> def study(hp):
    ...     objective = jn.objective(jn.losses.squared_error)
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, 3 * x), epochs=4, batch_size=10)
    >>> result = halving(study, "loss", grid={"lr": [0.001, 0.01, 0.1, 0.3]}, factor=2, strategy="vmap")
    >>> result.epochs.tolist(), result.best("loss").hp
    ([1, 1, 2, 4], {'lr': 0.3})
    """
    with labeled_as("halving", keep=True):
        if mode is not None:
            settled(metric, mode, None)
        check_count("first", first)
        check_count("factor", factor)
        if factor < 2:
            raise NetError(f"expects factor ≥ 2, got {factor}")
        design, how = parted(options)

        def planned(how: Computed) -> Team:
            return plan(study, design, **how)

        course = Rungs(metric, mode, first, factor)
        return conduct("halving", planned, how, design, progress, callbacks, checkpoint, overhead, course=course)


@dataclass(frozen=True)
class Rungs(Course):
    """The course of successive halving; `halving` describes each.

    Attributes:
        metric: what is judged by.
        mode: whether "min" or "max" of it is better, or `None` for what the programs declare.
        first: r.
        factor: η.
    """

    metric: str
    mode: Mode | None
    first: int
    factor: int

    def settings(self) -> dict[str, str]:
        """Return what it depends on, as short text by name."""
        return {"halving": repr(self)}

    def run(
        self, team: Team, ledger: Ledger, design: Design, interrupted: Interruption, show: Callable[[Ledger], None]
    ) -> None:
        """Run the trials rung by rung, from the one that was not judged yet."""
        sign = 1 if settled(self.metric, self.mode, team.shared.directions) == "max" else -1
        rung = min(max(self.first, ledger.judged * self.factor), ledger.epochs)
        while True:
            going = np.flatnonzero(~ledger.dropped)
            advance(team, ledger, going.tolist(), rung, interrupted=interrupted, show=show)
            if interrupted or rung == ledger.epochs:
                break
            scores = sign * _scores(design, ledger, self.metric, ledger.reported(team.shared.stopping))
            configs = np.unique(design.config[going])
            best = configs[np.argsort(-scores[configs])]  # NaN comes last
            stays = np.isin(design.config[going], best[: max(1, len(configs) // self.factor)])
            ledger.over[going[~stays]] = ledger.dropped[going[~stays]] = True
            ledger.judged, rung = rung, min(rung * self.factor, ledger.epochs)


def _scores(design: Design, ledger: Ledger, metric: str, at: np.ndarray) -> np.ndarray:
    """Return each configuration's mean at given epochs of its trials; NaN for one that failed."""
    rows = ledger.history.get(metric)
    if rows is None or rows.ndim != 2:
        scalars = ", ".join(name for name, each in ledger.history.items() if each.ndim == 2)
        raise NetError(f"finds no scalar {metric!r} in the history; it has {scalars}", label="halving")
    values = rows[np.arange(len(at)), at].astype(np.float64)
    return means(np.where(ledger.failed() < 0, values, np.nan), design.config)
