"""Metrics of how well scores order examples: the area under the ROC curve, and average precision."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.losses.labels import takes_labels
from jaxnets.losses.masking import fill_masked, zero_masked
from jaxnets.metrics.metric import Metric, Sums, collect, divide
from jaxnets.metrics.scores import check_binary, item_weights, items, unpadded
from jaxnets.ops.sums import total

Average = Literal["macro", "micro", "weighted"]


def roc_auc(*, average: Average | None = "macro", from_logits: bool = True) -> Metric:
    """Return the area under the ROC curve: how often a positive example scores higher than a negative one.

    It is Σ w_i w_j ([s_i > s_j] + ½ [s_i = s_j]) / Σ w_i w_j over all pairs of a positive example i and a negative one
    j. Scores are sorted, not binned, so the value is exact for any batches; all of them are kept until then.

    Outputs and targets of the same shape `(batch,)` or `(batch, ..., labels)` are a binary problem for each label, with
    targets 0 and 1 or −1 and 1. Outputs `(batch, ..., classes)` with integer labels `(batch, ...)` are one problem for
    each class against all others, by the class's probability; of two classes only the second counts.

    Args:
        average: how several labels or classes are averaged: "macro" for the mean, "weighted" for the mean weighted by
            the number of positive examples, "micro" for all pairs together, `None` for one value each.
        from_logits: whether outputs of classes are logits; otherwise they are compared as they are. For binary outputs
            it makes no difference.

    Returns:
        A metric. NaN without a positive or without a negative example, or if a score is NaN.

    Raises:
        NetError: for another average; when measured, for targets that are neither 0 and 1 nor −1 and 1, or labels out
            of range.

    Fawcett, "An introduction to ROC analysis" (2006).

    >>> import jax.numpy as jnp
    >>> roc_auc()(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])).item()
    0.75
    """

    def area(positive: jax.Array, negative: jax.Array, before: jax.Array, through: jax.Array, *_: Any) -> jax.Array:
        # For each negative example, the positive ones with a higher score, and half of those with the same
        return total(negative * (before + through) / 2).value / positive.sum() / negative.sum()

    return _ranked("roc_auc", area, average, from_logits)


def average_precision(*, average: Average | None = "macro", from_logits: bool = True) -> Metric:
    """Return the average precision Σ_k (R_k − R_{k−1}) P_k over all distinct scores, from the highest.

    P_k and R_k are precision and recall where the examples with the k highest scores are predicted. Scores are sorted,
    not binned, and nothing is interpolated.

    Args:
        average: as in `roc_auc`.
        from_logits: as in `roc_auc`.

    Returns:
        A metric of what `roc_auc` takes. It is 0 without a positive example, as in scikit-learn, and NaN if a score is
        NaN.

    Raises:
        NetError: as in `roc_auc`.

    >>> import jax.numpy as jnp
    >>> print(average_precision()(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])).round(4))
    0.8333
    """

    def precision(positive: jax.Array, negative: jax.Array, _: Any, through: jax.Array, others: jax.Array) -> jax.Array:
        each = positive * divide(through, through + others)
        found = positive.sum()
        nothing = jnp.where(negative.sum() == 0, jnp.nan, 0)
        return jnp.where(found == 0, nothing, total(each).value / jnp.where(found == 0, 1, found))

    return _ranked("average_precision", precision, average, from_logits)


def binary_or_classes(outputs: Any, targets: Any, weights: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return scores `(items, columns)`, targets and weights `(items,)`, with harmless scores where the weight is 0.

    Targets are booleans `(items, columns)` for outputs and targets of the same shape, otherwise labels `(items,)`.
    Traced targets that are neither 0 and 1 nor −1 and 1 turn scores into NaN.
    """
    scores, truth, mask = unpadded(outputs, targets)
    if scores.shape != truth.shape:
        return items(outputs, targets, weights)
    if scores.ndim == 1 or (mask is not None and scores.ndim == 2):
        scores, truth = scores[..., None], truth[..., None]
    counted = item_weights(weights, mask, scores.shape[:-1], scores.dtype)
    real = counted > 0
    scores, truth = zero_masked(real, scores), fill_masked(real, truth).astype(scores.dtype)
    check_binary(truth)
    scores = jnp.where((truth == 0) | (jnp.abs(truth) == 1), scores, jnp.nan)
    columns = scores.shape[-1]
    return scores.reshape((-1, columns)), (truth > 0).reshape((-1, columns)), counted.reshape(-1)


