"""Imbalanced classes: weights for their examples, and a sampler that shows each class equally often."""

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
    """Return weights that give all classes the same total weight: n / (k n_c) for class c.

    n is the number of examples, n_c the number in class c, and k the number of classes with examples; a class without
    examples gets 0. The mean weight of the examples is 1.

    Args:
        labels: integers `(examples,)` of the training part; may be traced.
        num_classes: the number of classes.
        weights: `(examples,)`, ≥ 0, how much each example counts in n and n_c; 0 for padding rows.

    Returns:
        `(num_classes,)`, float32 or wider.

    Raises:
        NetError: for labels that are not integers `(examples,)`, or out of range.

    King and Zeng, "Logistic Regression in Rare Events Data" (2001); "balanced" in scikit-learn.

    >>> print(class_weights([0, 0, 0, 1], 2).round(4))
    [0.6667 2.    ]
    """
    with labeled_as("class_weights"):
        labels = _labels(labels, num_classes)
        sizes = counts((labels,), _counted(labels, weights), (num_classes,)).value
    nonempty = sizes > 0
    return jnp.where(nonempty, sizes.sum() / (nonempty.sum().astype(sizes.dtype) * jnp.where(nonempty, sizes, 1)), 0)


def example_weights(labels: Any, class_weights: Any) -> jax.Array:
    """Return the weight of each example: the weight of its class.

    Args:
        labels: integers `(examples,)`; may be traced. A traced label out of range gives NaN.
        class_weights: `(classes,)`.

    Returns:
        `(examples,)`, for the third part of the data of `jn.train.program`, or for an objective.

    Raises:
        NetError: as in `class_weights`.

    >>> labels = jnp.array([0, 0, 0, 1])
    >>> print(example_weights(labels, class_weights(labels, 2)).round(4))
    [0.6667 0.6667 0.6667 2.    ]
    """
    with labeled_as("example_weights"):
        by_class = wide(class_weights)
        labels = _labels(labels, len(by_class))
    return by_class.at[labels].get(mode="fill", fill_value=jnp.nan)


def balanced_order(key: Key, labels: Any, size: int, num_classes: int, *, weights: Any = None) -> jax.Array:
    """Return indices of examples in random order, with class counts that differ by at most one.

    The classes that get one more are random. A class with fewer examples than its share repeats them, with counts that
    differ by at most one; of a larger class a random subset is used.

    Args:
        key: the random key.
        labels: integers `(examples,)`; may be traced.
        size: the number of indices.
        num_classes: the number of classes; those without examples get no share.
        weights: `(examples,)`; rows of weight 0 are never used, all others are treated equally.

    Returns:
        int32 `(size,)`.

    Raises:
        NetError: as in `class_weights`, and for a size < 1.

    >>> import jax, numpy as np
    >>> labels = np.array([0, 0, 0, 0, 0, 1])
    >>> order = jax.jit(balanced_order, static_argnums=(2, 3))(jax.random.key(0), labels, 6, 2)
    >>> np.bincount(order < 5).tolist()
    [3, 3]
    """
    with labeled_as("balanced_order"):
        check_count("size", size)
        labels = _labels(labels, num_classes)
        shown = (_counted(labels, weights) > 0).astype(jnp.int32)
        # (num_classes,)
        sizes = jnp.zeros(num_classes, jnp.int32).at[labels].add(shown, mode="drop")
    if weights is not None:
        # Rows of weight 0 are sorted after all classes.
        labels = jnp.where(wide(weights) > 0, labels, num_classes)
    among, between, last = jax.random.split(key, 3)
    drawn = jax.random.permutation(among, len(labels))
    # (examples,), class after class, in random order within each.
    by_class = drawn[jnp.argsort(labels[drawn])]
    first = jnp.cumsum(sizes) - sizes
    # The nonempty classes first, in random order.
    scores = jnp.where(sizes > 0, jax.random.uniform(between, sizes.shape), 2.0)
    classes = jnp.argsort(scores)
    nonempty = jnp.maximum((sizes > 0).sum(), 1)
    # Assign the slots to the classes in turn; each class cycles through its own examples.
    slot = jnp.arange(size)
    of_class = classes[slot % nonempty]
    index = by_class[first[of_class] + (slot // nonempty) % jnp.maximum(sizes[of_class], 1)]
    return jax.random.permutation(last, index).astype(jnp.int32)


@labeled
def balanced(num_classes: int) -> Callable[[Key, Any], jax.Array]:
    """Return a sampler that shows each class equally often in every epoch.

    An epoch has as many examples as the data: those of rare classes repeat, those of frequent classes alternate from
    epoch to epoch. See `balanced_order`.

    Args:
        num_classes: the number of classes, at least 1.

    Returns:
        A function `(key, data) -> indices (examples,)`, for `jn.train.program(..., sampler=balanced(10))`. The data are
        `(inputs, labels)` or `(inputs, labels, weights)`; rows of weight 0 are never used.

    Raises:
        NetError: for `num_classes` < 1; when called, as in `balanced_order`.

    >>> import jax, numpy as np
    >>> x, y = np.zeros((6, 2)), np.array([0, 0, 0, 0, 0, 1])
    >>> np.bincount(y[jax.jit(balanced(2))(jax.random.key(0), (x, y))]).tolist()
    [3, 3]
    """
    check_count("num_classes", num_classes)

    def sampler(key: Key, data: Any) -> jax.Array:
        _, labels, *weights = data
        return balanced_order(key, labels, len(labels), num_classes, weights=weights[0] if weights else None)

    return sampler


def _labels(labels: Any, num_classes: int) -> jax.Array:
    """Return labels as int32; a traced label out of range becomes `num_classes`, which is not a class."""
    labels = jnp.asarray(labels)
    check_count("num_classes", num_classes)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        hint = "; take labels.argmax(-1)" if labels.ndim == 2 else ""
        raise NetError(f"expects integer labels (examples,), got {labels.dtype} {labels.shape}{hint}")
    refuse(labels, lambda y: (y < 0) | (y >= num_classes), f"expects labels from 0 to {num_classes - 1}, got {{}}")
    labels = labels.astype(jnp.int32)
    return jnp.where((labels < 0) | (labels >= num_classes), num_classes, labels)


def _counted(labels: jax.Array, weights: Any) -> jax.Array:
    """Return how much each example counts, floating `(examples,)`."""
    counted = jnp.ones(labels.shape) if weights is None else wide(weights)
    if counted.shape != labels.shape:
        raise NetError(f"expects weights {labels.shape}, got {counted.shape}; one for each example")
    return counted
