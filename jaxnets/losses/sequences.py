"""Losses of whole sequences, in which padding counts for nothing."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.checks import name_of, refuse
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.padded import Padded
from jaxnets.losses.checks import at_least_zero, floating, named
from jaxnets.losses.labels import Labels, labels_of, takes_labels
from jaxnets.losses.masking import blanked, check_weights, real_steps, stood_in, weighted_mean, weighted_sum

Loss = Callable[..., jax.Array]


def sequence(loss: Loss, reduction: Literal["mean", "sum"] = "mean") -> Loss:
    """Turn a loss of steps into a loss of sequences: Σ_t w_t l_t / Σ_t w_t for each sequence.

    Padding has weight 0 and never matters, NaN in it neither, in value or gradient. A sequence without real
    steps has loss 0. A batch's mean of such means gives each sequence one vote, long or short; with
    `reduction="sum"` each step has one.

    Args:
        loss: `(outputs, targets) -> (batch,)` of single steps, one of `jn.losses` or your own.
        reduction: "mean" or "sum" over the real steps.

    Returns:
        A loss `(outputs, targets, weights=None) -> (batch,)`, reported under the name of `loss`. Outputs
        `(batch, time, ...)` and targets `(batch, time, ...)` are arrays or `Padded`, of the same lengths if both
        are; `weights` `(batch, time)` weigh single steps.

    Raises:
        NetError: for another reduction; when called, if batch, time or lengths of the two differ.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> logits = jn.Padded(jnp.zeros((2, 3, 4)), jnp.array([3, 1]))
    >>> print(sequence(jn.losses.cross_entropy)(logits, jnp.zeros((2, 3), int)).round(4))
    [1.3863 1.3863]
    """
    name = name_of(loss)
    if reduction not in ("mean", "sum"):
        raise NetError(f"expects reduction 'mean' or 'sum', got {reduction!r}", label="sequence")

    def sequence_loss(outputs: Any, targets: Any, weights: Any = None) -> jax.Array:
        with labeled_as(f"sequence({name})"):
            mask = real_steps(outputs, targets)
            outputs, targets = (jnp.asarray(x.values if isinstance(x, Padded) else x) for x in (outputs, targets))
            steps = outputs.shape[:2]
            if len(steps) < 2 or targets.shape[:2] != steps:
                raise NetError(
                    f"expects outputs and targets (batch, time, ...) of one batch and time, "
                    f"got {outputs.shape} and {targets.shape}"
                )
            weights = jnp.ones(steps, jnp.float32) if weights is None else check_weights(weights, steps)
            weights = weights if mask is None else jnp.where(mask, weights, 0)
            outputs, targets = blanked(weights > 0, outputs), stood_in(weights > 0, targets)
        values = loss(*(x.reshape((steps[0] * steps[1], *x.shape[2:])) for x in (outputs, targets)))
        if jnp.shape(values) != (steps[0] * steps[1],):
            raise NetError(
                f"expects a loss with one value a step, got {jnp.shape(values)} for {steps[0] * steps[1]} steps",
                label=f"sequence({name})",
            )
        values = values.reshape(steps)
        if reduction == "mean":
            return weighted_mean(values, weights, axis=1)
        return jax.vmap(weighted_sum)(values, weights)

    sequence_loss.__name__ = name
    return takes_labels(sequence_loss, labels_of(loss))


@partial(takes_labels, labels=Labels(first=1))
@named
def ctc(outputs: Any, targets: Any) -> jax.Array:
    """Return the connectionist temporal classification loss, −log of the probability of all paths to the labels.

    A path names a class or the blank, class 0, at every step; merging repeats and then dropping blanks gives
    the labels. Labels longer than the outputs (a repeated label needs a blank between) have no path: their
    loss is about 1e30, where PyTorch gives ∞; leave them out by weights. It is not divided by the labels' length.

    Args:
        outputs: logits `(batch, time, classes)`, an array or `Padded`.
        targets: labels `(batch, labels)` from 1 to classes − 1, an integer array or `Padded`.

    Returns:
        `(batch,)`, float32 or wider, ≥ 0. It is a logarithm of probabilities added up in that dtype, so losses below
        about 10⁻⁶ have no digit that is right. Padding never matters, NaN in it neither.

    Raises:
        NetError: for other ranks or batches, labels that are no integers, and known labels out of range.

    Graves and others, "Connectionist Temporal Classification" (2006), section 4.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> logits = jn.Padded(jnp.zeros((2, 4, 3)), jnp.array([4, 1]))
    >>> labels = jn.Padded(jnp.array([[1, 2], [1, 0]]), jnp.array([2, 1]))
    >>> print((jnp.exp(-ctc(logits, labels)) * jnp.array([81.0, 3.0])).round(1))  # 15 of 3⁴ paths, and 1 of 3
    [15.  1.]
    """
    real, real_labels = real_steps(outputs, None), real_steps(targets, None)
    logits = floating(outputs.values if isinstance(outputs, Padded) else outputs)
    labels = jnp.asarray(targets.values if isinstance(targets, Padded) else targets)
    if logits.ndim != 3 or logits.shape[2] < 2 or labels.ndim != 2 or labels.shape[0] != logits.shape[0]:
        raise NetError(
            f"expects logits (batch, time, classes) and labels (batch, labels), got {logits.shape} and {labels.shape}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise NetError(f"expects integer labels, got {labels.dtype}; convert them, targets.astype(jnp.int32)")
    real = jnp.ones(logits.shape[:2], bool) if real is None else real
    real_labels = jnp.ones(labels.shape, bool) if real_labels is None else real_labels
    logits, labels = blanked(real, logits), stood_in(real_labels, labels.astype(jnp.int32))
    classes = logits.shape[2]
    refuse(
        jnp.where(real_labels, labels, 1),
        lambda y: (y < 1) | (y >= classes),
        f"expects labels from 1 to {classes - 1} (0 is the blank), got {{}}",
    )
    paddings = (1 - real.astype(logits.dtype), 1 - real_labels.astype(logits.dtype))
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),  # Optax gathers by a matrix product, which a GPU would round
    ):
        values = optax.losses.ctc_loss(logits, paddings[0], labels, paddings[1], log_epsilon=-1e30)
    return at_least_zero(values)
