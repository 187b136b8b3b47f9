"""Examples side by side, as a training step takes them."""

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Examples that a step learns from.

    Attributes:
        x: inputs, a pytree with the batch axis first.
        y: targets, likewise.
        weights: `(batch,)`, the weight of each example in the mean; 0 masks it.
    """

    x: Any
    y: Any
    weights: Any
