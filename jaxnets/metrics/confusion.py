"""Metrics of the confusion matrix, the counts of true and predicted classes."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.losses.labels import takes_labels
from jaxnets.metrics.metric import Metric, Sums, divide
from jaxnets.metrics.scores import items
from jaxnets.ops.sums import counts

Average = Literal["macro", "micro", "weighted"]


def _counts(classes: int, name: str) -> Callable[..., Sums]:
    """Return a `measure` that counts true classes (rows) against predicted ones; an extra last column counts NaN."""
    with labeled_as(name):
        check_count("classes", classes)

    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        with labeled_as(name):
            scores, labels, weights = items(outputs, targets, weights)
            if scores.shape[1] != classes:
                raise NetError(f"expects {classes} classes, got outputs of {scores.shape[1]}")
        predicted = jnp.where(jnp.isnan(scores).any(axis=1), classes, scores.argmax(axis=1))
        return counts((labels, predicted), weights, (classes, classes + 1))

    return takes_labels(measure)


def confusion_matrix(classes: int) -> Metric:
    """Return a metric that counts, for each true class (row), how often each class was predicted (column).

    Scores with a NaN predict no class: they are in no column.

    Args:
        classes: the number of classes, at least 1.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels. Its value is `(classes, classes)`, floating because of
        weights. Counts are exact up to 10¹², and rounded once, to the 24 bits of a float32.

    Raises:
        NetError: for `classes` < 1; when measured, if the outputs have another number of classes.

    >>> import jax.numpy as jnp
    >>> print(confusion_matrix(2)(jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 1, 1])))
    [[1. 0.]
     [1. 1.]]
    """
    return Metric(_counts(classes, "confusion_matrix"), lambda counts: counts[:, :-1], "confusion_matrix")


def precision(classes: int, *, average: Average | None = "macro") -> Metric:
    """Return the metric TP / (TP + FP): the fraction of predictions of a class that are correct.

    0 / 0 counts as 0, as in scikit-learn, so a class that is never predicted lowers the average.

    Args:
        classes: the number of classes.
        average: "macro" for the mean over classes, "weighted" for the mean weighted by how often each is true, "micro"
            for all predictions together, `None` for one value per class, `(classes,)`.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels. Scores with a NaN predict no class.

    Raises:
        NetError: for another average; when measured, if the outputs have another number of classes.

    >>> import jax.numpy as jnp
    >>> scores, labels = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 1, 1])
    >>> precision(2)(scores, labels).item(), precision(2, average=None)(scores, labels).tolist()
    (0.75, [0.5, 1.0])
    """
    return _rates("precision", classes, average, lambda right, true, predicted: divide(right, predicted))


def recall(classes: int, *, average: Average | None = "macro") -> Metric:
    """Return the metric TP / (TP + FN): the fraction of examples of a class that are found.

    Args:
        classes: the number of classes.
        average: as in `precision`.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels. Scores with a NaN predict no class.

    Raises:
        NetError: as in `precision`.

    >>> import jax.numpy as jnp
    >>> recall(2)(jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 1, 1])).item()
    0.75
    """
    return _rates("recall", classes, average, lambda right, true, predicted: divide(right, true))


def f1(classes: int, *, average: Average | None = "macro") -> Metric:
    """Return the metric F₁ = 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall.

    Args:
        classes: the number of classes.
        average: as in `precision`.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels.

    Raises:
        NetError: as in `precision`.

    >>> import jax.numpy as jnp
    >>> print(f1(2)(jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 1, 1])).round(4))
    0.6667
    """
    return _rates("f1", classes, average, lambda right, true, predicted: divide(2 * right, true + predicted))


def intersection_over_union(classes: int, *, average: Average | None = "macro") -> Metric:
    """Return the metric TP / (TP + FP + FN), the Jaccard index: intersection over union of true and predicted.

    With "macro" it is the mean IoU of segmentation. A class that is neither true nor predicted counts as 0, as in
    scikit-learn; use `average=None` to leave it out.

    Args:
        classes: the number of classes.
        average: as in `precision`.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels.

    Raises:
        NetError: as in `precision`.

    Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation" (2015), section 5.

    >>> import jax.numpy as jnp
    >>> scores, labels = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 1, 1])
    >>> intersection_over_union(2)(scores, labels).item()
    0.5
    """
    return _rates(
        "intersection_over_union",
        classes,
        average,
        lambda right, true, predicted: divide(right, true + predicted - right),
    )


def matthews(classes: int) -> Metric:
    """Return Matthews' correlation coefficient of true and predicted classes, in [−1, 1].

    With the confusion matrix C, n = Σ C, and the numbers t_k and p_k of items of true and of predicted class k, it is
    (n Σ C_kk − Σ t_k p_k) / √((n² − Σ t_k²) (n² − Σ p_k²)), for two classes
    (TP TN − FP FN) / √((TP + FP) (TP + FN) (TN + FP) (TN + FN)). It is 0 if only one class is true or predicted, as in
    scikit-learn.

    Args:
        classes: the number of classes.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels; NaN if a score is NaN.

    Raises:
        NetError: for `classes` < 1; when measured, if the outputs have another number of classes.

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (2004).

    >>> import jax.numpy as jnp
    >>> print(matthews(2)(jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 1, 1])))
    0.5
    """

    def value(counts: jax.Array) -> jax.Array:
        share = _shares(counts)
        true, predicted, right = share.sum(axis=1), share.sum(axis=0), jnp.diagonal(share)
        # Sums of the other classes, since differences from 1 would cancel if one class is rare.
        wrong = share * _others(classes, share.dtype)
        missed, false = wrong.sum(axis=1), wrong.sum(axis=0)
        neither = _others(classes, share.dtype) @ share
        neither = (neither * _others(classes, share.dtype)).sum(axis=1)
        covariance = (right * neither - missed * false).sum()
        spread = [(each * (_others(classes, share.dtype) @ each)).sum() for each in (true, predicted)]
        return divide(covariance, jnp.sqrt(spread[0]) * jnp.sqrt(spread[1]))

    return Metric(_counts(classes, "matthews"), value, "matthews", higher_is_better=True, range=(-1.0, 1.0))


def cohen_kappa(classes: int, *, distance: Literal["linear", "quadratic"] | None = None) -> Metric:
    """Return Cohen's κ = 1 − Σ d_ij C_ij / Σ d_ij E_ij: agreement beyond that of chance.

    C is the confusion matrix, E_ij = t_i p_j / n what is expected of independent classes, and d_ij how much it matters
    that class j is predicted for i.

    Args:
        classes: the number of classes.
        distance: `None` for d_ij = 1 if i ≠ j, "linear" for |i − j|, "quadratic" for (i − j)² of ordered classes.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels. NaN if a score is NaN, or if there is only one class in
        both.

    Raises:
        NetError: for another distance or `classes` < 1; when measured, if the outputs have another number of classes.

    Cohen, "Weighted kappa" (1968).

    >>> import jax.numpy as jnp
    >>> labels = jnp.array([0, 0, 1, 1])
    >>> print(cohen_kappa(2)(jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), labels))
    0.5
    """
    if distance not in (None, "linear", "quadratic"):
        raise NetError(f"expects distance 'linear', 'quadratic' or None, got {distance!r}", label="cohen_kappa")

    def value(counts: jax.Array) -> jax.Array:
        share = _shares(counts)
        place = jnp.arange(classes, dtype=share.dtype)
        apart = jnp.abs(place[:, None] - place[None])
        matters = {None: jnp.minimum(apart, 1), "linear": apart, "quadratic": jnp.square(apart)}[distance]
        chance = share.sum(axis=1)[:, None] * share.sum(axis=0)[None]
        return 1 - (matters * share).sum() / (matters * chance).sum()

    return Metric(_counts(classes, "cohen_kappa"), value, "cohen_kappa", higher_is_better=True, range=(-1.0, 1.0))


def _shares(counts: jax.Array) -> jax.Array:
    """Return the confusion matrix as fractions of all items, NaN if there is none or one has no predicted class."""
    return jnp.where(counts[:, -1].sum() > 0, jnp.nan, counts[:, :-1]) / counts.sum()


def _others(classes: int, dtype: Any) -> jax.Array:
    """Return a matrix of ones with zeros on the diagonal."""
    return 1 - jnp.eye(classes, dtype=dtype)


def _rates(name: str, classes: int, average: Any, rate: Callable[..., jax.Array]) -> Metric:
    """Return the metric of a rate, a function of the counts `(right, true, predicted)`, averaged over classes."""
    if average not in ("macro", "micro", "weighted", None):
        raise NetError(f"expects average 'macro', 'micro', 'weighted' or None, got {average!r}", label=name)

    def value(counts: jax.Array) -> jax.Array:
        # (classes,) each
        right, true, predicted = jnp.diagonal(counts), counts.sum(axis=1), counts[:, :-1].sum(axis=0)
        if average == "micro":
            return rate(right.sum(), true.sum(), predicted.sum())
        each = rate(right, true, predicted)
        if average == "weighted":
            return divide((each * true).sum(), true.sum())
        return each if average is None else each.mean()

    return Metric(_counts(classes, name), value, name, higher_is_better=True, range=(0.0, 1.0))
