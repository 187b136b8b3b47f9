"""Bayesian search through Optuna, with each batch of suggestions run as one sweep."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, require
from jaxnets.sweeps.execution import Plain, look
from jaxnets.sweeps.loop import Callbacks, conduct
from jaxnets.sweeps.progress import showing
from jaxnets.sweeps.result import Mode, SweepResult, joined, means
from jaxnets.sweeps.space import Design, Space, check_spaces, crossed, inputs, tidy
from jaxnets.sweeps.strategy import Computed, Team
from jaxnets.sweeps.sweep import Study, plan
from jaxnets.train.checkpoint import storage
from jaxnets.train.interruption import interrupts
from jaxnets.train.names import settled

if TYPE_CHECKING:
    import optuna


def search(
    study: Study,
    space: Mapping[str, Space],
    metric: str,
    *,
    trials: int,
    batch: int = 8,
    seeds: int | Any = 1,
    mode: Mode | None = None,
    seed: int = 0,
    sampler: "optuna.samplers.BaseSampler | None" = None,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    checkpoint: str | Path | None = None,
    overhead: float | None = 0.02,
    **how: Unpack[Computed],
) -> SweepResult:
    """Search for the best hyperparameters with Optuna: it suggests a batch, a sweep runs it, Optuna learns what came.

    Args:
        study: as in `sweep`.
        space: where each hyperparameter is drawn from, such as `log_uniform(1e-4, 1e-1)`.
        metric: what is judged by, such as "validation/accuracy"; its mean over the seeds is told.
        trials: how many configurations are tried in all.
        batch: how many are suggested at a time, before any of them is known.
        seeds: as in `sweep`, for each configuration.
        mode: whether "min" or "max" is better; what the programs' metrics and objective declare if not given.
        seed: of Optuna's own randomness.
        sampler: Optuna's; a `TPESampler` (tree-structured Parzen estimator) if not given.
        progress: whether to show a bar.
        callbacks: gives the callbacks of each trial, as in `sweep`; trials are numbered on from batch to batch.
        checkpoint: a folder to save in, a folder of its own for each batch. If the search is broken off, the same call
            goes on from there: a sampler with a fixed seed suggests the same again, and what is known is read.
        overhead: which share of the time saving may take.
        **how: how trials are computed, as in `sweep`.

    Returns:
        As `sweep`, configurations in the order in which they were suggested. One that failed is told to have.

    Raises:
        NetError: as `sweep`, for a metric that is not reported, a space that is none, or a folder of something else.
        ModuleNotFoundError: if Optuna is not installed.

    Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework" (2019); Bergstra et al.,
    "Algorithms for Hyper-Parameter Optimization" (2011), section 4.

    >>> import jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jnp.linspace(-1, 1, 20)[:, None]
    >>> def study(hp):
    ...     objective = jn.objective(jn.losses.squared_error)
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, 3 * x), epochs=3, batch_size=10)
    >>> result = search(study, {"lr": jn.sweeps.log_uniform(1e-3, 1.0)}, "loss", trials=8, batch=4, strategy="vmap")
    >>> len(result), result.best("loss").hp["lr"] > 0.1
    (8, True)
    """
    optuna = require("optuna", "search")
    with labeled_as("search", keep=True):
        check_count("trials", trials)
        check_count("batch", batch)
        if not space:
            raise NetError("expects at least one hyperparameter in space, got none")
        check_spaces("space", space)
        directions = None
        if mode is None:  # Optuna has to know before it suggests anything
            some = crossed({name: each.least() for name, each in space.items()}, 1)
            one = {name: column[0] for name, column in inputs(some.hp).items()}
            directions = look(Plain(study), (), one, some.keys[0]).directions
        mode = settled(metric, mode, directions)
    place = None if checkpoint is None else Path(checkpoint).expanduser()
    if place is not None:
        storage.check_search(place)
    spoken = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(
        direction="maximize" if mode == "max" else "minimize",
        sampler=sampler or optuna.samplers.TPESampler(seed=seed),
    )
    optuna.logging.set_verbosity(spoken)
    spaces = {name: _distribution(each) for name, each in space.items()}
    results, teams = list[SweepResult](), list[Team]()
    with interrupts() as interrupted, showing(progress, "search", trials) as show:
        for begin in range(0, trials, batch):
            asked = [found.ask(spaces) for _ in range(min(batch, trials - begin))]
            hp = {name: tidy(np.asarray([trial.params[name] for trial in asked])) for name in space}
            with labeled_as("search", keep=True):
                design = crossed(hp, seeds)

                def planned(how: Computed, design: Design = design) -> Team:
                    teams.append(_team(study, teams, design, how))
                    return teams[-1]

                watch = None if callbacks is None else _numbered_on(callbacks, sum(map(len, results)))
                folder = None if place is None else storage.batch_of(place, begin // batch)
                results.append(
                    conduct("search", planned, how, design, False, watch, folder, overhead, interrupted=interrupted)
                )
                values = means(results[-1].value(metric), design.config)
            if interrupted:
                break
            for trial, value in zip(asked, values, strict=True):
                failed = not np.isfinite(value)
                found.tell(trial, None if failed else value, optuna.trial.TrialState.FAIL if failed else None)
            show(begin + len(asked), f"{begin + len(asked)} of {trials} trials", f"best {metric} {_best(found)}")
    return joined(results)


def _numbered_on(callbacks: Callbacks, begin: int) -> Callbacks:
    """Return the same callbacks for trials that are numbered from another number on."""
    return lambda trial: callbacks({**trial, "trial": trial["trial"] + begin})


def _team(study: Study, before: list[Team], design: Design, how: Computed) -> Team:
    """Return the sweep of a batch: the first one over another design."""
    if not before:
        return plan(study, design, **how)
    return replace(before[0], inputs=inputs(design.hp), keys=design.keys)


def _best(found: "optuna.Study") -> str:
    try:
        return f"{found.best_value:.4f}"
    except ValueError:  # none has ended
        return "unknown"


def _distribution(space: Space) -> Any:
    import optuna

    if space.kind == "choice":
        return optuna.distributions.CategoricalDistribution(space.options)
    if space.kind == "integers":
        return optuna.distributions.IntDistribution(int(space.low), int(space.high))
    return optuna.distributions.FloatDistribution(space.low, space.high, log=space.kind == "log_uniform")
