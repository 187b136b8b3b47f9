"""Intervals of metrics, by resampling the examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.core.compiled import computed
from jaxnets.core.errors import NetError, check_count, concrete, labeled_as, shown
from jaxnets.core.net import Key, check_key
from jaxnets.losses.masking import check_weights
from jaxnets.metrics.metric import Metric

AT_ONCE = 64
"""Number of samples computed at once."""


class Interval(NamedTuple):
    """A value and the ends of its interval.

    Attributes:
        value: the metric of the data.
        low: the lower end.
        high: the upper end.
    """

    value: jax.Array
    low: jax.Array
    high: jax.Array


def bootstrap(
    metric: Metric,
    outputs: Any,
    targets: Any,
    weights: Any = None,
    *,
    key: Key,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return a metric with the interval between two percentiles of its values on resampled examples.

    Each sample draws as many examples as there are, with replacement. How often an example is drawn multiplies its
    weight, so that all samples are computed by one compiled program. Examples are drawn along the first axis, so images
    and sequences are kept whole.

    Args:
        metric: one of `jn.metrics`; it must be weighted by its weights alone, as all of them are.
        outputs: a pytree of `(examples, ...)`.
        targets: a pytree of `(examples, ...)`.
        weights: `(examples,)`, or `None`.
        key: a random key.
        samples: the number of samples.
        level: the coverage, between 0 and 1.

    Returns:
        The value, and the quantiles (1 − level) / 2 and (1 + level) / 2 of the samples' values, each of the shape of
        the value. They are NaN if the metric of a sample is, such as that of `roc_auc` without a positive example.

    Raises:
        NetError: for anything but a metric, `samples` < 1, a level outside (0, 1), or what the metric does not accept.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> scores = jax.random.normal(jax.random.key(0), (200, 2))
    >>> labels = (scores[:, 1] > scores[:, 0]).astype(int).at[:40].set(0)
    >>> value, low, high = bootstrap(jn.metrics.accuracy, scores, labels, key=jax.random.key(1))
    >>> bool(0.8 < low < value < high < 1)
    True
    """
    with labeled_as("bootstrap"):
        if not isinstance(metric, Metric):
            raise NetError(f"expects one of jn.metrics, got {shown(metric)}")
        check_key(key)
        check_count("samples", samples)
        if not 0 < (concrete(level, "level") or 0) < 1:
            raise NetError(f"expects level between 0 and 1, got {level}")
        examples = len(jax.tree.leaves(outputs)[0])
        weights = jnp.ones(examples, jnp.float32) if weights is None else check_weights(weights, (examples,))
        # Once on concrete arrays, so that wrong targets are found before they are traced.
        value = metric(outputs, targets, weights)
    return Interval(value, *computed(_ends, [metric, samples, float(level)], key, outputs, targets, weights))


def _ends(metric: Metric, samples: int, level: float, key: Key, outputs: Any, targets: Any, weights: Any) -> Any:
    examples = len(weights)

    def sample(key: Key) -> jax.Array:
        drawn = jax.random.randint(key, (examples,), 0, examples)
        times = jnp.zeros(examples, weights.dtype).at[drawn].add(1)
        return metric(outputs, targets, weights * times)

    values = jax.lax.map(sample, jax.random.split(key, samples), batch_size=min(AT_ONCE, samples))
    low, high = jnp.quantile(values, jnp.array([(1 - level) / 2, (1 + level) / 2], values.dtype), axis=0)
    return low, high
