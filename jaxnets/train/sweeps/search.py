"""Bayesian search through Optuna, with each batch of suggestions run as one sweep."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from jaxnets.errors import NetError, check_count
from jaxnets.train.fit import interrupts
from jaxnets.train.sweeps.designs import Space, check_spaces, crossed, inputs, tidy
from jaxnets.train.sweeps.ledger import Ledger, advance
from jaxnets.train.sweeps.progress import showing
from jaxnets.train.sweeps.result import Mode, SweepResult, collect, joined, means, sign_of
from jaxnets.train.sweeps.strategy import Computed, Team
from jaxnets.train.sweeps.sweep import Study, named, plan

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
        mode: whether "min" or "max" is better; read off the name if not given.
        seed: of Optuna's own randomness.
        sampler: Optuna's; a `TPESampler` (tree-structured Parzen estimator) if not given.
        progress: whether to show a bar.
        **how: how members are computed, as in `sweep`.

    Returns:
        As `sweep`, configurations in the order in which they were suggested. One that failed is told to have.

    Raises:
        NetError: as `sweep`, for a metric that is not reported, or a space that is none.
        ModuleNotFoundError: if Optuna is not installed.

    Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework" (2019); Bergstra et al.,
    "Algorithms for Hyper-Parameter Optimization" (2011), section 4.

    >>> import jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jnp.linspace(-1, 1, 20)[:, None]
    >>> def study(hp):
    ...     objective = jn.objective(jn.losses.squared_error)
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, 3 * x), epochs=3, batch_size=10)
    >>> result = search(study, {"lr": jn.train.log_uniform(1e-3, 1.0)}, "loss", trials=8, batch=4, strategy="vmap")
    >>> len(result), result.best("loss").hp["lr"] > 0.1
    (8, True)
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ModuleNotFoundError("search needs Optuna: install jaxnets with its extra 'search'") from None
    with named("search"):
        sign = sign_of(metric, mode)
        check_count("trials", trials)
        check_count("batch", batch)
        if not space:
            raise NetError("expects at least one hyperparameter in space, got none")
        check_spaces("space", space)
    spoken = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(
        direction="maximize" if sign > 0 else "minimize", sampler=sampler or optuna.samplers.TPESampler(seed=seed)
    )
    optuna.logging.set_verbosity(spoken)
    spaces = {name: _distribution(each) for name, each in space.items()}
    results, team = [], None
    with interrupts() as interrupted, showing(progress, "search", trials) as show:
        for begin in range(0, trials, batch):
            asked = [found.ask(spaces) for _ in range(min(batch, trials - begin))]
            hp = {name: tidy(np.asarray([trial.params[name] for trial in asked])) for name in space}
            with named("search"):
                design = crossed(hp, seeds)
                team = _team(study, team, design, how)
            ledger = Ledger(team)
            advance(team, ledger, range(len(design)), ledger.segments, interrupted=interrupted)
            results.append(collect(team, design, ledger))
            with named("search"):
                values = means(results[-1].value(metric), design.config)
            if interrupted:
                break
            for trial, value in zip(asked, values, strict=True):
                failed = not np.isfinite(value)
                found.tell(trial, None if failed else value, optuna.trial.TrialState.FAIL if failed else None)
            show(begin + len(asked), f"{begin + len(asked)} of {trials} trials", f"best {metric} {_best(found)}")
    return joined(results)


def _team(study: Study, team: Team | None, design: Any, how: Computed) -> Team:
    """Return the sweep of a batch: the one before, over another design."""
    if team is None:
        return plan(study, design, **how)
    return replace(team, inputs=inputs(design.hp), keys=design.keys)


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
