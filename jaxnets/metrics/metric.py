"""The record `Metric`, and the means of losses."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import name_of
from jaxnets.core.errors import labeled_as
from jaxnets.losses.labels import labels_of, takes_labels, takes_targets, targets_check_of
from jaxnets.losses.masking import check_by_example, masked_rows
from jaxnets.ops.sums import Sum, add, as_sum, rounded, total

Sums = Any  # a pytree of arrays, or of `Sum`s


@dataclass(frozen=True, eq=False, repr=False)
class Metric:
    """A measure over examples, in three pure functions, so that data may come in parts.

    `value(merge(measure(part 1), measure(part 2)))` is the value over both parts. Zeros in place of the sums
    are the neutral element of `merge`, so a `lax.scan` can start from them. Called directly, a metric gives the
    value over the data at hand: `accuracy(outputs, targets, weights=None)`.

    A metric made without `merge` adds its sums, and loses nothing: each array of numbers that `measure` returns is
    kept as a pair (`jaxnets.ops.sums.Sum`), exact for counts up to 10¹², and `value` is handed each pair as one
    floating array again.

    What has weight 0 counts for nothing, NaN in it neither. Weights are `(batch,)`, and for metrics that look
    at single steps or pixels also `(batch, ...)`, of the shape of the labels. There, outputs and targets may
    be `Padded`. The value over no data at all, or where all weights are 0, is NaN; and so it is where a traced
    weight is negative, while a known one is refused. Of the dict that `jn.auxiliary_heads` gives, metrics of
    logits look at the main output, its `logits`.

    Attributes:
        measure: `(outputs, targets, weights=None) -> sums`.
        value: `sums -> value`.
        name: what it is reported under.
        merge: `(sums, sums) -> sums`.
        higher_is_better: what early stopping, checkpoints and sweeps go by; `None` if the value does not tell, and
            then they ask for `mode=`.
        range: the least and the largest value it can have; figures draw no band beyond.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> accuracy = jn.metrics.accuracy
    >>> logits, labels = jnp.array([[2.0, 1.0], [0.0, 3.0], [1.0, 4.0], [5.0, 0.0]]), jnp.array([0, 1, 1, 1])
    >>> first, rest = accuracy.measure(logits[:1], labels[:1]), accuracy.measure(logits[1:], labels[1:])
    >>> accuracy.value(accuracy.merge(first, rest)).item(), accuracy(logits, labels).item()
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

            @functools.wraps(measure)
            def exactly(*data: Any, **named: Any) -> Sums:
                return _each(as_sum, measure(*data, **named))

            object.__setattr__(self, "measure", exactly)
            object.__setattr__(self, "value", lambda sums: value(_each(rounded, sums)))

    def __call__(self, outputs: Any, targets: Any, weights: Any = None) -> jax.Array:
        """Return the value over the data at hand."""
        return self.value(self.measure(outputs, targets, weights))

    def __repr__(self) -> str:
        return self.name


def sums(values: jax.Array, weights: jax.Array | None) -> Sums:
    """Return what a mean is made of, from values and weights of one shape."""
    weights = jnp.ones_like(values) if weights is None else weights.astype(values.dtype)
    return {"weight": total(weights), "total": total(values, weights)}


def ratio(sums: Sums) -> jax.Array:
    """Return a mean from its sums."""
    return sums["total"] / sums["weight"]


def _each(function: Callable[[Any], Any], sums: Sums) -> Sums:
    return jax.tree.map(function, sums, is_leaf=lambda leaf: isinstance(leaf, Sum))


def mean(loss: Callable[[Any, Any], jax.Array], *, higher_is_better: bool | None = False) -> Metric:
    """Make a metric of a loss: the weighted mean of its values, Σ w l / Σ w.

    Args:
        loss: `(outputs, targets) -> (batch,)`, one of `jn.losses` as a rule.
        higher_is_better: as in `Metric`; of a loss less is better.

    Returns:
        A metric of the loss's name, with weights `(batch,)`.

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


def divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a / b, 0 where b is 0."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))
