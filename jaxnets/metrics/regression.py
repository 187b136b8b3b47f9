"""Metrics of real numbers."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets import losses
from jaxnets.errors import labelled_as
from jaxnets.losses.checks import same_shape
from jaxnets.losses.masking import masked_rows, weighted_sum
from jaxnets.metrics.metric import Metric, Sums, divide, mean

mean_squared_error: Metric = mean(losses.squared_error)
"""The mean of (t − o)², for outputs and targets of one shape `(batch, ...)` and weights `(batch,)`."""

mean_absolute_error: Metric = mean(losses.absolute_error)
"""The mean of |t − o|, for outputs and targets of one shape `(batch, ...)` and weights `(batch,)`."""


def _r2_sums(outputs: Any, targets: Any, weights: Any = None) -> Sums:
    with labelled_as("r2"):
        outputs, targets, weights = masked_rows(outputs, targets, weights)
        outputs, targets = same_shape(outputs, targets)
    weights = jnp.ones(len(outputs), outputs.dtype) if weights is None else weights.astype(outputs.dtype)
    weight = weights.sum()
    pivot = divide(weighted_sum(targets, weights), weight)
    away = targets - pivot[None]
    mean = divide(weighted_sum(away, weights), weight)
    return {
        "weight": weight,
        "pivot": pivot,
        "mean": mean,
        "spread": weighted_sum(jnp.square(away - mean[None]), weights),
        "error": weighted_sum(jnp.square(targets - outputs), weights),
    }


def _r2_merge(a: Sums, b: Sums) -> Sums:
    weight = a["weight"] + b["weight"]
    apart = (b["pivot"] - a["pivot"]) + (b["mean"] - a["mean"])
    share = divide(b["weight"], weight)
    empty = a["weight"] == 0
    return {
        "weight": weight,
        "pivot": jnp.where(empty, b["pivot"], a["pivot"]),
        "mean": jnp.where(empty, b["mean"], a["mean"] + apart * share),
        "spread": a["spread"] + b["spread"] + jnp.square(apart) * a["weight"] * share,
        "error": a["error"] + b["error"],
    }


def _r2_value(sums: Sums) -> jax.Array:
    spread, error = sums["spread"], sums["error"]
    flat = jnp.where(error > 0, 0.0, 1.0).astype(spread.dtype)
    each = jnp.where(spread > 0, 1 - error / jnp.where(spread > 0, spread, 1), flat).mean()
    return jnp.where(sums["weight"] > 0, each, jnp.nan)


r2: Metric = Metric(_r2_sums, _r2_value, "r2", _r2_merge, range=(-math.inf, 1.0))
"""The coefficient of determination R² = 1 − Σ w (t − o)² / Σ w (t − t̄)², for outputs and targets of one shape.

Of several outputs `(batch, ...)` the mean of each one's R². Where the targets do not vary it is 1 if all outputs are
exact and 0 otherwise, as in scikit-learn. The spread about the mean is computed and merged about a pivot near the
mean, after Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979),
so that nothing cancels where the mean is large.
"""
