"""Learning rates as functions of the step, where Optax has none."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import check_count, check_positive
from jaxnets.core.layer import labeled


@labeled
def inverse_square_root_schedule(peak: Any, warmup: int) -> Callable[[Any], jax.Array]:
    """Return the learning rate that rises linearly to a peak, then falls as 1/√step: η_t = peak · min(t / w, √(w / t)).

    t is the number of the step from 1, one more than Optax's count, and w is `warmup`. The paper's rate is that with
    the peak (features · w)^(-1/2).

    Args:
        peak: the rate of step w, > 0. May be traced.
        warmup: w, at least 1.

    Returns:
        A schedule for any optimizer of Optax, `optax.adam(inverse_square_root_schedule(1e-3, 4000))`.

    Raises:
        NetError: for `peak` ≤ 0 or `warmup` < 1.

    Vaswani et al., "Attention Is All You Need" (2017), equation 3.

    >>> schedule = inverse_square_root_schedule(0.1, 4)
    >>> [round(float(schedule(count)), 3) for count in (0, 1, 3, 15)]
    [0.025, 0.05, 0.1, 0.05]
    """
    check_positive("peak", peak)
    check_count("warmup", warmup)

    def schedule(count: Any) -> jax.Array:
        # The share of the warm-up that is over after this step.
        part = (jnp.asarray(count).astype(jnp.float32) + 1) / warmup
        return jnp.asarray(peak, jnp.float32) * jnp.minimum(part, jax.lax.rsqrt(part))

    return schedule
