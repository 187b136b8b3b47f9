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
from jaxnets.metrics.generated import PrecisionRecall, frechet_distance, manifold_precision_recall
from jaxnets.metrics.metric import Metric, ignoring, mean
from jaxnets.metrics.pictures import peak_signal_to_noise, structural_similarity
from jaxnets.metrics.ranking import average_precision, roc_auc
from jaxnets.metrics.regression import mean_absolute_error, mean_squared_error, r2
from jaxnets.metrics.scores import accuracy, binary_accuracy, bits_per_character, perplexity, top_k
from jaxnets.metrics.squad import Squad, squad
from jaxnets.metrics.text import Rouge, bleu, chrf, exact_match, rouge_l, rouge_n
from jaxnets.metrics.transcripts import character_error_rate, word_error_rate

__all__ = [
    "AveragePrecision",
    "Interval",
    "Metric",
    "PrecisionRecall",
    "Rouge",
    "Squad",
    "accuracy",
    "average_precision",
    "binary_accuracy",
    "bits_per_character",
    "bleu",
    "bootstrap",
    "brier",
    "character_error_rate",
    "chrf",
    "cohen_kappa",
    "confusion_matrix",
    "dice",
    "exact_match",
    "expected_calibration_error",
    "f1",
    "frechet_distance",
    "ignoring",
    "intersection_over_union",
    "manifold_precision_recall",
    "matthews",
    "mean",
    "mean_absolute_error",
    "mean_average_precision",
    "mean_squared_error",
    "peak_signal_to_noise",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "rouge_l",
    "rouge_n",
    "squad",
    "structural_similarity",
    "top_k",
    "word_error_rate",
]
