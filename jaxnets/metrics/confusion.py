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
