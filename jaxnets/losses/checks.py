"""What losses share: what they ask of outputs and targets and say when they are wrong, and small array functions."""

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
    """Decorate a loss so that its name stands in front of its errors, and arguments it does not have are explained."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def loss(*args: P.args, **kwargs: P.kwargs) -> jax.Array:
        check_arguments(name_of(function), signature, args, kwargs)
        with labeled_as(name_of(function)):
            return function(*args, **kwargs)

    return loss


def floating(outputs: Any) -> jax.Array:
    """Return outputs `(batch, ...)` as an array of float32 or wider.

    Raises:
        NetError: if they are no array, not floating, or have no batch axis.
    """
    if isinstance(outputs, Padded):
        raise NetError("expects an array, got Padded; wrap the loss, jn.losses.sequence(loss), to average over steps")
    if isinstance(outputs, dict | tuple) or outputs is None:
        hint = "choose one of several outputs, lambda outputs, targets: loss(outputs['name'], targets['name'])"
        if isinstance(outputs, dict) and "logits" in outputs:
            hint = "for auxiliary heads wrap the loss, jn.losses.auxiliary_loss(loss, aux1=0.3)"
        raise NetError(f"expects an array, got {type(outputs).__name__}; {hint}")
    outputs = jnp.asarray(outputs)
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise NetError(f"expects floating outputs, got {outputs.dtype} {outputs.shape}; is it (targets, outputs)?")
    if not outputs.ndim:
        raise NetError("expects outputs (batch, ...), got a scalar; add a batch axis")
    return wide(outputs)


def same_shape(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    """Return outputs and targets of one shape and one dtype, that of the outputs in float32 or wider.

    Raises:
        NetError: if the shapes differ, `(n,)` against `(n, 1)` included, which NumPy would make `(n, n)` of.
    """
    outputs, targets = floating(outputs), array(targets)
    shape = targets.shape
    if outputs.shape != shape:
        if outputs.shape == (*shape, 1):
            hint = "; drop the last axis, outputs[..., 0]"
        elif shape == (*outputs.shape, 1):
            hint = "; drop the last axis, targets[..., 0]"
        elif outputs.shape[:-1] == shape:
            hint = f"; for class indices take cross_entropy, or jax.nn.one_hot(targets, {outputs.shape[-1]})"
        else:
            hint = of_places(outputs.shape, shape)
        raise NetError(f"expects outputs and targets of one shape, got {outputs.shape} and {shape}{hint}")
    return outputs, targets.astype(outputs.dtype)


def of_places(outputs: tuple[int, ...], targets: tuple[int, ...]) -> str:
    """Say what is missing where each place of an image, or each step, has an output, and each example one target."""
    if len(outputs) < 3 or targets[:1] != outputs[:1] or targets[1:] not in ((), (1,), outputs[-1:]):
        return ""
    steps = "; of sequences take the last step, jn.recurrent(..., return_sequences=False)" if len(outputs) == 3 else ""
    hint = "jn.flatten or jn.global_avg_pool in front of the last jn.dense joins them"
    return f"; the network gives outputs for {' × '.join(map(str, outputs[1:-1]))} places: {hint}{steps}"


def array(targets: Any) -> jax.Array:
    """Return targets as an array.

    Raises:
        NetError: for `Padded`, a dict, a tuple or nothing.
    """
    if isinstance(targets, Padded | dict | tuple) or targets is None:
        hint = "; wrap the loss, jn.losses.sequence(loss)" if isinstance(targets, Padded) else ""
        raise NetError(f"expects an array of targets, got {type(targets).__name__}{hint}")
    return jnp.asarray(targets)


def class_targets(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    """Return outputs `(batch, ..., classes)`, and labels `(batch, ...)` int32 or probabilities like the outputs.

    A label out of range comes back as `classes` where it is traced, so that picking by it gives NaN.

    Raises:
        NetError: for outputs without a class axis; labels of another shape, not of integers, or out of range;
            probabilities that are negative or do not add up to 1 (values are looked at where they are known).
    """
    outputs = floating(outputs)
    if outputs.ndim < 2 or outputs.shape[-1] < 2:
        raise NetError(
            f"expects outputs (batch, ..., classes) with at least 2 classes, got {outputs.shape}; "
            f"for one logit an example take binary_cross_entropy or hinge"
        )
    targets, classes = array(targets), outputs.shape[-1]
    if targets.shape == outputs.shape:
        check_probabilities(targets)
        return outputs, targets.astype(outputs.dtype)
    if targets.shape != outputs.shape[:-1]:
        short = targets.shape == (*outputs.shape[:-1], 1)
        hint = "; drop the last axis, targets[..., 0]" if short else of_places(outputs.shape, targets.shape)
        raise NetError(
            f"expects labels {outputs.shape[:-1]} or probabilities {outputs.shape} for outputs {outputs.shape}, "
            f"got {targets.shape}{hint}"
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise NetError(f"expects integer labels, got {targets.dtype}; convert them, targets.astype(jnp.int32)")
    labels = targets.astype(jnp.int32)
    refuse(labels, lambda y: (y < 0) | (y >= classes), f"expects labels from 0 to {classes - 1}, got {{}}")
    return outputs, jnp.where(labels < 0, classes, labels)


def integer_targets(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    """Return what `class_targets` does for integer labels.

    Raises:
        NetError: as `class_targets`, and for probabilities.
    """
    outputs, targets = class_targets(outputs, targets)
    if targets.ndim == outputs.ndim:
        raise NetError(f"expects integer labels {outputs.shape[:-1]}, got {targets.shape}; take targets.argmax(-1)")
    return outputs, targets


def pick(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the entry of each label's class, `(batch, ..., classes)` to `(batch, ...)`; NaN out of range."""
    return jnp.take_along_axis(outputs, labels[..., None], axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


def others(labels: jax.Array, outputs: jax.Array) -> jax.Array:
    """Tell which classes are not the label's: booleans of the outputs' shape."""
    return labels[..., None] != jax.lax.broadcasted_iota(jnp.int32, outputs.shape, outputs.ndim - 1)


def check_probabilities(targets: Any) -> None:
    """Check, where values are known, that targets are probabilities along the last axis, to 1 % for rounding.

    Raises:
        NetError: if one is negative or they do not add up to 1.
    """
    refuse(targets, lambda p: p < 0, "expects probabilities as targets, got {}")
    hint = "; for labels that exclude nothing take binary_cross_entropy"
    values = known(targets)
    if values is not None:
        totals = values.astype(np.float64).sum(axis=-1)
        refuse(
            totals, lambda s: np.abs(s - 1) > 0.01, f"expects probabilities that add up to 1, got a sum of {{}}{hint}"
        )


def warn_of_probabilities(outputs: jax.Array) -> None:
    """Warn where known logits are probabilities: all in [0, 1], rows that sum to 1, and not just zeros and ones."""
    values = known(outputs)
    if values is None or not ((values >= 0) & (values <= 1)).all() or (values % 1 == 0).all():
        return
    if (np.abs(values.sum(-1, dtype=np.float64) - 1) < 1e-3).all():
        text = "the outputs are probabilities, and this loss takes logits: it applies softmax itself"
        warnings.warn(f"{text}; leave softmax out, or take negative_log_likelihood of jnp.log", stacklevel=4)


def check_log_probabilities(outputs: jax.Array) -> None:
    """Check, where values are known, that outputs are logarithms of probabilities.

    Raises:
        NetError: if one is positive.
    """
    hint = "; pass jax.nn.log_softmax(logits)"
    refuse(outputs, lambda q: q > 1e-2, f"expects log-probabilities, at most 0, got {{}}{hint}")


def option(value: Any, like: jax.Array) -> jax.Array:
    """Return a loss's option, traced or not, in the dtype of the outputs."""
    return jnp.asarray(value, like.dtype)


def magnitude(x: jax.Array) -> jax.Array:
    """Return |x| with the derivative 0 at 0, where that of `jnp.abs` is 1."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


def at_least_zero(x: jax.Array) -> jax.Array:
    """Return values that are ≥ 0 but for rounding with 0 for what lies below; their derivative stays."""
    return x + jax.lax.stop_gradient(jnp.maximum(-x, 0))


def binary_entropies(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return −t log σ(o) − (1 − t) log σ(−o) element by element; 0 · ∞ counts as 0, for logits of ±∞."""

    def times(share: jax.Array, loss: jax.Array) -> jax.Array:
        return share * jnp.where((share == 0) & jnp.isinf(loss), 0, loss)

    return times(targets, jax.nn.softplus(-logits)) + times(1 - targets, jax.nn.softplus(logits))


def over_batch(values: jax.Array) -> jax.Array:
    """Return the mean over all axes but the first: `(batch, ...)` to `(batch,)`."""
    return values.mean(axis=tuple(range(1, values.ndim)))
