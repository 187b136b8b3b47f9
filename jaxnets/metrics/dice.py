"""The Dice score of segmentations."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.losses.labels import takes_labels
from jaxnets.metrics.metric import Metric, Sums
from jaxnets.metrics.ranking import Average
from jaxnets.metrics.scores import items, unpadded
from jaxnets.ops.sums import total


def dice(
    classes: int, *, average: Average | None = "macro", background: bool = True, by_example: bool = True
) -> Metric:
    """Return the Dice score 2 |A ∩ B| / (|A| + |B|) of the true region A and the predicted region B of each class.

    A class that is neither true nor predicted has no score, and is left out of the averages; `f1`, which is the same
    otherwise, counts it as 0.

    Args:
        classes: the number of classes.
        average: "macro" for the mean over classes, "weighted" for the mean weighted by the true pixels, "micro" for the
            regions of all classes together, `None` for one value per class.
        background: whether class 0 counts.
        by_example: whether the score is computed for each example and averaged over those that have one; otherwise it
            is that of all pixels of all examples together.

    Returns:
        A metric of outputs `(batch, ..., classes)` and labels `(batch, ...)`. Weights `(batch,)` are those of examples,
        weights `(batch, ...)` those of pixels. NaN if a score is NaN.

    Raises:
        NetError: for another average, or fewer than one class that counts; when measured, for outputs with another
            number of classes.

    Dice, "Measures of the Amount of Ecologic Association Between Species" (1945).

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])  # an image of three pixels
    >>> print(dice(2, average=None)(scores, jnp.array([[0, 0, 1]])).round(4))
    [0.6667 0.6667]
    """
    with labeled_as("dice"):
        check_count("classes", classes - (not background))
    if average not in ("macro", "micro", "weighted", None):
        raise NetError(f"expects average 'macro', 'micro', 'weighted' or None, got {average!r}", label="dice")

    def score(both: jax.Array, true: jax.Array, predicted: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the score of counts `(..., classes)`, and whether there is one."""
        if average == "micro":
            both, true, predicted = (each.sum(axis=-1) for each in (both, true, predicted))
        size = true + predicted
        each, exists = 2 * both / jnp.where(size == 0, 1, size), size != 0  # NaN exists
        if average in ("micro", None):
            return each, exists
        share = jnp.where(exists, true if average == "weighted" else 1, 0).astype(each.dtype)
        whole = share.sum(axis=-1)
        mean = (share * each).sum(axis=-1) / jnp.where(whole == 0, 1, whole)
        # Predicted without any that is true has a score of 0 if it is weighted by what is true.
        return mean, exists.any(axis=-1)

    def measure(outputs: Any, targets: Any, weights: Any = None) -> Sums:
        with labeled_as("dice"):
            examples, *inner = unpadded(outputs, targets)[0].shape[:-1]
            scores, labels, counted = items(outputs, targets, weights)
            if scores.shape[1] != classes:
                raise NetError(f"expects {classes} classes, got outputs of {scores.shape[1]}")
            # (examples, pixels, classes) and (examples, pixels)
            scores, labels, counted = (
                x.reshape((examples, math.prod(inner), *x.shape[1:])) for x in (scores, labels, counted)
            )
        own = jnp.where(counted > 0, counted, 0).max(axis=1)  # the weight of each example, if pixels weigh alike
        if by_example and weights is not None and jnp.ndim(weights) == 1:
            counted = counted / jnp.where(own == 0, 1, own)[:, None]
        else:
            own = (own > 0).astype(own.dtype)
        own = jnp.where(jnp.isnan(counted).any(axis=1), jnp.nan, own)
        broken = (jnp.isnan(scores).any(axis=2) & (counted > 0)).any(axis=1)
        true, predicted = (jax.nn.one_hot(x, classes, dtype=counted.dtype) for x in (labels, scores.argmax(axis=2)))
        found = [(counted[..., None] * each).sum(axis=1) for each in (true * predicted, true, predicted)]
        found = [jnp.where(broken[:, None], jnp.nan, each)[:, not background :] for each in found]
        if not by_example:
            return [total(each) for each in found]
        values, exists = score(*found)
        share = own.reshape(own.shape + (1,) * (values.ndim - 1)) * exists.astype(own.dtype)
        return {"total": total(jnp.where(share == 0, 0, share * values)), "weight": total(share)}

    def value(sums: Sums) -> jax.Array:
        if by_example:
            return sums["total"] / sums["weight"]
        each, exists = score(*sums)
        return jnp.where(exists, each, jnp.nan)

    return Metric(takes_labels(measure), value, "dice", higher_is_better=True, range=(0.0, 1.0))
