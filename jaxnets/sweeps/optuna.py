"""Bayesian search with Optuna, or global search by LIPO: each batch of suggestions is one sweep."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, require, shown
from jaxnets.core.keywords import explained
from jaxnets.sweeps.execution import Builder, trace_shared
from jaxnets.sweeps.lipo import Lipo
from jaxnets.sweeps.loop import Callbacks, run_sweep
from jaxnets.sweeps.progress import progress_bar
from jaxnets.sweeps.result import Mode, SweepResult, joined, means
from jaxnets.sweeps.space import Space, Values, check_spaces, crossed, tidy
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
    sampler: "optuna.samplers.BaseSampler | Literal['lipo'] | None" = None,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    checkpoint: str | Path | None = None,
    overhead: float | None = 0.02,
    **options: Unpack[ExecutionOptions],
) -> SweepResult:
    """Search for the best hyperparameters in batches of configurations, each of which is one sweep.

    Optuna suggests them, or `sampler="lipo"`, a global search without parameters. From all values so far it computes
    upper bounds of the others, by the least slopes that agree with them, and evaluates where the bound is highest
    (MaxLIPO); every other suggestion maximizes a quadratic model in a trust region around the best. It suits up to
    about ten hyperparameters and values of moderate range without much noise, such as accuracies, and treats the
    options of a choice as ordered numbers.

    Args:
        trial_fn: as in `sweep`.
        space: the space of each hyperparameter, such as `log_uniform(1e-4, 1e-1)`.
        metric: the value to optimize, such as "validation/accuracy"; the sampler gets its mean over the seeds.
        trials: how many configurations are tried in total.
        batch: how many are suggested at a time, before the value of any of them is known.
        seeds: as in `sweep`, for each configuration.
        mode: whether "min" or "max" is better; default: what the program's metrics and objective declare.
        seed: the seed of the sampler's random draws.
        sampler: Optuna's sampler, or "lipo", which does not need Optuna; default: a `TPESampler` (tree-structured
            Parzen estimator).
        progress: whether to show a bar.
        callbacks: makes the callbacks of each trial, as in `sweep`; trial numbers continue from batch to batch.
        checkpoint: a folder to save in, with a subfolder for each batch. If the search is killed, the same call
            resumes it: a sampler with a fixed seed repeats its suggestions, and finished batches are read.
        overhead: the fraction of the time that saving may take.
        **options: how trials are computed, as in `sweep`.

    Returns:
        As in `sweep`, with configurations in the order of their suggestion. Failed ones are reported to Optuna as such;
        LIPO takes them to be as bad as the worst.

    Raises:
        NetError: as in `sweep`, for a metric that is not reported, anything but a space in `space`, another string as
            `sampler`, or a folder that holds something else.
        ModuleNotFoundError: if Optuna is not installed, unless `sampler="lipo"`.

    Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework" (2019); Bergstra et al.,
    "Algorithms for Hyper-Parameter Optimization" (2011), section 4; Malherbe and Vayatis, "Global Optimization of
    Lipschitz Functions" (2017), with the trust region of King's `find_max_global` in dlib (2017).

    >>> import jaxnets as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> def trial(hp):
    ...     objective = jn.objective(jn.losses.squared_error)
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, 3 * x), epochs=3, batch_size=10)
    >>> result = search(trial, {"lr": jn.sweeps.log_uniform(1e-3, 1.0)}, "loss", trials=8, batch=4, strategy="vmap")
    >>> len(result), result.best("loss").hp["lr"] > 0.1
    (8, True)
    >>> result = search(trial, {"lr": jn.sweeps.log_uniform(1e-3, 1.0)}, "loss", trials=8, batch=4, sampler="lipo")
    >>> result.best("loss").hp["lr"] > 0.1
    True
    """
    lipo = isinstance(sampler, str) and sampler == "lipo"
    if isinstance(sampler, str) and not lipo:
        text = f'expects sampler "lipo", a sampler of Optuna\'s or None, got {shown(sampler)}'
        raise NetError(text, label="search")
    if not lipo:
        require("optuna", "search")
    with labeled_as("search", keep=True):
        check_count("trials", trials)
        check_count("batch", batch)
        if not space:
            raise NetError("expects at least one hyperparameter in space, got none")
        check_spaces("space", space)
        if isinstance(sampler, str) and not lipo:
            raise NetError(f'expects sampler "lipo", a sampler of Optuna\'s or None, got {shown(sampler)}')
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
    suggest = Lipo(space, seed) if isinstance(sampler, str) else _Optuna(space, mode, seed, sampler)
    sign, best = (1 if mode == "max" else -1), np.nan
    results, plans = list[SweepResult](), list[Plan]()
    with interrupts() as interrupted, progress_bar(progress, "search", trials) as show:
        for begin in range(0, trials, batch):
            hp = {name: tidy(column) for name, column in suggest.ask(min(batch, trials - begin)).items()}
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
            suggest.tell(np.where(np.isfinite(values), sign * values, np.nan))
            best = sign * np.fmax(sign * best, np.fmax.reduce(np.where(np.isfinite(values), sign * values, np.nan)))
            done = begin + len(values)
            show(done, f"{done} of {trials} trials", f"best {metric} {'unknown' if np.isnan(best) else f'{best:.4f}'}")
    return joined(results)


def _numbered_from(callbacks: Callbacks, begin: int) -> Callbacks:
    """Return the same callbacks for trials whose numbers begin at `begin`."""
    return lambda trial: callbacks({**trial, "trial": trial["trial"] + begin})


class _Optuna:
    """Suggestions of an Optuna study, with the interface of `Lipo`."""

    def __init__(
        self, space: Mapping[str, Space], mode: Mode, seed: int, sampler: "optuna.samplers.BaseSampler | None"
    ) -> None:
        import optuna

        # Optuna logs each study that it creates.
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study: optuna.Study = optuna.create_study(
            direction="maximize" if mode == "max" else "minimize",
            sampler=sampler or optuna.samplers.TPESampler(seed=seed),
        )
        optuna.logging.set_verbosity(verbosity)
        self.sign: int = 1 if mode == "max" else -1
        self.distributions: dict[str, Any] = {name: _distribution(each) for name, each in space.items()}
        self.asked: list[optuna.Trial] = []

    def ask(self, count: int) -> Values:
        """Suggest values `(count,)` of each hyperparameter."""
        self.asked = [self.study.ask(self.distributions) for _ in range(count)]
        return {name: np.asarray([trial.params[name] for trial in self.asked]) for name in self.distributions}

    def tell(self, values: np.ndarray) -> None:
        """Take the values of the latest suggestions, higher is better, NaN for those that failed."""
        from optuna.trial import TrialState

        for trial, value in zip(self.asked, self.sign * values, strict=True):
            failed = np.isnan(value)
            self.study.tell(trial, None if failed else value, TrialState.FAIL if failed else None)


def _distribution(space: Space) -> Any:
    import optuna

    if space.kind == "choice":
        return optuna.distributions.CategoricalDistribution(space.options)
    if space.kind == "integers":
        return optuna.distributions.IntDistribution(int(space.low), int(space.high))
    return optuna.distributions.FloatDistribution(space.low, space.high, log=space.kind == "log_uniform")
