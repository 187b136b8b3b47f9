"""Dynamic loss scaling: the loss is scaled up before it is differentiated, so that float16 gradients do not underflow.

`flax.training.dynamic_scale` has a similar rule, but only inside its `value_and_grad`. A step here also accumulates
gradients, freezes parameters, counts skipped steps and checks the loss, so it needs the rule on its own.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scale:
    """The state of dynamic loss scaling.

    Attributes:
        factor: what the loss is multiplied by, float32.
        good: the number of steps with finite gradients since the factor last changed, int32.
        skipped: the number of steps skipped so far, int32.
    """

    factor: Any
    good: Any
    skipped: Any


@dataclass(frozen=True)
class LossScale:
    """Dynamic loss scaling, `Options(loss_scale=LossScale())`, for networks that compute in float16.

    The loss is multiplied by a factor and the gradients are divided by it. If a gradient is not finite, the step is
    skipped and counted, and the factor shrinks; after `period` good steps in a row it grows. bfloat16 does not need it.

    Attributes:
        initial: the first factor, ≥ 1.
        period: the number of consecutive good steps after which the factor grows.
        growth: what the factor is multiplied or divided by, > 1.

    Raises:
        NetError: for a number out of range.

    Micikevicius et al., "Mixed Precision Training" (2018), section 3.2.

    >>> LossScale().start().factor.item()
    32768.0
    """

    initial: float = 2.0**15
    period: int = 2000
    growth: float = 2.0

    def __post_init__(self) -> None:
        if self.initial < 1 or self.period < 1 or self.growth <= 1:
            raise NetError(f"expects initial ≥ 1, period ≥ 1 and growth > 1, got {self}", label="LossScale")

    def start(self) -> Scale:
        """Return the state before the first step."""
        return Scale(jnp.float32(self.initial), jnp.int32(0), jnp.int32(0))

    def update(self, scale: Scale, finite: jax.Array) -> Scale:
        """Return the state after a step with finite or non-finite gradients. The factor never falls below 1."""
        grows = finite & (scale.good + 1 >= self.period)
        up = jnp.where(grows, scale.factor * jnp.float32(self.growth), scale.factor)
        down = jnp.maximum(scale.factor / jnp.float32(self.growth), jnp.float32(1))
        return Scale(
            # A factor that would overflow float32 is kept.
            factor=jnp.where(finite, jnp.where(jnp.isfinite(up), up, scale.factor), down),
            good=jnp.where(finite & ~grows, scale.good + 1, 0),
            skipped=scale.skipped + jnp.where(finite, 0, 1),
        )
