"""Metrics of probabilities: whether they are as often right as they say."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, check_count, known, labeled_as
from jaxnets.losses.labels import takes_labels
from jaxnets.metrics.metric import Metric, Sums, ratio, sums
from jaxnets.metrics.ranking import binary_or_classes
from jaxnets.ops.sums import counts


def brier(*, from_logits: bool = True) -> Metric:
    """Return the Brier score: the mean squared error of the probabilities, Σ_k (p_k − [y = k])².

    For outputs and targets of the same shape, and for two classes, it is the mean of (p − y)², half of that sum.

    Args:
        from_logits: whether outputs are logits; otherwise they are probabilities.

    Returns:
        A metric of what `roc_auc` takes; NaN if a score is NaN.

    Raises:
        NetError: when measured, for targets that are neither 0 and 1 nor −1 and 1, labels out of range, or numbers
            outside 0 … 1 for probabilities; traced ones give NaN.

    Brier, "Verification of forecasts expressed in terms of probability" (1950).

    >>> import jax.numpy as jnp
    >>> print(brier(from_logits=False)(jnp.array([0.25, 0.75]), jnp.array([0, 1])))
    0.0625
    """

    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        with labeled_as("brier"):
            probabilities, truth, weights = _probabilities(outputs, targets, weights, from_logits)
        columns = probabilities.shape[1]
        if truth.ndim == 2:
            return sums(jnp.square(probabilities - truth.astype(probabilities.dtype)).mean(axis=1), weights)
        error = jnp.square(probabilities - jax.nn.one_hot(truth, columns, dtype=probabilities.dtype)).sum(axis=1)
        return sums(error / 2 if columns == 2 else error, weights)

    return Metric(takes_labels(measure), ratio, "brier", higher_is_better=False, range=(0.0, 2.0))


def expected_calibration_error(bins: int = 15, *, from_logits: bool = True) -> Metric:
    """Return the expected calibration error Σ_b n_b / n |accuracy_b − confidence_b| over bins of equal width.

    The confidence is the probability of the most probable class, and how often that class is true is compared with the
    mean confidence in each bin ((b − 1) / bins, b / bins]. For outputs and targets of the same shape it is the
    probability of 1, compared with how often the target is 1.

    Args:
        bins: the number of bins.
        from_logits: whether outputs are logits; otherwise they are probabilities.

    Returns:
        A metric of what `roc_auc` takes; NaN if a score is NaN. Its sums are those of the bins.

    Raises:
        NetError: for `bins` < 1; when measured, as in `brier`.

    Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 5.

    >>> import jax.numpy as jnp
    >>> metric = expected_calibration_error(10, from_logits=False)
    >>> print(metric(jnp.array([[0.75, 0.25], [0.25, 0.75]]), jnp.array([0, 0])))
    0.25
    """
    with labeled_as("expected_calibration_error"):
        check_count("bins", bins)

    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        with labeled_as("expected_calibration_error"):
            probabilities, truth, weights = _probabilities(outputs, targets, weights, from_logits)
        if truth.ndim == 2:
            weights = jnp.broadcast_to(weights[:, None], probabilities.shape).reshape(-1)
            confidence, right = probabilities.reshape(-1), truth.reshape(-1)
        else:
            confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1).astype(truth.dtype) == truth
        place = (bin_of(confidence, bins),)
        weighed = {"weight": weights, "confidence": weights * confidence, "right": jnp.where(right, weights, 0)}
        return {name: counts(place, each, (bins,)) for name, each in weighed.items()}

    def value(sums: Sums) -> jax.Array:
        return jnp.abs(sums["right"] - sums["confidence"]).sum() / sums["weight"].sum()

    name = "expected_calibration_error"
    return Metric(takes_labels(measure), value, name, higher_is_better=False, range=(0.0, 1.0))


def bin_of(confidence: jax.Array, bins: int) -> jax.Array:
    """Return which of the bins ((b − 1) / bins, b / bins] a confidence is in, counted from 0; 0 is in the first."""
    edges = jnp.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1]
    return jnp.searchsorted(edges, confidence, side="left")


def _probabilities(
    outputs: Any, targets: Any, weights: Any, from_logits: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what `binary_or_classes` does, with probabilities for scores."""
    scores, truth, weights = binary_or_classes(outputs, targets, weights)
    if from_logits:
        scores = jax.nn.sigmoid(scores) if truth.ndim == 2 else jax.nn.softmax(scores, axis=1)
        return scores, truth, weights
    wrong = (scores < -1e-5) | (scores > 1 + 1e-5)  # a softmax may round to just above 1
    if (found := known(wrong)) is not None and found.any():
        got = np.asarray(scores)[found][0]
        raise NetError(f"expects probabilities from 0 to 1, got {got:g}; leave out from_logits=False for logits")
    return jnp.where(wrong, jnp.nan, scores), truth, weights
