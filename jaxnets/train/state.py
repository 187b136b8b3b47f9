"""What a training run carries from step to step."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.net import Params, State
from jaxnets.data.loader import Batch as Batch

# Inputs, targets and, if any, the weights of the examples.
Data = tuple[Any, ...]


def is_key(leaf: Any) -> bool:
    """Tell whether an array, or a `jax.ShapeDtypeStruct`, is of typed random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class TrainState:
    """Everything that changes while a network is trained: a pytree of arrays.

    Attributes:
        params: the network's parameters.
        state: the network's state, such as batch-norm statistics.
        opt_state: the optimizer's state.
        key: the random key, into which every step folds its number.
        step: the number of steps taken, int32.
        ema: the moving average of the parameters, if `ema_decay` is set.
        scale: the `Scale` of the loss, if the loss is scaled.
        failed: the step at which a non-finite value halted training, int32, -1 if there is none; `None` with
            `halt_on_nonfinite=False`.
        stopping: the state of early stopping, a `Stopping`.
        plateau: the state of Optax's `reduce_on_plateau`, if `Options` has one.
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

    def __repr__(self) -> str:
        # The weights would fill the screen.
        count = sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(self.params))
        return f"TrainState(step={self.step}, {count:,} parameters{', with state' if self.state else ''})"
