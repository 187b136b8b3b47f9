"""Classes of unequal size: weights for their examples, and an order that shows each class equally often."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import refuse
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key
from jaxnets.ops.sums import counts


def class_weights(labels: Any, num_classes: int, *, weights: Any = None) -> jax.Array:
    """Return the weight of each class that makes all classes count alike: n / (k n_c).

    n is the number of examples, n_c that in class c, and k the number of classes that have any; a class without
    examples gets 0. The mean weight of the examples is 1.

    Args:
        labels: integers `(examples,)` of the training part; may be traced.
        num_classes: the length of what is returned.
        weights: `(examples,)`, ≥ 0, how often each example counts in n and n_c; 0 for rows that fill up.

    Returns:
        `(num_classes,)`, float32 or wider.

    Raises:
        NetError: for labels that are no integers `(examples,)`, or out of range.

    King and Zeng, "Logistic Regression in Rare Events Data" (2001); "balanced" in scikit-learn.

    >>> print(class_weights([0, 0, 0, 1], 2).round(4))
    [0.6667 2.    ]
    """
    with labeled_as("class_weights"):
        labels = _labels(labels, num_classes)
        sizes = counts((labels,), _counted(labels, weights), (num_classes,)).value
    there = sizes > 0
    return jnp.where(there, sizes.sum() / (there.sum().astype(sizes.dtype) * jnp.where(there, sizes, 1)), 0)


def example_weights(labels: Any, class_weights: Any) -> jax.Array:
    """Return the weight of each example, that of its class.

    Args:
        labels: integers `(examples,)`; may be traced, and then one out of range gives NaN.
        class_weights: `(classes,)`.

    Returns:
        `(examples,)`, as the third part of the data of `jn.train.program`, or for an objective.

    Raises:
        NetError: as `class_weights`.

    >>> labels = jnp.array([0, 0, 0, 1])
    >>> print(example_weights(labels, class_weights(labels, 2)).round(4))
    [0.6667 0.6667 0.6667 2.    ]
    """
    with labeled_as("example_weights"):
        by_class = wide(class_weights)
        labels = _labels(labels, len(by_class))
    return by_class.at[labels].get(mode="fill", fill_value=jnp.nan)


def balanced_order(key: Key, labels: Any, size: int, num_classes: int, *, weights: Any = None) -> jax.Array:
    """Return indices of examples in random order, of each class as many as of any other, give or take one.

    Which classes get the one more is drawn. A class with fewer examples than its share shows each of them as often
    as any other, give or take one; of a larger class, those left out are drawn.

    Args:
        key: the order's randomness.
        labels: integers `(examples,)`; may be traced.
        size: how many indices are wanted.
        num_classes: how many classes there may be; those without examples get no share.
        weights: `(examples,)`; rows of weight 0 are never shown. All others are treated alike.

    Returns:
        int32 `(size,)`.

    Raises:
        NetError: as `class_weights`, and for a size < 1.

    >>> import jax
    >>> order = balanced_order(jax.random.key(0), jnp.array([0, 0, 0, 0, 0, 1]), 6, 2)
    >>> jnp.bincount(order < 5).tolist()
    [3, 3]
    """
    with labeled_as("balanced_order"):
        check_count("size", size)
        labels = _labels(labels, num_classes)
        shown = (_counted(labels, weights) > 0).astype(jnp.int32)
        sizes = jnp.zeros(num_classes, jnp.int32).at[labels].add(shown, mode="drop")
    if weights is not None:
        labels = jnp.where(wide(weights) > 0, labels, num_classes)  # behind all classes
    among, between, last = jax.random.split(key, 3)
    drawn = jax.random.permutation(among, len(labels))
    by_class = drawn[jnp.argsort(labels[drawn])]  # class after class, in random order within each
    first = jnp.cumsum(sizes) - sizes
    scores = jnp.where(sizes > 0, jax.random.uniform(between, sizes.shape), 2.0)
    classes = jnp.argsort(scores)  # those that have examples in front, in random order
    there = jnp.maximum((sizes > 0).sum(), 1)
    slot = jnp.arange(size)
    of_class = classes[slot % there]
    index = by_class[first[of_class] + (slot // there) % jnp.maximum(sizes[of_class], 1)]
    return jax.random.permutation(last, index).astype(jnp.int32)


@labeled
def balanced(num_classes: int) -> Callable[[Key, Any], jax.Array]:
    """Return the function that orders an epoch so that each class is seen equally often.

    An epoch has as many examples as the data: rare ones come several times, frequent ones by turns, each epoch
    others. See `balanced_order`.

    Args:
        num_classes: how many classes there may be, at least 1.

    Returns:
        `(key, data) -> (examples,)`, indices for `jn.train.program(..., sampler=balanced(10))`. The data are
        `(inputs, labels)` or `(inputs, labels, weights)`; what has weight 0 is never shown.

    Raises:
        NetError: for `num_classes` < 1; when called, as `balanced_order`.

    >>> import jax
    >>> x, y = jnp.zeros((6, 2)), jnp.array([0, 0, 0, 0, 0, 1])
    >>> jnp.bincount(y[balanced(2)(jax.random.key(0), (x, y))]).tolist()
    [3, 3]
    """
    check_count("num_classes", num_classes)

    def order_fn(key: Key, data: Any) -> jax.Array:
        _, labels, *weights = data
        return balanced_order(key, labels, len(labels), num_classes, weights=weights[0] if weights else None)

    return order_fn


def _labels(labels: Any, num_classes: int) -> jax.Array:
    """Return labels as int32; a traced one out of range as `num_classes`, which is no class."""
    labels = jnp.asarray(labels)
    check_count("num_classes", num_classes)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        hint = "; take labels.argmax(-1)" if labels.ndim == 2 else ""
        raise NetError(f"expects integer labels (examples,), got {labels.dtype} {labels.shape}{hint}")
    refuse(labels, lambda y: (y < 0) | (y >= num_classes), f"expects labels from 0 to {num_classes - 1}, got {{}}")
    labels = labels.astype(jnp.int32)
    return jnp.where((labels < 0) | (labels >= num_classes), num_classes, labels)


def _counted(labels: jax.Array, weights: Any) -> jax.Array:
    """Return how often each example counts, floating `(examples,)`."""
    counted = jnp.ones(labels.shape) if weights is None else wide(weights)
    if counted.shape != labels.shape:
        raise NetError(f"expects weights {labels.shape}, got {counted.shape}; one for each example")
    return counted
