"""Optax optimizers: float32 master parameters of half-precision ones, and the extra arguments of optimizers."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.errors import NetError

# Optimizers that take something other than gradients and parameters: state, name, reason.
UNSUPPORTED = (
    (
        optax.contrib.DifferentiallyPrivateAggregateState,
        "optax.contrib.differentially_private_aggregate",
        "takes a gradient of each example, and would take the first axis of every parameter for the batch",
    ),
    (optax.LookaheadState, "optax.lookahead", "takes pairs of fast and slow parameters, LookaheadParams"),
)


class Masters(NamedTuple):
    """The optimizer state for parameters in half precision.

    Attributes:
        params: the parameters in float32, in which small steps add up; the network's parameters are these, rounded.
        inner: the optimizer's own state for these parameters, in float32 too.
    """

    params: Any
    inner: Any


def init_optimizer(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Return an optimizer's state before the first step, with float32 master parameters of half-precision ones.

    Raises:
        NetError: for an optimizer that takes something other than gradients and parameters.

    >>> init_optimizer(optax.sgd(0.1), jnp.ones(2, jnp.bfloat16)).params.dtype.name
    'float32'
    """
    wide = widened(params)
    state = optimizer.init(wide)
    kinds = tuple(kind for kind, *_ in UNSUPPORTED)
    parts = jax.tree.leaves(state, is_leaf=lambda each: isinstance(each, kinds))
    for kind, name, why in UNSUPPORTED:
        if any(isinstance(each, kind) for each in parts):
            raise NetError(f"{why}; write its step yourself, with net.apply and the objective", label=name)
    return state if _dtypes(wide) == _dtypes(params) else Masters(wide, state)


def update_params(
    optimizer: optax.GradientTransformation,
    grads: Any,
    state: Any,
    params: Any,
    value: jax.Array,
    value_fn: Callable[[Any], jax.Array],
    *,
    factor: jax.Array | None = None,
) -> tuple[Any, Any, Any]:
    """Return the parameters after a step, the optimizer's state, and the updates, in float32 or better.

    The optimizer gets every extra argument that Optax's optimizers need. These are `value`, the objective on the
    batch; `grad`, its gradient; `value_fn` (`lbfgs`, line searches) and `obj_fn` (`sophia`), the objective on the same
    batch, with the same randomness, as a function of the parameters; and `grad_fn` (`sam`), its gradient.

    Args:
        optimizer: an Optax optimizer.
        grads: the objective's gradient.
        state: the optimizer's state, as `init_optimizer` made it.
        params: the parameters.
        value: the objective.
        value_fn: the objective as a function of the parameters.
        factor: the factor of the updates.

    Raises:
        NetError: if the optimizer needs another argument, or its state changes structure.

    >>> import jax.numpy as jnp
    >>> params, search = jnp.array([3.0]), optax.lbfgs()
    >>> square = lambda params: (params**2).sum()
    >>> after, *_ = update_params(search, 2 * params, search.init(params), params, square(params), square)
    >>> bool(square(after) < square(params))
    True
    """
    exact, before = params, state
    if isinstance(state, Masters):
        # Parameters that were replaced since the last step differ from the rounded masters, and take precedence.
        exact = jax.tree.map(
            lambda own, master: jnp.where(master.astype(own.dtype) == own, master, own), params, state.params
        )
        exact, grads, before = widened(exact), widened(grads), state.inner

    def wide_fn(wide: Any, obj_fn: Any = None, grad_fn: Any = None) -> jax.Array:
        # A line search passes its `value_fn` the other extra arguments too, and fails on those it does not accept.
        return value_fn(_rounded(wide, params))

    def grad_fn(wide: Any, number: Any = None) -> Any:
        return jax.grad(wide_fn)(wide)

    extra = {"value": value, "grad": grads, "value_fn": wide_fn, "obj_fn": wide_fn, "grad_fn": grad_fn}
    accepted = inspect.signature(optimizer.update).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in accepted.values()):
        extra = {name: each for name, each in extra.items() if name in accepted}
    try:
        updates, inner = optimizer.update(grads, before, exact, **extra)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, NetError):
            raise
        raise NetError(
            f"can't be updated: {error}; besides gradients and parameters it may take value, grad, value_fn, obj_fn "
            f"and grad_fn, see jn.train.make_train_step",
            label="the optimizer",
        ) from error
    if jax.tree.structure(inner) != jax.tree.structure(before):
        raise NetError(
            "has a state whose structure changes in a step, which no compiled loop can carry (so does optax.monitor); "
            "jn.train.norms() and other monitors report every step",
            label="the optimizer",
        )
    if factor is not None:
        updates = jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates)
    exact = optax.apply_updates(exact, updates)
    if not isinstance(state, Masters):
        return exact, inner, updates
    return _rounded(exact, params), Masters(exact, inner), updates


def unrounded(state: Any, params: Any) -> Any:
    """Return the parameters as the optimizer keeps them: the float32 masters if there are any."""
    return state.params if isinstance(state, Masters) else params


def widened(params: Any) -> Any:
    """Return a tree whose floating leaves of less than 32 bits are converted to float32."""

    def widen(leaf: Any) -> Any:
        half = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4
        return leaf.astype(jnp.float32) if half else leaf

    return jax.tree.map(widen, params)


def _rounded(wide: Any, params: Any) -> Any:
    return jax.tree.map(lambda new, own: new.astype(own.dtype), wide, params)


def _dtypes(tree: Any) -> list[Any]:
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]
