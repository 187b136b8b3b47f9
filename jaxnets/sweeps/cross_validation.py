"""K-fold cross-validation as a sweep over folds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.data.splits import fold, folds
from jaxnets.sweeps.execution import Plain
from jaxnets.sweeps.loop import Callbacks, conduct
from jaxnets.sweeps.result import SweepResult
from jaxnets.sweeps.space import inputs
from jaxnets.sweeps.strategy import Computed, Team, prepare
from jaxnets.sweeps.sweep import Options, parted
from jaxnets.train.data import check_data
from jaxnets.train.program import Program


@dataclass(frozen=True)
class Folded(Plain):
    """A study of hyperparameters and the two parts that a fold makes of data.

    Attributes:
        numbers: the fold of each example.
    """

    numbers: tuple[int, ...]

    @cached_property
    def ingredients(self) -> Ingredients:
        """What it is compared by: a number for each example, not looked at one by one."""
        return Ingredients(self.study, values=self.numbers)

    def __call__(self, given: Any, trial: dict[str, Any]) -> Program:
        """Return the program of one fold."""
        train, validation = fold(given, np.asarray(self.numbers), trial["fold"])
        return self.study(trial["hp"], train, validation)


def cross_validate(
    study: Callable[[dict[str, Any], Any, Any], Program],
    data: Any,
    k: int = 5,
    *,
    numbers: Any = None,
    shuffle: int = 0,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    checkpoint: str | Path | None = None,
    overhead: float | None = 0.02,
    **options: Unpack[Options],
) -> SweepResult:
    """Train a network on all folds but one, for each fold, configuration and seed, all compiled as one.

    `best`, `plot` and their means then go over folds and seeds together.

    Args:
        study: `(hp, train, validation) -> Program`; the two are `(inputs, targets, weights)`, as `jn.data.fold` makes
            them. Weights of 0 fill up folds that are shorter than others.
        data: `(inputs, targets)` or `(inputs, targets, weights)`.
        k: how many folds, at least 2.
        numbers: the fold of each example, from 0, such as `jn.data.group_folds` gives; if not given, `jn.data.folds`
            draws them, with equal proportions of each class where targets are integers `(examples,)`.
        shuffle: the seed of that.
        progress: whether to show a bar.
        callbacks: gives the callbacks of each trial, as in `sweep`; its record has the `fold` too.
        checkpoint: a folder to save in and go on from, as in `sweep`.
        overhead: which share of the time that may take.
        **options: the design, and how trials are computed, as in `sweep`.

    Returns:
        As `sweep`, with a further label `fold`.

    Raises:
        NetError: as `sweep` and `jn.data.folds`.

    Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions" (1974).

    >>> import jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jnp.linspace(-1, 1, 20)[:, None]
    >>> def study(hp, train, validation):
    ...     objective = jn.objective(jn.losses.squared_error)
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), train, epochs=3, batch_size=8,
    ...                             validation=validation)
    >>> result = cross_validate(study, (x, 3 * x), 5, grid={"lr": [0.01, 0.1]}, strategy="vmap")
    >>> result.labels["fold"].tolist(), result.best("validation/loss").hp
    ([0, 1, 2, 3, 4, 0, 1, 2, 3, 4], {'lr': 0.1})
    """
    with labeled_as("cross_validate", keep=True):
        if not callable(study):
            raise NetError(f"expects a study, a function of (hp, train, validation), got {type(study).__name__}")
        examples = check_data("data", data)
        if numbers is None:
            targets = jax.tree.leaves(data[1])
            labels = np.asarray(targets[0]) if len(targets) == 1 else np.empty(0)
            numbers = folds(labels if labels.ndim == 1 and labels.dtype.kind in "biu" else examples, k, seed=shuffle)
        numbers = np.asarray(numbers)
        if numbers.shape != (examples,) or numbers.dtype.kind not in "iu" or set(numbers.tolist()) != set(range(k)):
            raise NetError(f"expects numbers from 0 to {k - 1}, one for each of {examples} examples; k says how many")
        design, how = parted(options)
        design = design.repeated("fold", k)
        trials = {"hp": inputs(design.hp), "fold": design.labels["fold"].astype(np.int32)}
        build = Folded(study, tuple(numbers.tolist()))

        def planned(how: Computed) -> Team:
            return prepare(build, tuple(data), trials, design.keys, **how)

        return conduct("cross-validation", planned, how, design, progress, callbacks, checkpoint, overhead)
