"""Optax optimizers, used as they are: what each of them asks for beyond gradients and parameters."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.errors import NetError

REFUSED = (
    (
        optax.contrib.DifferentiallyPrivateAggregateState,
        "optax.contrib.differentially_private_aggregate",
        "takes a gradient of each example, and would take the first axis of every parameter for the batch",
    ),
    (optax.LookaheadState, "optax.lookahead", "takes pairs of fast and slow parameters, LookaheadParams"),
)


class Masters(NamedTuple):
    """The memory of an optimizer of parameters in half precision.

    Attributes:
        params: the parameters in float32, of which the network's are roundings: small steps add up in them.
        inner: the optimizer's own memory, made of these and in float32 too.
    """

    params: Any
    inner: Any


def begin(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Return an optimizer's memory before the first step, with float32 masters of parameters in half precision.

    Raises:
        NetError: for one that takes something else than gradients and parameters.

    >>> begin(optax.sgd(0.1), jnp.ones(2, jnp.bfloat16)).params.dtype.name
    'float32'
    """
    wide = widened(params)
    state = optimizer.init(wide)
    parts = jax.tree.leaves(state, is_leaf=lambda each: isinstance(each, tuple(kind for kind, *_ in REFUSED)))
    for kind, name, why in REFUSED:
        if any(isinstance(each, kind) for each in parts):
            raise NetError(f"{why}; write its step by hand, around net.apply and the objective", label=name)
    return state if _dtypes(wide) == _dtypes(params) else Masters(wide, state)


def descend(
    optimizer: optax.GradientTransformation,
    grads: Any,
    state: Any,
    params: Any,
    value: jax.Array,
    value_fn: Callable[[Any], jax.Array],
    *,
    factor: jax.Array | None = None,
) -> tuple[Any, Any, Any]:
    """Return the parameters after a step, the optimizer's memory, and what was added, in float32 at least.

    Args:
        optimizer: an Optax optimizer.
        grads: the objective's gradient.
        state: the optimizer's memory, as `begin` made it.
        params: the parameters.
        value: the objective.
        value_fn: the objective as a function of the parameters.
        factor: what updates are multiplied by.

    Raises:
        NetError: as `update`.
    """
    exact = params
    if isinstance(state, Masters):  # parameters that were put in place since are taken as they are
        exact = jax.tree.map(
            lambda own, kept: jnp.where(kept.astype(own.dtype) == own, kept, own), params, state.params
        )
        exact, grads = widened(exact), widened(grads)
    inner = state.inner if isinstance(state, Masters) else state
    updates, inner = update(optimizer, grads, inner, exact, value, lambda wide: value_fn(_rounded(wide, params)))
    if factor is not None:
        updates = jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates)
    exact = optax.apply_updates(exact, updates)
    if not isinstance(state, Masters):
        return exact, inner, updates
    return _rounded(exact, params), Masters(exact, inner), updates


def unrounded(state: Any, params: Any) -> Any:
    """Return the parameters as the optimizer keeps them: in float32, where it has masters."""
    return state.params if isinstance(state, Masters) else params


def widened(params: Any) -> Any:
    """Return a tree with floating leaves of less than 32 bits in float32, the others as they are."""

    def wide(leaf: Any) -> Any:
        half = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4
        return leaf.astype(jnp.float32) if half else leaf

    return jax.tree.map(wide, params)


def _rounded(wide: Any, params: Any) -> Any:
    return jax.tree.map(lambda new, own: new.astype(own.dtype), wide, params)


def _dtypes(tree: Any) -> list[Any]:
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


def update(
    optimizer: optax.GradientTransformation,
    grads: Any,
    state: Any,
    params: Any,
    value: jax.Array,
    value_fn: Callable[[Any], jax.Array],
) -> tuple[Any, Any]:
    """Return an optimizer's updates and its next state, with all that an optimizer of Optax may ask for.

    These are `value`, the objective on the batch; `grad`, its gradient; `value_fn` (`lbfgs`, line searches) and
    `obj_fn` (`sophia`), the objective on the same batch, with the same randomness, as a function of the parameters; and
    `grad_fn` (`sam`), its gradient.

    Raises:
        NetError: if the optimizer needs anything else, or its memory changes its structure.

    >>> import jax.numpy as jnp
    >>> params, search = jnp.array([3.0]), optax.lbfgs()
    >>> square = lambda params: (params**2).sum()
    >>> updates, _ = update(search, 2 * params, search.init(params), params, square(params), square)
    >>> bool(square(params + updates) < square(params))
    True
    """

    def swallows(params: Any, obj_fn: Any = None, grad_fn: Any = None) -> jax.Array:
        return value_fn(params)  # a line search refuses arguments that its `value_fn` does not take

    def grad_fn(params: Any, number: Any = None) -> Any:
        return jax.grad(value_fn)(params)

    given = {"value": value, "grad": grads, "value_fn": swallows, "obj_fn": value_fn, "grad_fn": grad_fn}
    takes = inspect.signature(optimizer.update).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
        given = {name: each for name, each in given.items() if name in takes}
    try:
        updates, after = optimizer.update(grads, state, params, **given)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, NetError):
            raise
        raise NetError(
            f"can't be updated: {error}; beyond gradients and parameters it may ask for value, grad, value_fn, obj_fn "
            f"and grad_fn, see jn.train.step",
            label="the optimizer",
        ) from error
    if jax.tree.structure(after) != jax.tree.structure(state):
        raise NetError(
            "has a memory of another structure after a step than before it, which no compiled loop can hold (as "
            "optax.monitor has); jn.train.norms() and other watches report on every step",
            label="the optimizer",
        )
    return updates, after
