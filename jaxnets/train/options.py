"""What a training step does besides plain gradient descent, and what a monitor gets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import optax

from jaxnets.core.checks import check_function
from jaxnets.core.errors import NetError, check_count, check_fraction, labeled_as, shown
from jaxnets.core.paths import Pattern
from jaxnets.train.loss_scale import LossScale
from jaxnets.train.state import Batch, TrainState

Parts = Mapping[str, jax.Array]


@dataclass(frozen=True)
class StepInfo:
    """What a `monitor` gets of a step.

    Attributes:
        state: the train state before the step.
        batch: the batch of the step.
        key: the network's random key.
        gradients: of the objective, with the parameters' structure; `None` for frozen parameters.
        updates: what was added to the parameters, with the same structure; zeros if the step is skipped.
    """

    state: TrainState
    batch: Batch
    key: Any
    gradients: Any
    updates: Any


@dataclass(frozen=True)
class Options:
    """What a training step does besides plain gradient descent.

    Attributes:
        accumulate: compute a batch in this many equal parts, one after another, and sum their gradients. This takes
            less memory for the same step, except for layers that compute over the whole batch.
        loss_scale: dynamic scaling of the loss, `LossScale()`, for networks that compute in float16.
        plateau: the name of a reported value for which lower is better, and the transformation that gets this value
            after every epoch: `("validation/loss", optax.contrib.reduce_on_plateau(patience=5))`. Its factor scales
            the updates of the next epoch. (Inside the optimizer's chain it would get each batch's loss.)
        monitor: a function from a `StepInfo` to further values to report, by name, such as `jn.train.norms()`.
        halt_on_nonfinite: halt training before a step whose loss or gradients are not finite, even if the optimizer
            would clip them; `state.failed` is that step. Gradients of a parameter whose sum overflows count as
            non-finite. Parameters that an update makes non-finite are detected by the next step's loss or at the end of
            the epoch; in both cases the train state is reset to the beginning of the epoch. Data in memory are checked
            for NaN, too.
        freeze: a pattern over the paths of parameters that are not trained; usually the argument of `program`.
        ema_decay: decay of the moving average of the parameters; usually the argument of `program`.
        weighted: whether examples may have different weights, so that batch statistics are weighted too.

    Raises:
        NetError: for an option out of range or of another type.
    """

    accumulate: int = 1
    loss_scale: LossScale | None = None
    plateau: tuple[str, optax.GradientTransformationExtraArgs] | None = None
    monitor: Callable[[StepInfo], Parts] | None = None
    halt_on_nonfinite: bool = True
    freeze: Pattern | None = None
    ema_decay: Any = None
    weighted: bool = True

    def __post_init__(self) -> None:
        with labeled_as("Options"):
            check_count("accumulate", self.accumulate)
            check_function("monitor", self.monitor, "(info) -> values by name")
            texts = [self.freeze] if isinstance(self.freeze, str) else self.freeze
            if texts is not None and not (isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)):
                got = shown(self.freeze)
                raise NetError(f"expects patterns of paths for freeze, such as 'features/**', got {got}")
            if self.ema_decay is not None:
                check_fraction("ema_decay", self.ema_decay)
            if not isinstance(self.loss_scale, LossScale | None):
                raise NetError(f"expects loss_scale=jn.train.LossScale(), got {shown(self.loss_scale)}")
            if not isinstance(self.halt_on_nonfinite, bool):
                raise NetError(f"expects halt_on_nonfinite=True or False, got {shown(self.halt_on_nonfinite)}")
            plateau = self.plateau
            if plateau is not None and not (
                isinstance(plateau, tuple) and len(plateau) == 2 and isinstance(plateau[0], str)
            ):
                hint = '("validation/loss", optax.contrib.reduce_on_plateau(patience=5))'
                raise NetError(f"expects plateau={hint}, got {shown(plateau)}")
