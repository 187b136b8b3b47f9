"""Checks of outputs and targets, and small array functions, shared by all losses."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import name_of, refuse
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, known, labeled_as
from jaxnets.core.keywords import check_arguments
from jaxnets.core.padded import Padded

P = ParamSpec("P")


def named(function: Callable[P, jax.Array]) -> Callable[P, jax.Array]:
    """Decorate a loss so that its errors start with its name and unknown arguments are explained."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def loss(*args: P.args, **kwargs: P.kwargs) -> jax.Array:
        check_arguments(name_of(function), signature, args, kwargs)
        with labeled_as(name_of(function)):
            return function(*args, **kwargs)

    return loss


def floating(outputs: Any, targets: Any = None) -> jax.Array:
    """Return outputs `(batch, ...)` as an array of float32 or wider; known targets improve the hint of an error.

    Raises:
        NetError: if they are not an array, not floating, or have no batch axis.
    """
    if isinstance(outputs, Padded):
        if targets is not None and not isinstance(targets, Padded | dict | tuple):
            shape, wanted = np.shape(outputs.values), np.shape(targets)
            if places_hint(shape, wanted):
                hint = "take the last step, jn.recurrent(..., return_sequences=False)"
                raise NetError(
                    f"expects an output for each example, got Padded {shape} for targets {wanted}; the network returns "
                    f"outputs of each step: {hint}"
                )
        raise NetError("expects an array, got Padded; wrap the loss, jn.losses.sequence(loss), to average over steps")
    if isinstance(outputs, dict | tuple) or outputs is None:
        hint = "choose one of several outputs, lambda outputs, targets: loss(outputs['name'], targets['name'])"
        if isinstance(outputs, dict) and "logits" in outputs:
            hint = "for auxiliary heads wrap the loss, jn.losses.auxiliary_loss(loss, aux1=0.3)"
        raise NetError(f"expects an array, got {type(outputs).__name__}; {hint}")
    outputs = jnp.asarray(outputs)
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise NetError(
            f"expects floating outputs, got {outputs.dtype} {outputs.shape}; are outputs and targets swapped?"
        )
    if not outputs.ndim:
        raise NetError("expects outputs (batch, ...), got a scalar; add a batch axis")
    return wide(outputs)


