"""A loss made larger before it is differentiated, so that gradients in float16 do not vanish."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scale:
    """What dynamic loss scaling remembers.

    Attributes:
        factor: what the loss is multiplied by, float32.
        good: steps with finite gradients since the factor last changed, int32.
        skipped: steps that were skipped in all, int32.
    """

    factor: Any
    good: Any
    skipped: Any


@dataclass(frozen=True)
class LossScale:
    """Dynamic loss scaling, `Options(loss_scale=LossScale())`, for networks that compute in float16.

    The loss is multiplied by a factor, the gradients divided by it. If one is not finite, the step is skipped, counted,
    and the factor goes down; after `period` good steps in a row it goes up. bfloat16 needs none of it.

    Attributes:
        initial: the first factor.
        period: after how many good steps the factor goes up.
        growth: what it is multiplied and divided by, above 1.

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
        """Return what is remembered before the first step."""
        return Scale(jnp.float32(self.initial), jnp.int32(0), jnp.int32(0))

    def update(self, scale: Scale, finite: jax.Array) -> Scale:
        """Return what is remembered after a step whose gradients were finite or not. The factor stays at 1 or above."""
        grows = finite & (scale.good + 1 >= self.period)
        up = jnp.where(grows, scale.factor * jnp.float32(self.growth), scale.factor)
        down = jnp.maximum(scale.factor / jnp.float32(self.growth), jnp.float32(1))
        return replace(
            scale,
            factor=jnp.where(finite, jnp.where(jnp.isfinite(up), up, scale.factor), down),
            good=jnp.where(finite & ~grows, scale.good + 1, 0),
            skipped=scale.skipped + jnp.where(finite, 0, 1),
        )
