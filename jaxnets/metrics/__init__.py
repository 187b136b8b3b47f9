"""Metrics, exact over data that come in batches of any size."""

from jaxnets.metrics.bootstrap import Interval, bootstrap
from jaxnets.metrics.calibration import brier, expected_calibration_error
from jaxnets.metrics.confusion import (
    cohen_kappa,
    confusion_matrix,
    f1,
    intersection_over_union,
    matthews,
    precision,
    recall,
)
from jaxnets.metrics.detection import AveragePrecision, mean_average_precision
from jaxnets.metrics.dice import dice
from jaxnets.metrics.metric import Metric, ignoring, mean
from jaxnets.metrics.ranking import average_precision, roc_auc
from jaxnets.metrics.regression import mean_absolute_error, mean_squared_error, r2
from jaxnets.metrics.scores import accuracy, binary_accuracy, perplexity, top_k

__all__ = [
    "AveragePrecision",
    "Interval",
    "Metric",
    "accuracy",
    "average_precision",
    "binary_accuracy",
    "bootstrap",
    "brier",
    "cohen_kappa",
    "confusion_matrix",
    "dice",
    "expected_calibration_error",
    "f1",
    "ignoring",
    "intersection_over_union",
    "matthews",
    "mean",
    "mean_absolute_error",
    "mean_average_precision",
    "mean_squared_error",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "top_k",
]
