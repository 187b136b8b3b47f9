"""Regularizers of a network's outputs, one value per example."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError
from jaxnets.core.padded import Padded, check_padded
from jaxnets.losses.checks import floating, magnitude, over_batch
from jaxnets.losses.masking import weighted_mean
from jaxnets.regularizers.regularizer import Regularizer, make_regularizer, scale


def activity_l1(strength: Any) -> Regularizer:
    """Penalize λ Σ_j |a_j| of each example's outputs a, which makes the outputs sparse.

    Args:
        strength: λ ≥ 0; may be traced.

    Returns:
        A regularizer of outputs `(batch, ...)` or `Padded`: the sum over all axes except the batch, without padding.

    Raises:
        NetError: if λ < 0.

    >>> import jax.numpy as jnp
    >>> print(activity_l1(0.5)(jnp.array([[1.0, -2.0], [0.0, 4.0]])))
    [1.5 2. ]
    """
    return _of_outputs("activity_l1", strength, lambda a: magnitude(a).sum(axis=tuple(range(1, a.ndim))))


def activity_l2(strength: Any) -> Regularizer:
    """Penalize λ Σ_j a_j² of each example's outputs a.

    Args:
        strength: λ ≥ 0; may be traced.

    Returns:
        A regularizer of outputs `(batch, ...)` or `Padded`: the sum over all axes except the batch, without padding.

    Raises:
        NetError: if λ < 0.

    >>> import jax.numpy as jnp
    >>> print(activity_l2(0.5)(jnp.array([[1.0, -2.0], [0.0, 4.0]])))
    [2.5 8. ]
    """
    return _of_outputs("activity_l2", strength, lambda a: jnp.square(a).sum(axis=tuple(range(1, a.ndim))))


def confidence(strength: Any) -> Regularizer:
    """Penalize confident predictions by their negative entropy, −λ H(p) = λ Σ_k p_k log p_k with p = softmax(logits).

    Args:
        strength: λ ≥ 0; may be traced.

    Returns:
        A regularizer of logits `(batch, ..., classes)`, averaged over the axes in between; over the real steps if
        `Padded`. Its value is between −λ log(classes) and 0.

    Raises:
        NetError: if λ < 0.

    Pereyra and others, "Regularizing Neural Networks by Penalizing Confident Output Distributions" (2017).

    >>> import jax.numpy as jnp
    >>> print(confidence(1.0)(jnp.array([[0.0, 0.0], [0.0, 100.0]])).round(4))
    [-0.6931  0.    ]
    """

    def negative_entropy(logits: jax.Array) -> jax.Array:
        if logits.ndim < 2 or logits.shape[-1] < 2:
            raise NetError(f"expects logits (batch, ..., classes) with at least 2 classes, got {logits.shape}")
        log_p = jax.nn.log_softmax(logits)
        return over_batch((jnp.exp(log_p) * log_p).sum(axis=-1))

    return _of_outputs("confidence", strength, negative_entropy, by_step=True)


def _of_outputs(
    name: str, strength: Any, function: Callable[[jax.Array], jax.Array], *, by_step: bool = False
) -> Regularizer:
    """Make a regularizer of `(batch, ...) -> (batch,)`; for `Padded` outputs `by_step` averages over the real steps."""

    def values(outputs: Any) -> jax.Array:
        if not isinstance(outputs, Padded):
            return scale(strength, function(floating(outputs)))
        check_padded(outputs)
        steps = floating(outputs.zeroed())  # (batch, time, ...)
        if not by_step:
            return scale(strength, function(steps))
        # Each step is an example: (batch · time, ...) -> (batch, time).
        by_steps = function(steps.reshape((-1, *steps.shape[2:]))).reshape(steps.shape[:2])
        return scale(strength, weighted_mean(by_steps, outputs.mask, axis=1))

    return make_regularizer(name, {"strength": strength}, values, "outputs")
