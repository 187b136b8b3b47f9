"""Metrics of real numbers."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets import losses
from jaxnets.core.errors import labeled_as
from jaxnets.losses.checks import same_shape
from jaxnets.losses.masking import masked_rows
from jaxnets.metrics.metric import Metric, Sums, divide, mean
from jaxnets.ops.sums import as_sum, total

mean_squared_error: Metric = mean(losses.squared_error)
"""The mean of (t − o)², for outputs and targets of the same shape `(batch, ...)` and weights `(batch,)`."""

mean_absolute_error: Metric = mean(losses.absolute_error)
"""The mean of |t − o|, for outputs and targets of the same shape `(batch, ...)` and weights `(batch,)`."""


def _r2_sums(outputs: Any, targets: Any, weights: Any = None) -> Sums:
    with labeled_as("r2"):
        outputs, targets, weights = masked_rows(outputs, targets, weights)
        outputs, targets = same_shape(outputs, targets)
    weights = jnp.ones(len(outputs), outputs.dtype) if weights is None else weights.astype(outputs.dtype)
    weight = total(weights)
    # Targets are centered twice, by a rounded mean (the pivot) and by the remaining mean, to avoid cancellation.
    pivot = divide(total(targets, weights).value, weight.value)
    centered = targets - pivot[None]
    mean = divide(total(centered, weights).value, weight.value)
    return {
        "weight": weight,
        "pivot": pivot,
        "mean": as_sum(mean),  # of targets minus the pivot
        "spread": total(jnp.square(centered - mean[None]), weights),
        "error": total(jnp.square(targets - outputs), weights),
    }


def _r2_merge(a: Sums, b: Sums) -> Sums:
    weight = a["weight"] + b["weight"]
    # The difference of the two means.
    apart = (b["pivot"] - a["pivot"]) + (b["mean"].value - a["mean"].value)
    share = divide(b["weight"].value, weight.value)
    # An empty part has pivot 0: take the pivot and the mean of the other part.
    empty = a["weight"].high == 0
    moved = a["mean"] + as_sum(apart * share)
    return {
        "weight": weight,
        "pivot": jnp.where(empty, b["pivot"], a["pivot"]),
        "mean": jax.tree.map(lambda first, other: jnp.where(empty, first, other), b["mean"], moved),
        "spread": a["spread"] + b["spread"] + as_sum(jnp.square(apart) * a["weight"].value * share),
        "error": a["error"] + b["error"],
    }


def _r2_value(sums: Sums) -> jax.Array:
    spread, error = sums["spread"].value, sums["error"].value
    # Targets that do not vary.
    flat = jnp.where(error > 0, 0.0, 1.0).astype(spread.dtype)
    each = jnp.where(spread > 0, 1 - error / jnp.where(spread > 0, spread, 1), flat).mean()
    return jnp.where(sums["weight"].high > 0, each, jnp.nan)


r2: Metric = Metric(_r2_sums, _r2_value, "r2", _r2_merge, higher_is_better=True, range=(-math.inf, 1.0))
"""The coefficient of determination R² = 1 − Σ w (t − o)² / Σ w (t − t̄)², for outputs and targets of the same shape.

For several outputs `(batch, ...)` it is the mean of their R². If the targets do not vary it is 1 if all outputs are
exact and 0 otherwise, as in scikit-learn. The sum of squares about the mean is computed and merged relative to a pivot
near the mean, to avoid cancellation if the mean is large: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise
Algorithm for Computing Sample Variances" (1979).
"""
