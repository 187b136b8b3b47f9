"""What a training run is made of between two steps."""

from dataclasses import dataclass
from typing import Any

import jax

from jaxnets.core.net import Params, State
from jaxnets.data.loader import Batch as Batch


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that changes while a network is trained: a pytree of arrays alone.

    Attributes:
        params: the network's parameters.
        state: the network's state, such as batch-norm statistics.
        opt_state: the optimizer's memory.
        key: the key that every step's randomness is folded from.
        step: how many steps have been taken, int32.
        ema: the moving average of the parameters, where one is kept.
        scale: the `Scale` of the loss, where it is scaled.
        failed: the step at which a value was not finite and the run stood still, int32, -1 if there was none; `None`
            in a run without guard.
        stopping: what early stopping remembers, a `Stopping`.
        plateau: what Optax's `reduce_on_plateau` remembers from epoch to epoch, where it looks at a reported value.
    """

    params: Params
    state: State
    opt_state: Any
    key: Any
    step: Any
    ema: Any = None
    scale: Any = None
    failed: Any = None
    stopping: Any = None
    plateau: Any = None