def same_shape(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    """Return outputs and targets of the same shape, both in the dtype of the outputs, float32 or wider.

    Raises:
        NetError: if the shapes differ. That includes `(n,)` against `(n, 1)`, which NumPy would broadcast to `(n, n)`.
    """
    outputs, targets = floating(outputs, targets), array(targets)
    shape = targets.shape
    if outputs.shape != shape:
        if outputs.shape == (*shape, 1):
            hint = "; drop the last axis, outputs[..., 0]"
        elif shape == (*outputs.shape, 1):
            hint = "; drop the last axis, targets[..., 0]"
        elif outputs.shape[:-1] == shape:
            hint = f"; for class indices use cross_entropy, or jax.nn.one_hot(targets, {outputs.shape[-1]})"
        else:
            hint = places_hint(outputs.shape, shape)
        raise NetError(f"expects outputs and targets of the same shape, got {outputs.shape} and {shape}{hint}")
    return outputs, targets.astype(outputs.dtype)


def places_hint(outputs: tuple[int, ...], targets: tuple[int, ...]) -> str:
    """Return a hint for outputs at each position or step if each example has only one target, otherwise ""."""
    if len(outputs) < 3 or targets[:1] != outputs[:1] or targets[1:] not in ((), (1,), outputs[-1:]):
        return ""
    steps = "; for sequences take the last step, jn.recurrent(..., return_sequences=False)" if len(outputs) == 3 else ""
    hint = "put jn.flatten or jn.global_avg_pool before the last jn.dense"
    return f"; the network returns outputs for {' × '.join(map(str, outputs[1:-1]))} positions: {hint}{steps}"


def array(targets: Any) -> jax.Array:
    """Return targets as an array.

    Raises:
        NetError: for `Padded`, a dict, a tuple or `None`.
    """
    if isinstance(targets, Padded | dict | tuple) or targets is None:
        hint = "; wrap the loss, jn.losses.sequence(loss)" if isinstance(targets, Padded) else ""
        raise NetError(f"expects an array of targets, got {type(targets).__name__}{hint}")
    return jnp.asarray(targets)


def class_targets(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    """Return outputs `(batch, ..., classes)`, and int32 labels `(batch, ...)` or probabilities of the outputs' shape.

    A traced label out of range becomes `classes`, so that `pick` returns NaN for it.

    Raises:
        NetError: for outputs without a class axis; labels of another shape, not integers, or out of range;
            probabilities that are negative or do not sum to 1. Traced values are not checked.
    """
    outputs = floating(outputs, targets)
    if outputs.ndim < 2 or outputs.shape[-1] < 2:
        raise NetError(
            f"expects outputs (batch, ..., classes) with at least 2 classes, got {outputs.shape}; "
            f"for one logit per example use binary_cross_entropy or hinge"
        )
    targets, classes = array(targets), outputs.shape[-1]
    # One-hot or soft labels.
    if targets.shape == outputs.shape:
        check_probabilities(targets)
        return outputs, targets.astype(outputs.dtype)
    if targets.shape != outputs.shape[:-1]:
        short = targets.shape == (*outputs.shape[:-1], 1)
        hint = "; drop the last axis, targets[..., 0]" if short else places_hint(outputs.shape, targets.shape)
        raise NetError(
            f"expects labels {outputs.shape[:-1]} or probabilities {outputs.shape} for outputs {outputs.shape}, "
            f"got {targets.shape}{hint}"
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise NetError(f"expects integer labels, got {targets.dtype}; convert them, targets.astype(jnp.int32)")
    labels = targets.astype(jnp.int32)
    # Known labels are checked; traced ones can't be.
    refuse(labels, lambda y: (y < 0) | (y >= classes), f"expects labels from 0 to {classes - 1}, got {{}}")
    return outputs, jnp.where(labels < 0, classes, labels)


def integer_targets(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    """Return outputs and integer labels, as `class_targets` does.

    Raises:
        NetError: as in `class_targets`, and for probabilities.
    """
    outputs, targets = class_targets(outputs, targets)
    if targets.ndim == outputs.ndim:
        raise NetError(f"expects integer labels {outputs.shape[:-1]}, got {targets.shape}; take targets.argmax(-1)")
    return outputs, targets


def pick(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Select the output of each label's class, `(batch, ..., classes)` to `(batch, ...)`; NaN if out of range."""
    return jnp.take_along_axis(outputs, labels[..., None], axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


def others(labels: jax.Array, outputs: jax.Array) -> jax.Array:
    """Return booleans of the outputs' shape that are true for every class except the label's."""
    return labels[..., None] != jax.lax.broadcasted_iota(jnp.int32, outputs.shape, outputs.ndim - 1)


def check_probabilities(targets: Any) -> None:
    """Check that known targets are probabilities along the last axis, with a tolerance of 1 % for rounding.

    Raises:
        NetError: if one is negative or they do not sum to 1.
    """
    refuse(targets, lambda p: p < 0, "expects probabilities as targets, got {}")
    hint = "; for labels that do not exclude each other use binary_cross_entropy"
    values = known(targets)
    if values is not None:
        # In float64, so that many classes of low precision do not add up to an error.
        totals = values.astype(np.float64).sum(axis=-1)
        refuse(totals, lambda s: np.abs(s - 1) > 0.01, f"expects probabilities that sum to 1, got a sum of {{}}{hint}")


def warn_of_probabilities(outputs: jax.Array) -> None:
    """Warn if known logits look like probabilities: in [0, 1], with rows that sum to 1, not only zeros and ones."""
    values = known(outputs)
    if values is None or not ((values >= 0) & (values <= 1)).all() or (values % 1 == 0).all():
        return
    if (np.abs(values.sum(-1, dtype=np.float64) - 1) < 1e-3).all():
        text = "the outputs are probabilities, and this loss takes logits: it applies softmax itself"
        warnings.warn(f"{text}; leave softmax out, or use negative_log_likelihood of jnp.log", stacklevel=4)


def check_log_probabilities(outputs: jax.Array) -> None:
    """Check that known outputs are logarithms of probabilities.

    Raises:
        NetError: if one is positive.
    """
    hint = "; pass jax.nn.log_softmax(logits)"
    refuse(outputs, lambda q: q > 1e-2, f"expects log-probabilities, at most 0, got {{}}{hint}")


def option(value: Any, like: jax.Array) -> jax.Array:
    """Return an option of a loss in the dtype of the outputs; it may be traced."""
    return jnp.asarray(value, like.dtype)


def magnitude(x: jax.Array) -> jax.Array:
    """Return |x| with derivative 0 at 0, where `jnp.abs` has derivative 1."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


def at_least_zero(x: jax.Array) -> jax.Array:
    """Set values that only rounding made negative to 0, without changing their derivative."""
    return x + jax.lax.stop_gradient(jnp.maximum(-x, 0))


def binary_entropies(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return −t log σ(o) − (1 − t) log σ(−o) elementwise; for logits of ±∞, 0 · ∞ counts as 0."""

    def product(weight: jax.Array, loss: jax.Array) -> jax.Array:
        return weight * jnp.where((weight == 0) & jnp.isinf(loss), 0, loss)

    # −log σ(o) = softplus(−o)
    return product(targets, jax.nn.softplus(-logits)) + product(1 - targets, jax.nn.softplus(logits))


def over_batch(values: jax.Array) -> jax.Array:
    """Average over all axes except the first: `(batch, ...)` to `(batch,)`."""
    return values.mean(axis=tuple(range(1, values.ndim)))
