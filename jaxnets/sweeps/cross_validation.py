"""K-fold cross-validation as a sweep over folds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.data.splits import fold, folds
from jaxnets.sweeps.execution import Builder
from jaxnets.sweeps.loop import Callbacks, run_sweep
from jaxnets.sweeps.result import SweepResult
from jaxnets.sweeps.space import Design, inputs
from jaxnets.sweeps.strategy import prepare
from jaxnets.sweeps.sweep import SweepOptions, split_options
from jaxnets.train.arguments import check_data
from jaxnets.train.program import Program


@dataclass(frozen=True)
class FoldBuilder(Builder):
    """Builds a program by a trial function of hyperparameters and the two parts of a fold.

    Attributes:
        numbers: the fold of each example.
    """

    numbers: tuple[int, ...]

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which builders are compared; passed as a value, the tuple is not compared element by element."""
        return Ingredients(self.trial_fn, values=self.numbers)

    def inputs(self, design: Design) -> Any:
        """Return the hyperparameters and the number of the fold of each trial."""
        return {"hp": inputs(design.hp), "fold": design.labels["fold"].astype(np.int32)}

    def __call__(self, extra: Any, inputs: dict[str, Any]) -> Program:
        """Return the program of one fold.

        Args:
            extra: the data of all folds.
            inputs: the hyperparameters `hp`, and the number of the `fold`.
        """
        train, validation = fold(extra, np.asarray(self.numbers), inputs["fold"])
        return self.trial_fn(inputs["hp"], train, validation)


@explained
def cross_validate(
    trial_fn: Callable[[dict[str, Any], Any, Any], Program],
    data: Any,
    k: int = 5,
    *,
    numbers: Any = None,
    shuffle: int = 0,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    checkpoint: str | Path | None = None,
    overhead: float | None = 0.02,
    **options: Unpack[SweepOptions],
) -> SweepResult:
    """Train a network on all folds but one, for each fold, configuration and seed, all compiled as one.

    The means of `best` and `plot` are over folds and seeds together.

    Args:
        trial_fn: `(hp, train, validation) -> Program`; the two are `(inputs, targets, weights)`, as `jn.data.fold`
            makes them. Examples of weight 0 pad folds to equal size.
        data: `(inputs, targets)` or `(inputs, targets, weights)`.
        k: how many folds, at least 2.
        numbers: the fold of each example, from 0, such as `jn.data.group_folds` returns. By default `jn.data.folds`
            draws them, with equal proportions of each class where targets are integers `(examples,)`.
        shuffle: the seed of these draws.
        progress: whether to show a bar.
        callbacks: makes the callbacks of each trial, as in `sweep`; its record has the `fold`, too.
        checkpoint: the folder to save in and to resume from, as in `sweep`.
        overhead: the fraction of the time that saving may take.
        **options: the design, and how trials are computed, as in `sweep`.

    Returns:
        As in `sweep`, with one more label, `fold`.

    Raises:
        NetError: as in `sweep` and `jn.data.folds`.

    Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions" (1974).

    >>> import jaxnets as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> def trial(hp, train, validation):
    ...     objective = jn.objective(jn.losses.squared_error)
    ...     return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), train, epochs=3, batch_size=8,
    ...                             validation=validation)
    >>> result = cross_validate(trial, (x, 3 * x), 5, grid={"lr": [0.01, 0.1]}, strategy="vmap")
    >>> result.labels["fold"].tolist(), result.best("validation/loss").hp
    ([0, 1, 2, 3, 4, 0, 1, 2, 3, 4], {'lr': 0.1})
    """
    with labeled_as("cross_validate", keep=True):
        if not callable(trial_fn):
            raise NetError(f"expects a trial function of (hp, train, validation), got {type(trial_fn).__name__}")
        examples = check_data("data", data)
        if numbers is None:
            targets = jax.tree.leaves(data[1])
            labels = np.asarray(targets[0]) if len(targets) == 1 else np.empty(0)
            # Class labels are stratified; otherwise only the number of examples matters.
            numbers = folds(labels if labels.ndim == 1 and labels.dtype.kind in "biu" else examples, k, seed=shuffle)
        numbers = np.asarray(numbers)
        if numbers.shape != (examples,) or numbers.dtype.kind not in "iu" or set(numbers.tolist()) != set(range(k)):
            hint = "k is the number of folds"
            raise NetError(f"expects numbers from 0 to {k - 1}, one for each of {examples} examples; {hint}")
        design, how = split_options(options)
        builder = FoldBuilder(trial_fn, tuple(numbers.tolist()))
        make_plan = partial(prepare, builder, tuple(data), design.repeated("fold", k))
        return run_sweep("cross-validation", make_plan, how, progress, callbacks, checkpoint, overhead)
