"""Bayesian search with Optuna: each batch of suggestions is one sweep."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, require
from jaxnets.core.keywords import explained
from jaxnets.sweeps.execution import Builder, trace_shared
from jaxnets.sweeps.loop import Callbacks, run_sweep
from jaxnets.sweeps.progress import progress_bar
from jaxnets.sweeps.result import Mode, SweepResult, joined, means
from jaxnets.sweeps.space import Space, check_spaces, crossed, tidy
from jaxnets.sweeps.strategy import ExecutionOptions, Plan
from jaxnets.sweeps.sweep import TrialFunction, plan
from jaxnets.train.checkpoint import storage
from jaxnets.train.interruption import interrupts
from jaxnets.train.names import settled

if TYPE_CHECKING:
    import optuna


@explained
def search(
    trial_fn: TrialFunction,
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
    **options: Unpack[ExecutionOptions],
) -> SweepResult:
    """Search for the best hyperparameters with Optuna, which suggests batches of configurations that sweeps evaluate.

    Args:
        trial_fn: as in `sweep`.
        space: the space of each hyperparameter, such as `log_uniform(1e-4, 1e-1)`.
        metric: the value to optimize, such as "validation/accuracy"; Optuna gets its mean over the seeds.
        trials: how many configurations are tried in total.
        batch: how many are suggested at a time, before the value of any of them is known.
        seeds: as in `sweep`, for each configuration.
        mode: whether "min" or "max" is better; default: what the program's metrics and objective declare.
        seed: the seed of Optuna's random draws.
        sampler: Optuna's sampler; default: a `TPESampler` (tree-structured Parzen estimator).
        progress: whether to show a bar.
        callbacks: makes the callbacks of each trial, as in `sweep`; trial numbers continue from batch to batch.
        checkpoint: a folder to save in, with a subfolder for each batch. If the search is killed, the same call
            resumes it: a sampler with a fixed seed repeats its suggestions, and finished batches are read.
        overhead: the fraction of the time that saving may take.
        **options: how trials are computed, as in `sweep`.

    Returns:
        As in `sweep`, with configurations in the order of their suggestion. Failed ones are reported to Optuna as such.

    Raises:
        NetError: as in `sweep`, for a metric that is not reported, anything but a space in `space`, or a folder that
            holds something else.
        ModuleNotFoundError: if Optuna is not installed.

    Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework" (2019); Bergstra et al.,
    "Algorithms for Hyper-Parameter Optimization" (2011), section 4.

    >>> import jaxnets as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> def trial(hp):
    ...     objective = jn.objective(jn.losses.squared_error)
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, 3 * x), epochs=3, batch_size=10)
    >>> result = search(trial, {"lr": jn.sweeps.log_uniform(1e-3, 1.0)}, "loss", trials=8, batch=4, strategy="vmap")
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
        if mode is None:
            # Optuna needs the direction before it suggests anything: read it from a program of the least values.
            least = crossed({name: each.least() for name, each in space.items()}, 1)
            directions = trace_shared(Builder(trial_fn), (), least).directions
        mode = settled(metric, mode, directions)
    folder = None if checkpoint is None else Path(checkpoint).expanduser()
    if folder is not None and storage.numbers(folder):
        text = f"holds checkpoints of a run or a sweep ({storage.listed(folder)}), not a search"
        raise NetError(f"{text}; give each a folder of its own", label=str(folder))
    # Optuna logs each study that it creates.
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna_study = optuna.create_study(
        direction="maximize" if mode == "max" else "minimize",
        sampler=sampler or optuna.samplers.TPESampler(seed=seed),
    )
    optuna.logging.set_verbosity(verbosity)
    distributions = {name: _distribution(each) for name, each in space.items()}
    results, plans = list[SweepResult](), list[Plan]()
    with interrupts() as interrupted, progress_bar(progress, "search", trials) as show:
        for begin in range(0, trials, batch):
            asked = [optuna_study.ask(distributions) for _ in range(min(batch, trials - begin))]
            hp = {name: tidy(np.asarray([trial.params[name] for trial in asked])) for name in space}
            with labeled_as("search", keep=True):
                design = crossed(hp, seeds)

                # The first batch is planned; the others are the same sweep with other inputs.
                def make_plan(design: Any = design, **options: Unpack[ExecutionOptions]) -> Plan:
                    if not plans:
                        plans.append(plan(trial_fn, design, **options))
                    return replace(plans[0], design=design)

                numbered = None if callbacks is None else _numbered_from(callbacks, sum(map(len, results)))
                subfolder = None if folder is None else storage.batch_of(folder, begin // batch)
                results.append(
                    run_sweep(
                        "search", make_plan, options, False, numbered, subfolder, overhead,
                        interrupted=interrupted,
                    )
                )  # fmt: skip
                values = means(results[-1].value(metric), design.config)
            # A batch that was interrupted has values of unfinished trials.
            if interrupted:
                break
            for trial, value in zip(asked, values, strict=True):
                failed = not np.isfinite(value)
                optuna_study.tell(trial, None if failed else value, optuna.trial.TrialState.FAIL if failed else None)
            done = begin + len(asked)
            show(done, f"{done} of {trials} trials", f"best {metric} {_best(optuna_study)}")
    return joined(results)


def _numbered_from(callbacks: Callbacks, begin: int) -> Callbacks:
    """Return the same callbacks for trials whose numbers begin at `begin`."""
    return lambda trial: callbacks({**trial, "trial": trial["trial"] + begin})


def _best(optuna_study: "optuna.Study") -> str:
    try:
        return f"{optuna_study.best_value:.4f}"
    except ValueError:  # all trials have failed
        return "unknown"


def _distribution(space: Space) -> Any:
    import optuna

    if space.kind == "choice":
        return optuna.distributions.CategoricalDistribution(space.options)
    if space.kind == "integers":
        return optuna.distributions.IntDistribution(int(space.low), int(space.high))
    return optuna.distributions.FloatDistribution(space.low, space.high, log=space.kind == "log_uniform")
