"""Many runs of one study under one loop on the host: a hundred networks at once."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from jax.sharding import Mesh

from jaxnets.core.checks import check_function
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Key
from jaxnets.sweeps.execution import Plain
from jaxnets.sweeps.loop import Callbacks, conduct
from jaxnets.sweeps.result import SweepResult
from jaxnets.sweeps.space import Design, Space, design, inputs
from jaxnets.sweeps.strategy import Computed, Strategy, Team, prepare
from jaxnets.train.program import Program

Study = Callable[[dict[str, Any]], Program]


class Designed(TypedDict, total=False):
    """Which trials a sweep has; `sweep` describes each."""

    seeds: int | Sequence[int] | Any
    grid: Mapping[str, Any] | None
    random: Mapping[str, Space] | None
    samples: int | None
    trials: Sequence[Mapping[str, Any]] | None
    key: Key | None


class Options(Designed, Computed):
    """All of these."""


def sweep(
    study: Study,
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

    Trial k is the run that `study(hp_k)(key_k)` is: same initial values, same order, same end, up to rounding (to the
    bit with `strategy="map"` where the compiler chooses the same form). A trial that stops early, or meets a value
    that is not finite, stands still, and is taken out: others take its place, or the places become fewer, by halves,
    down to 8 a device. Ctrl-C ends all after the epoch that is being computed, and what there is is returned; a
    second one breaks off.

    Args:
        study: `hp -> Program`, called with a dict of traced scalars. Whatever is a real number may come from it; sizes
            and counts may not. Its data are handed over, not compiled in.
        seeds: how many seeds, a list of integers (the key of seed s is `fold_in(key(0), s)`), or keys `(seeds,)`.
        grid: values for each hyperparameter, in all combinations.
        random: a space for each hyperparameter, such as `log_uniform(1e-4, 1e-1)`, from which `samples` configurations
            are drawn.
        samples: how many.
        trials: or a list of dicts, one a configuration. With none of these there are only seeds, and `hp` is empty.
        key: of the random draws; `key(0)` if not given.
        strategy: "vmap" computes trials side by side, "map" one after another, so that each may use the whole
            machine; "measure" takes what a few of them do faster for one epoch, measured once a study. If not
            given, a CPU takes "vmap" for networks of at most 65,536 parameters without convolution, recurrence or any
            other loop, "map" for all others; other devices measure.
        batch_size: with "map", how many trials are computed side by side in turn.
        chunk: how many trials are on the devices at a time; all if not given.
        memory_budget: bytes a device, from which `chunk` follows by the compiler's account of what a few trials need.
            Where a device says what it has, four fifths of what is free, if not given.
        mesh: the devices that trials are shared out to, along all its axes; all local devices if not given.
        progress: whether to show a bar over all trials, plain lines where there is no terminal.
        callbacks: gives the callbacks of each trial, which see what those of `fit` see, from a record of the
            trial's number, seed and hyperparameters: `lambda trial: [jn.train.jsonl("sweep.jsonl", **trial)]`. If
            one's `on_epoch_end` returns `True`, the trial ends there. `on_start` gets the first trial's program.
        checkpoint: a folder. All trials are saved there, and if the sweep is broken off, whatever the process dies
            of, the same call goes on from there and ends with the same bits, with the layout that it had. A sweep
            that is finished comes back at once. One sweep a folder.
        overhead: which share of the time saving may take; `None` saves after every epoch.

    Raises:
        NetError: for a design without trials, values that are no numbers, several designs at once, a study that
            gives no `Program` or must know a value, an option out of range, or a folder of another sweep.
        OSError: if the folder can't be written to, or the disk is full.

    >>> import jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jnp.linspace(-1, 1, 20)[:, None]
    >>> def study(hp):
    ...     objective = jn.objective(jn.losses.squared_error, jn.regularizers.l2(hp["l2"]))
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, 3 * x), epochs=5, batch_size=10)
    >>> result = sweep(study, seeds=2, grid={"lr": [0.01, 0.1], "l2": [0.0, 1.0]}, strategy="vmap")
    >>> result.history["loss"].shape, result.best("loss").hp
    ((8, 5), {'lr': 0.1, 'l2': 0.0})
    """
    with labeled_as("sweep", keep=True):
        chosen = design(grid=grid, random=random, samples=samples, trials=trials, seeds=seeds, key=key)
        how: Computed = {
            "strategy": strategy,
            "batch_size": batch_size,
            "chunk": chunk,
            "memory_budget": memory_budget,
            "mesh": mesh,
        }

        def planned(how: Computed) -> Team:
            return plan(study, chosen, **how)

        return conduct("sweep", planned, how, chosen, progress, callbacks, checkpoint, overhead)


def parted(options: Options) -> tuple[Design, Computed]:
    """Return the design that some options describe, and the others.

    Raises:
        NetError: as `sweep`.
        TypeError: for an option that `sweep` does not have.
    """
    known = (Designed.__annotations__, Computed.__annotations__)
    if unknown := [name for name in options if not any(name in each for each in known)]:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
    which, how = ({name: value for name, value in options.items() if name in each} for each in known)
    return design(**cast(Designed, which)), cast(Computed, how)


def plan(study: Study, chosen: Design, **how: Unpack[Computed]) -> Team:
    """Return the sweep of a study over a design, ready to run.

    Raises:
        NetError: as `sweep`.
    """
    if isinstance(study, Program):
        raise NetError("expects a study, a function (hp) -> program, got a program; lambda hp: program is one")
    check_function("study", study, "(hp) -> program")
    try:
        _ = weakref.ref(study), hash(study)
    except TypeError:
        hint = "a function has one, and so has an instance of a frozen dataclass"
        raise NetError(f"expects a study that has a hash, got {type(study).__name__}; {hint}") from None
    return prepare(Plain(study), (), inputs(chosen.hp), chosen.keys, **how)
