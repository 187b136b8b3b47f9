"""Constraints on parameters, as Optax transformations."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_positive, labeled_as
from jaxnets.core.paths import Pattern, mask, select
from jaxnets.regularizers.penalty import axes_within, described, norm


def max_norm(limit: Any, on: Pattern = "**/kernel", axis: int | tuple[int, ...] = -1) -> optax.GradientTransformation:
    """Keep the norm of the weights into each unit at most c: w ← w min(1, c / ‖w‖₂) after each step.

    A constraint rather than a penalty, so it stands last in the optimizer's chain and changes the update such
    that `params + updates` satisfies it, to rounding: `optax.chain(optax.sgd(0.1), jn.regularizers.max_norm(3.0))`.

    Args:
        limit: c > 0; may be traced.
        on: the paths of the parameters, see `jaxnets.core.paths`.
        axis: what numbers the units, as in `group_lasso`.

    Returns:
        An Optax transformation without memory, whose `update` needs `params`.

    Raises:
        NetError: if c ≤ 0; when called, if a pattern matches nothing, `params` is missing or lacks the axis.

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
    label = described("max_norm", {"limit": limit}, on)

    def init_fn(params: Any) -> optax.EmptyState:
        with labeled_as(label):
            select(params, on)
        return optax.EmptyState()

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def constrain(chosen: bool, param: jax.Array, update: jax.Array) -> jax.Array:
            if not chosen:
                return update
            wanted, ceiling = wide(param) + wide(update), jnp.asarray(limit, wide(param).dtype)
            size = norm(wanted, axes_within(wanted, axis))
            above = size > ceiling
            within = wanted * (ceiling / jnp.where(above, size, 1)) - wide(param)
            return jnp.where(above, within, wide(update)).astype(update.dtype)

        with labeled_as(label):
            if params is None:
                raise NetError("needs the parameters; call update(updates, state, params)")
            return jax.tree.map(constrain, mask(on)(params), params, updates), state

    return optax.GradientTransformation(init_fn, update_fn)
