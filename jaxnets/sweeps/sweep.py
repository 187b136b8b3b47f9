"""Sweeps: many trials of one trial function, compiled as one and run by one loop on the host."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from jax.sharding import Mesh

from jaxnets.core.checks import check_function
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key
from jaxnets.sweeps.execution import Builder
from jaxnets.sweeps.loop import Callbacks, run_sweep
from jaxnets.sweeps.result import SweepResult
from jaxnets.sweeps.space import Design, Space, design
from jaxnets.sweeps.strategy import ExecutionOptions, Plan, Strategy, prepare
from jaxnets.train.program import Program

TrialFunction = Callable[[dict[str, Any]], Program]


class DesignOptions(TypedDict, total=False):
    """The trials of a sweep; `sweep` describes each option."""

    seeds: int | Sequence[int] | Any
    grid: Mapping[str, Any] | None
    random: Mapping[str, Space] | None
    samples: int | None
    trials: Sequence[Mapping[str, Any]] | None
    key: Key | None


class SweepOptions(DesignOptions, ExecutionOptions):
    """The trials of a sweep, and how they are computed."""


@explained
def sweep(
    trial_fn: TrialFunction,
    *,
    seeds: int | Sequence[int] | Any = 1,
    grid: Mapping[str, Any] | None = None,
    random: Mapping[str, Space] | None = None,
    samples: int | None = None,
    trials: Sequence[Mapping[str, Any]] | None = None,
    key: Key | None = None,
    strategy: Strategy | None = None,
    batch_size: int | None = None,
    chunk: int | None = None,
    memory_budget: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    checkpoint: str | Path | None = None,
    overhead: float | None = 0.02,
) -> SweepResult:
    """Train a network for each combination of hyperparameters and seed, all compiled as one.

    Trial k is the training run `trial_fn(hp_k)(key_k)`: it has the same initial values, order of examples and end, up
    to rounding. With `strategy="map"` it has the same bits where the compiler generates the same code.

    A trial halts if it stops early or at a non-finite value. Its place is given to a waiting trial; if none waits, the
    number of places is halved, down to 8 per device. Ctrl-C ends the sweep after the current epoch and returns the
    results so far; a second Ctrl-C raises at once.

    Args:
        trial_fn: the trial function `hp -> Program`, called with a dict of traced scalars. Real numbers of a program
            may depend on them; sizes and counts may not. Its data are arguments of the compiled function, not
            constants.
        seeds: how many seeds, a list of integers (the key of seed s is `fold_in(key(0), s)`), or keys `(seeds,)`.
        grid: values of each hyperparameter; all combinations are tried.
        random: a space for each hyperparameter, such as `log_uniform(1e-4, 1e-1)`, from which `samples` configurations
            are drawn.
        samples: how many configurations to draw.
        trials: a list of configurations, each a dict. Without `grid`, `random` and `trials` there are only seeds, and
            `hp` is empty.
        key: for the random draws; default: `key(0)`.
        strategy: "vmap" computes trials side by side, "map" one after another, so that each may use the whole
            machine. "measure" chooses the one that computes an epoch of a few trials faster, and measures once for each
            trial function. The default on a CPU is "vmap" for networks of at most 65,536 parameters without
            convolution, recurrence or other loops, and "map" for all others; on other devices it is "measure".
        batch_size: for "map", how many trials are computed side by side at a time.
        chunk: how many trials are on the devices at a time; default: all.
        memory_budget: bytes per device, from which `chunk` follows by the compiler's memory analysis of a few trials.
            Default: four fifths of the free memory, on devices that report it.
        mesh: the devices that trials are distributed over, along all its axes; default: all local devices.
        progress: whether to show a bar over all trials; where there is no terminal, plain lines.
        callbacks: makes the callbacks of a trial from a record of its number, seed and hyperparameters, such as
            `lambda trial: [jn.train.jsonl("sweep.jsonl", **trial)]`. They get what callbacks of `fit` get, but
            `on_start` gets the first trial's program. If `on_epoch_end` returns `True`, the trial ends.
        checkpoint: a folder for one sweep. All trials are saved in it. If the sweep is killed, the same call resumes
            it bit for bit, with the same layout. A sweep that has finished returns its results at once.
        overhead: the fraction of the time that saving may take; `None` saves after each epoch.

    Raises:
        NetError: for a design without trials, values that are not numbers, several designs at once, a trial function
            that does not return a `Program` or must know a value, an option out of range, or a folder of another sweep.
        OSError: if the folder can't be written to, or the disk is full.

    >>> import jaxnets as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> def trial(hp):
    ...     objective = jn.objective(jn.losses.squared_error, jn.regularizers.l2(hp["l2"]))
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, 3 * x), epochs=5, batch_size=10)
    >>> result = sweep(trial, seeds=2, grid={"lr": [0.01, 0.1], "l2": [0.0, 1.0]}, strategy="vmap")
    >>> result.history["loss"].shape, result.best("loss").hp
    ((8, 5), {'lr': 0.1, 'l2': 0.0})
    """
    with labeled_as("sweep", keep=True):
        chosen = design(grid=grid, random=random, samples=samples, trials=trials, seeds=seeds, key=key)
        options: ExecutionOptions = {
            "strategy": strategy,
            "batch_size": batch_size,
            "chunk": chunk,
            "memory_budget": memory_budget,
            "mesh": mesh,
        }
        make_plan = partial(plan, trial_fn, chosen)
        return run_sweep("sweep", make_plan, options, progress, callbacks, checkpoint, overhead)


def split_options(options: SweepOptions) -> tuple[Design, ExecutionOptions]:
    """Return the design that the options describe, and the options of execution.

    Raises:
        NetError: as in `sweep`.
        TypeError: for an option that `sweep` does not have.
    """
    known = (DesignOptions.__annotations__, ExecutionOptions.__annotations__)
    if unknown := [name for name in options if not any(name in each for each in known)]:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
    of_design, of_execution = ({name: value for name, value in options.items() if name in each} for each in known)
    return design(**cast(DesignOptions, of_design)), cast(ExecutionOptions, of_execution)


def plan(trial_fn: TrialFunction, chosen: Design, **options: Unpack[ExecutionOptions]) -> Plan:
    """Return the sweep of a trial function over a design, ready to run.

    Raises:
        NetError: as in `sweep`.
    """
    if isinstance(trial_fn, Program):
        hint = "write `lambda hp: program`"
        raise NetError(f"expects a trial function (hp) -> program, got a program; {hint}")
    check_function("trial_fn", trial_fn, "(hp) -> program")
    # Only functions have a code object; the parameters of other callables are not checked.
    code = getattr(trial_fn, "__code__", None)
    for name in [] if code is None else code.co_varnames[: code.co_argcount]:
        if name in chosen.hp:
            expected = "expects a trial function of one dictionary, (hp) -> program"
            raise NetError(f"{expected}, got one with a parameter {name!r}; name it hp, and read hp[{name!r}] inside")
    try:
        _ = weakref.ref(trial_fn), hash(trial_fn)
    except TypeError:
        hint = "use a function, or an instance of a frozen dataclass"
        raise NetError(f"expects a hashable trial function, got {type(trial_fn).__name__}; {hint}") from None
    return prepare(Builder(trial_fn), (), chosen, **options)
