"""Metrics of scores of classes: accuracies and perplexity."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets import losses
from jaxnets.core.checks import refuse
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.padded import Padded
from jaxnets.losses.checks import array, class_targets, floating, over_batch, same_shape
from jaxnets.losses.labels import takes_labels, takes_targets
from jaxnets.losses.masking import check_weights, fill_masked, masked_rows, real_steps, zero_masked
from jaxnets.metrics.metric import Metric, Sums, ratio, sums


def main_output(outputs: Any) -> Any:
    """Return the logits of a network with auxiliary heads in training, any other outputs unchanged."""
    return outputs["logits"] if isinstance(outputs, dict) and "logits" in outputs else outputs


def unpadded(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Return outputs and targets as arrays, and which steps are real, `(batch, time)`, if either is `Padded`."""
    outputs = main_output(outputs)
    mask = real_steps(outputs, targets)
    outputs, targets = (x.values if isinstance(x, Padded) else x for x in (outputs, targets))
    return floating(outputs), array(targets), mask


def item_weights(weights: Any, mask: jax.Array | None, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Return the weight of each item, of the given shape `(batch, ...)`; padding has weight 0."""
    counted = jnp.ones(shape, dtype)
    if weights is not None:
        weights = jnp.asarray(weights)
        weights = check_weights(weights, shape if weights.ndim == len(shape) else shape[:1]).astype(dtype)
        counted = counted * weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    # The mask is (batch, time), the items (batch, time, ...).
    if mask is not None:
        counted = jnp.where(mask.reshape(mask.shape + (1,) * (len(shape) - 2)), counted, 0)
    return counted


def items(outputs: Any, targets: Any, weights: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return scores `(items, classes)`, int32 labels `(items,)` and weights `(items,)`; padding has weight 0."""
    outputs, targets, mask = unpadded(outputs, targets)
    if outputs.ndim < 2 or outputs.shape[-1] < 2:
        raise NetError(
            f"expects outputs (batch, ..., classes) with at least 2 classes, got {outputs.shape}; "
            f"for one logit per example use jn.metrics.binary_accuracy, or two classes, [0, logit]"
        )
    shape = outputs.shape[:-1]
    if targets.shape not in (shape, outputs.shape):
        class_targets(outputs, targets)  # raises an error with the right message
    counted = item_weights(weights, mask, shape, outputs.dtype)
    # Items of weight 0 get harmless values before they are checked.
    real = counted > 0
    outputs, targets = class_targets(zero_masked(real, outputs), fill_masked(real, targets))
    labels = targets.argmax(axis=-1) if targets.ndim == outputs.ndim else targets
    return outputs.reshape((-1, outputs.shape[-1])), labels.reshape(-1), counted.reshape(-1)


def top_k(k: int) -> Metric:
    """Return the metric of how often the true class is among the k best.

    Among classes with equal scores the first counts as better, as in `argmax`. Scores with a NaN count as wrong.

    Args:
        k: at least 1 and at most the number of classes.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels `(batch, ...)`, or one-hot labels.

    Raises:
        NetError: for k < 1; when measured, for k > classes and for labels as in `jn.losses.cross_entropy`.

    >>> import jax.numpy as jnp
    >>> top_k(2)(jnp.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), jnp.array([1, 2])).item()
    0.5
    """
    with labeled_as("top_k"):
        check_count("k", k)
    return _top_k(k, f"top_{k}")


def _top_k(k: int, name: str) -> Metric:
    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        with labeled_as(name):
            scores, labels, weights = items(outputs, targets, weights)
            if k > scores.shape[1]:
                raise NetError(f"expects at least {k} classes, got {scores.shape[1]}")
        # A class is better than the true one if it scores higher, or the same at a smaller index.
        true = jnp.take_along_axis(scores, labels[:, None], axis=1, mode="fill", fill_value=jnp.nan)
        before = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) < labels[:, None]
        better = (scores > true) | ((scores == true) & before)
        right = (better.sum(axis=1) < k) & ~jnp.isnan(scores).any(axis=1) & ~jnp.isnan(true[:, 0])
        return sums(right.astype(weights.dtype), weights)

    return Metric(takes_labels(measure), ratio, name, higher_is_better=True, range=(0.0, 1.0))


accuracy: Metric = _top_k(1, "accuracy")
"""How often the true class has the best score, for outputs `(batch, ..., classes)` and labels `(batch, ...)`.

Labels are integers, or one-hot in the outputs' shape. Among equal scores the first counts. Scores with a NaN count as
wrong, although `argmax` would return the NaN.
"""


def check_binary(targets: Any) -> None:
    """Check that known targets are 0 and 1, or -1 and 1."""
    hint = "; convert 1 and 2 to 0 and 1 by targets - 1"
    refuse(targets, lambda t: (t != 0) & (abs(t) != 1), f"expects targets 0 and 1, or -1 and 1, got {{}}{hint}")


@takes_targets(check_binary)
def _binary_accuracy(outputs: Any, targets: Any, weights: Any = None) -> Sums:
    with labeled_as("binary_accuracy"):
        outputs, targets, weights = masked_rows(main_output(outputs), targets, weights)
        logits, truth = same_shape(outputs, targets)
        check_binary(truth)
    right = jnp.where(jnp.isnan(logits), False, (logits > 0) == (truth > 0)).astype(logits.dtype)
    return sums(over_batch(right), weights)


binary_accuracy: Metric = Metric(_binary_accuracy, ratio, "binary_accuracy", higher_is_better=True, range=(0.0, 1.0))
"""How often the sign of a logit is correct, for outputs and targets of the same shape `(batch, ...)`.

Targets are 0 and 1, or −1 and 1. A logit of 0 predicts 0 (or −1); NaN counts as wrong. Weights are `(batch,)`; the
value is averaged over all other axes.
"""


def _perplexity(outputs: Any, targets: Any, weights: Any = None) -> Sums:
    with labeled_as("perplexity"):
        logits, labels, weights = items(outputs, targets, weights)
    return sums(losses.cross_entropy(logits, labels), weights)


perplexity: Metric = Metric(
    takes_labels(_perplexity),
    lambda sums: jnp.exp(ratio(sums)),
    "perplexity",
    higher_is_better=False,
    range=(0.0, math.inf),
)
"""The perplexity e^l, where l is the mean cross entropy of all real tokens, not a mean over batches or sequences.

Outputs are logits `(batch, ..., classes)`, labels as for `accuracy`. The perplexity is 1 for perfect predictions and
the number of classes for uniform ones.
"""


bits_per_character: Metric = Metric(
    takes_labels(_perplexity),
    lambda sums: ratio(sums) / math.log(2),
    "bits_per_character",
    higher_is_better=False,
    range=(0.0, math.inf),
)
"""The bits that a character costs, l / ln 2, where l is the mean cross entropy of all real tokens.

This is the logarithm of `perplexity` to the base 2, for the same outputs and labels; where a token is more than one
character, it is bits per token. It is 0 for perfect predictions and log₂ of the number of classes for uniform ones.

Shannon, "Prediction and Entropy of Printed English" (1951).
"""
