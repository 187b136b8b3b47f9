"""The record `Metric`, the mean of a loss as a metric, and metrics that ignore a label."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import name_of
from jaxnets.core.errors import labeled_as
from jaxnets.losses.labels import ignore_label, labels_of, takes_labels, takes_targets, targets_check_of
from jaxnets.losses.masking import check_by_example, check_weights, masked_rows
from jaxnets.ops.sums import Sum, add, as_sum, rounded, total

Sums = Any  # a pytree of arrays, or of `Sum`s


def collect(a: Any, b: Any) -> Any:
    """Merge the sums of a metric that needs all examples at once, such as `roc_auc`: `(items, ...)`, one after another.

    A loop of fixed shapes can't carry such sums. `jn.evaluate` and `jn.fit` stack those of all batches instead.
    """
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)


@dataclass(frozen=True, eq=False, repr=False)
class Metric:
    """A metric of examples in three pure functions, so that data may come in parts.

    `value(merge(measure(part 1), measure(part 2)))` is the value over both parts. Sums of zeros are the neutral element
    of `merge`, so a `lax.scan` can start from them. Called directly, a metric returns the value over the given data:
    `accuracy(outputs, targets, weights=None)`.

    The sums of some metrics, such as `roc_auc`, are the examples themselves, merged by concatenation. They take the
    memory of all outputs, and can't be the carry of a `lax.scan`; `jn.evaluate` and `jn.fit` stack them.

    A metric without a custom `merge` adds its sums exactly: each array that `measure` returns is stored as a pair
    (`jaxnets.ops.sums.Sum`), exact for counts up to 10¹², and `value` gets each pair as a single floating array.

    Data of weight 0 have no effect, even if they are NaN. Weights are `(batch,)`; metrics of single steps or pixels
    also take `(batch, ...)` of the shape of the labels, and `Padded` outputs and targets. The value is NaN for no data,
    if all weights are 0, and if a traced weight is negative; a known negative weight raises an error. Given the dict
    that `jn.auxiliary_heads` returns, metrics of logits use the main output, its `logits`.

    Attributes:
        measure: `(outputs, targets, weights=None) -> sums`.
        value: `sums -> value`.
        name: the name under which it is reported.
        merge: `(sums, sums) -> sums`.
        higher_is_better: how early stopping, checkpoints and sweeps compare values; with `None` they require `mode=`.
        range: the smallest and the largest possible value; bands in figures are clipped to it.

    >>> import jax, jaxnets as jn, numpy as np
    >>> accuracy, measure = jn.metrics.accuracy, jax.jit(jn.metrics.accuracy.measure)
    >>> logits, labels = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 4.0], [5.0, 0.0]]), np.array([0, 1, 1, 1])
    >>> first, rest = measure(logits[:2], labels[:2]), measure(logits[2:], labels[2:])
    >>> accuracy.value(accuracy.merge(first, rest)).item(), jax.jit(accuracy)(logits, labels).item()
    (0.75, 0.75)
    """

    measure: Callable[..., Sums]
    value: Callable[[Sums], jax.Array]
    name: str
    merge: Callable[[Sums, Sums], Sums] = add
    higher_is_better: bool | None = None
    range: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if self.merge is add:
            measure, value = self.measure, self.value

            # Sums are passed as exact pairs; the given functions use plain arrays.
            @functools.wraps(measure)
            def exactly(*data: Any, **named: Any) -> Sums:
                return _map_sums(as_sum, measure(*data, **named))

            object.__setattr__(self, "measure", exactly)
            object.__setattr__(self, "value", lambda sums: value(_map_sums(rounded, sums)))

    def __call__(self, outputs: Any, targets: Any, weights: Any = None) -> jax.Array:
        """Return the value over the given data."""
        return self.value(self.measure(outputs, targets, weights))

    def __repr__(self) -> str:
        return self.name


def sums(values: jax.Array, weights: jax.Array | None) -> Sums:
    """Return the sums of a weighted mean, from values and weights of the same shape."""
    weights = jnp.ones_like(values) if weights is None else weights.astype(values.dtype)
    return {"weight": total(weights), "total": total(values, weights)}


def ratio(sums: Sums) -> jax.Array:
    """Return a mean from its sums."""
    return sums["total"] / sums["weight"]


def _map_sums(function: Callable[[Any], Any], sums: Sums) -> Sums:
    return jax.tree.map(function, sums, is_leaf=lambda leaf: isinstance(leaf, Sum))


def mean(loss: Callable[[Any, Any], jax.Array], *, higher_is_better: bool | None = False) -> Metric:
    """Make a metric from a loss: the weighted mean of its values, Σ w l / Σ w.

    Args:
        loss: `(outputs, targets) -> (batch,)`, such as one of `jn.losses`.
        higher_is_better: as in `Metric`; `False` suits a loss.

    Returns:
        A metric with the loss's name and weights `(batch,)`.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> mean(jn.losses.huber), mean(jn.losses.huber)(jnp.array([3.0, 0.0]), jnp.zeros(2)).item()
    (huber, 1.25)
    """
    name = name_of(loss)

    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        with labeled_as(name):
            outputs, targets, weights = masked_rows(outputs, targets, weights)
        values = loss(outputs, targets)
        with labeled_as("mean"):
            check_by_example(name, values, outputs)
            values = values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.float32)
        return sums(values, weights)

    if (check := targets_check_of(loss)) is not None:
        takes_targets(check)(measure)
    return Metric(takes_labels(measure, labels_of(loss)), ratio, name, higher_is_better=higher_is_better)


def ignoring(metric: Metric, label: int) -> Metric:
    """Ignore positions with a label that means "no label", such as 255 at the borders of a segmentation.

    Args:
        metric: a metric of classes: `accuracy`, `intersection_over_union(21)`, ….
        label: the integer that means "no label".

    Returns:
        The metric of outputs `(batch, ..., classes)` and integer labels `(batch, ...)`, under the same name.

    Raises:
        NetError: when measured, as in `metric`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> scores, labels = jnp.array([[[1.0, 0.0], [0.0, 1.0]]]), jnp.array([[0, 255]])
    >>> jax.jit(ignoring(jn.metrics.accuracy, 255))(scores, labels).item()
    1.0
    """

    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        targets = jnp.asarray(targets)
        # Positions without a label get weight 0.
        real = (targets != label).astype(jnp.float32)
        if weights is not None:
            weights = jnp.asarray(weights)
            weights = check_weights(weights, targets.shape[: weights.ndim]).astype(jnp.float32)
            real = real * weights.reshape(weights.shape + (1,) * (real.ndim - weights.ndim))
        return metric.measure(outputs, targets, real)

    return replace(metric, measure=takes_labels(measure, ignore_label(labels_of(metric.measure), label)))


def divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a / b, 0 where b is 0."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))
