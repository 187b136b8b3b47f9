"""Metrics that leave out places without a label."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from jaxnets.losses.labels import but, labels_of, takes_labels
from jaxnets.losses.masking import check_weights
from jaxnets.metrics.metric import Metric, Sums


def ignoring(metric: Metric, label: int) -> Metric:
    """Leave out the places that bear a label which stands for none, such as the 255 of a segmentation's borders.

    Args:
        metric: a metric of classes: `accuracy`, `intersection_over_union(21)`, ….
        label: the integer that stands for no label.

    Returns:
        The metric of outputs `(batch, ..., classes)` and integer labels `(batch, ...)`, under the same name.

    Raises:
        NetError: when measured, as `metric`.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> scores, labels = jnp.array([[[1.0, 0.0], [0.0, 1.0]]]), jnp.array([[0, 255]])
    >>> ignoring(jn.metrics.accuracy, 255)(scores, labels).item()
    1.0
    """

    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        targets = jnp.asarray(targets)
        real = (targets != label).astype(jnp.float32)
        if weights is not None:
            weights = jnp.asarray(weights)
            weights = check_weights(weights, targets.shape[: weights.ndim]).astype(jnp.float32)
            real = real * weights.reshape(weights.shape + (1,) * (real.ndim - weights.ndim))
        return metric.measure(outputs, targets, real)

    return replace(metric, measure=takes_labels(measure, but(labels_of(metric.measure), label)))
