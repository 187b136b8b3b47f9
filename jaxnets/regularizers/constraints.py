"""Constraints on parameters, as Optax transformations."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_positive, labeled_as
from jaxnets.core.paths import Pattern, mask, select
from jaxnets.regularizers.regularizer import axes_within, describe, norm


def max_norm(limit: Any, on: Pattern = "**/kernel", axis: int | tuple[int, ...] = -1) -> optax.GradientTransformation:
    """Limit the norm of the weights into each unit to c: w ← w min(1, c / ‖w‖₂) after each step.

    This is a constraint, not a regularizer. Put it last in the optimizer's chain,
    `optax.chain(optax.sgd(0.1), jn.regularizers.max_norm(3.0))`: it changes the update so that `params + updates`
    satisfies it, up to rounding.

    Args:
        limit: c > 0; may be traced.
        on: the paths of the parameters, see `jaxnets.core.paths`.
        axis: the axis that enumerates the units, as in `group_lasso`.

    Returns:
        A stateless Optax transformation whose `update` needs `params`.

    Raises:
        NetError: if c ≤ 0; when called, if a pattern matches nothing, or `params` is missing or lacks the axis.

    Srivastava and others, "Dropout" (2014), section 5.1.

    >>> import jax.numpy as jnp, optax
    >>> params = {"fc": {"kernel": jnp.array([[3.0, 0.5], [4.0, 0.5]])}}
    >>> constraint = max_norm(2.5)
    >>> updates, _ = constraint.update({"fc": {"kernel": jnp.zeros((2, 2))}}, constraint.init(params), params)
    >>> print(optax.apply_updates(params, updates)["fc"]["kernel"])
    [[1.5 0.5]
     [2.  0.5]]
    """
    with labeled_as("max_norm"):
        check_positive("limit", limit)
    label = describe("max_norm", {"limit": limit}, on)

    def init_fn(params: Any) -> optax.EmptyState:
        with labeled_as(label):
            select(params, on)
        return optax.EmptyState()

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def constrain(chosen: bool, param: jax.Array, update: jax.Array) -> jax.Array:
            if not chosen:
                return update
            moved, ceiling = wide(param) + wide(update), jnp.asarray(limit, wide(param).dtype)
            size = norm(moved, axes_within(moved, axis))
            above = size > ceiling
            # Where the norm is within the limit, the update is unchanged, not computed as (w + u) - w.
            within = moved * (ceiling / jnp.where(above, size, 1)) - wide(param)
            return jnp.where(above, within, wide(update)).astype(update.dtype)

        with labeled_as(label):
            if params is None:
                raise NetError("needs the parameters; call update(updates, state, params)")
            return jax.tree.map(constrain, mask(on)(params), params, updates), state

    return optax.GradientTransformation(init_fn, update_fn)
