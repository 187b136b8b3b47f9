"""Metrics, exact over data that come in batches of any size."""

from jaxnets.metrics.confusion import confusion_matrix, f1, intersection_over_union, precision, recall
from jaxnets.metrics.metric import Metric, ignoring, mean
from jaxnets.metrics.regression import mean_absolute_error, mean_squared_error, r2
from jaxnets.metrics.scores import accuracy, binary_accuracy, perplexity, top_k

__all__ = [
    "Metric",
    "accuracy",
    "binary_accuracy",
    "confusion_matrix",
    "f1",
    "ignoring",
    "intersection_over_union",
    "mean",
    "mean_absolute_error",
    "mean_squared_error",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "top_k",
]