def _ranked(name: str, value: Callable[..., jax.Array], average: Any, from_logits: bool) -> Metric:
    """Return the metric of a function of sorted examples, averaged over labels or classes."""
    if average not in ("macro", "micro", "weighted", None):
        raise NetError(f"expects average 'macro', 'micro', 'weighted' or None, got {average!r}", label=name)

    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        with labeled_as(name):
            scores, truth, weights = binary_or_classes(outputs, targets, weights)
        if truth.ndim == 1:
            classes = scores.shape[1]
            scores = _log_odds(scores) if from_logits else scores
            truth = truth[:, None] == jnp.arange(classes, dtype=truth.dtype)[None]
            if classes == 2:
                scores, truth = scores[:, 1:], truth[:, 1:]
        return {"scores": scores, "truth": truth, "weights": weights}

    def whole(sums: Sums) -> jax.Array:
        scores, truth, weights = sums["scores"], sums["truth"], sums["weights"]
        weights = jnp.broadcast_to(weights[:, None], scores.shape)
        if average == "micro":
            scores, truth, weights = (each.reshape(-1, 1) for each in (scores, truth, weights))

        def column(scores: jax.Array, truth: jax.Array, weights: jax.Array) -> jax.Array:
            found = value(*_sorted(scores, jnp.where(truth, weights, 0), jnp.where(truth, 0, weights)))
            return jnp.where((jnp.isnan(scores) & (weights != 0)).any(), jnp.nan, found)

        each = jax.vmap(column, in_axes=1)(scores, truth, weights)
        if average == "weighted":
            positive = jnp.where(truth, weights, 0).sum(axis=0)
            return (each * positive).sum() / positive.sum()
        return each if average is None else each.mean()

    return Metric(takes_labels(measure), whole, name, collect, higher_is_better=True, range=(0.0, 1.0))


def _log_odds(logits: jax.Array) -> jax.Array:
    """Return log p / (1 − p) of the probabilities p, which orders as p does without rounding p to 1."""
    classes = logits.shape[1]
    rest = jnp.where(jnp.eye(classes, dtype=bool)[None], -jnp.inf, logits[:, None, :])  # (items, classes, classes)
    return logits - jax.nn.logsumexp(rest, axis=2)


def _sorted(scores: jax.Array, positive: jax.Array, negative: jax.Array) -> tuple[jax.Array, ...]:
    """Sort by descending score; return the weights, and sums over the examples up to those of the same score.

    Returns:
        The weights of positive and negative examples `(items,)`, and for each example the weight of positive ones that
        score higher, that score at least as high, and of negative ones that score at least as high.
    """
    scores, positive, negative = jax.lax.sort((-scores, positive, negative), num_keys=1)
    changes = scores[1:] != scores[:-1]
    end = jnp.ones((1,), bool)
    first, last = jnp.concatenate([end, changes]), jnp.concatenate([changes, end])
    found, others = jnp.cumsum(positive), jnp.cumsum(negative)
    earlier = jnp.concatenate([jnp.zeros((1,), found.dtype), found[:-1]])
    before = jax.lax.cummax(jnp.where(first, earlier, 0))
    # Sums never fall, so that the least of those to come is the one at the end of equal scores.
    through, beside = (jax.lax.cummin(jnp.where(last, sums, jnp.inf), reverse=True) for sums in (found, others))
    return positive, negative, before, through, beside
