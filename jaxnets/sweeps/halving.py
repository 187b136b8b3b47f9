"""Successive halving: many trials start, and only the better ones continue."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.sweeps.loop import Callbacks, run_sweep
from jaxnets.sweeps.result import Mode, SweepResult, means, scalar_rows
from jaxnets.sweeps.state import SweepState, advance
from jaxnets.sweeps.strategy import Plan
from jaxnets.sweeps.sweep import SweepOptions, TrialFunction, plan, split_options
from jaxnets.train.interruption import Interruption
from jaxnets.train.names import settled


@explained
def halving(
    trial_fn: TrialFunction,
    metric: str,
    *,
    mode: Mode | None = None,
    first: int = 1,
    factor: int = 3,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    checkpoint: str | Path | None = None,
    overhead: float | None = 0.02,
    **options: Unpack[SweepOptions],
) -> SweepResult:
    """Sweep by successive halving: after r, rη, rη², … epochs only the best 1/η of the configurations continue.

    A configuration is judged by the metric's mean over its seeds. Of 81 with η = 3 and r = 1, 27 run past epoch 1,
    9 past epoch 3, 3 past epoch 9 and one past epoch 27: all rungs cost about the same. All are compared at the same
    epoch, since the trials of a sweep run side by side; none is promoted ahead of the others.

    Args:
        trial_fn: as in `sweep`; the winner runs all epochs of its program.
        metric: the value to compare, such as "validation/accuracy".
        mode: whether "min" or "max" is better; default: what the program's metrics and objective declare.
        first: r, how many epochs each trial runs, at least 1.
        factor: η, at least 2.
        progress: whether to show a bar.
        callbacks: makes the callbacks of each trial, as in `sweep`.
        checkpoint: the folder to save in and to resume from, as in `sweep`.
        overhead: the fraction of the time that saving may take.
        **options: the design, and how trials are computed, as in `sweep`.

    Returns:
        As in `sweep`; a dropped trial has no history from then on, and is never `best`.

    Raises:
        NetError: as in `sweep`, for a metric that is not reported, or numbers out of range.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016); the rungs
    as in Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2018), algorithm 1.

    >>> import jaxnets as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> def trial(hp):
    ...     objective = jn.objective(jn.losses.squared_error)
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, 3 * x), epochs=4, batch_size=10)
    >>> result = halving(trial, "loss", grid={"lr": [0.001, 0.01, 0.1, 0.3]}, factor=2, strategy="vmap")
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
        chosen, how = split_options(options)
        rungs = Rungs(metric, mode, first, factor)
        make_plan, settings = partial(plan, trial_fn, chosen), {"halving": repr(rungs)}
        return run_sweep(
            "halving", make_plan, how, progress, callbacks, checkpoint, overhead, schedule=rungs, settings=settings
        )


@dataclass(frozen=True)
class Rungs:
    """The schedule of successive halving; `halving` describes each attribute."""

    metric: str
    mode: Mode | None
    first: int
    factor: int

    def __call__(
        self, plan: Plan, state: SweepState, interrupted: Interruption, after_epoch: Callable[[SweepState], None]
    ) -> None:
        """Run the trials rung by rung, from the first rung at which they have not yet been compared."""
        config = plan.design.config
        sign = 1 if settled(self.metric, self.mode, plan.shared.directions) == "max" else -1
        rung = min(max(self.first, state.judged * self.factor), state.epochs)
        while True:
            going = np.flatnonzero(~state.dropped)
            advance(plan, state, going.tolist(), rung, interrupted=interrupted, after_epoch=after_epoch)
            if interrupted or rung == state.epochs:
                break
            rows = scalar_rows(state.history, self.metric)
            reported = rows[np.arange(len(config)), state.reported(plan.shared.stopping)].astype(np.float64)
            scores = sign * means(np.where(state.failed() < 0, reported, np.nan), config)
            configs = np.unique(config[going])
            # NaN, for a configuration with a failed trial, comes last.
            best = configs[np.argsort(-scores[configs])]
            stays = np.isin(config[going], best[: max(1, len(configs) // self.factor)])
            state.over[going[~stays]] = state.dropped[going[~stays]] = True
            state.judged, rung = rung, min(rung * self.factor, state.epochs)
