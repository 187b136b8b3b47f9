"""A loss with a weight for every element rather than for every example."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.core.checks import name_of
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.losses.checks import array
from jaxnets.losses.masking import blanked, check_weights, stood_in, weighted_mean
from jaxnets.losses.sequences import Loss


def weighted(loss: Loss, reduction: Literal["mean", "weighted mean", "sum", "none"] = "mean") -> Loss:
    """Weigh the single elements of a loss that averages over them: w_e l_e for pixels, steps or features e.

    With "mean" an example's loss is Σ_e w_e l_e / E, E being the number of elements, as with the weights of PyTorch's
    `BCELoss` and Keras's `sample_weight` of the outputs' shape; with "weighted mean" it is Σ_e w_e l_e / Σ_e w_e, and
    0 where all its weights are 0; "sum" divides by nothing. "none" gives every w_e l_e, for sums of your own: an
    objective takes one value an example. What has weight 0 never matters, in value or gradient.

    In a training run the weights travel with the targets, as the pair `(targets, weights)`.

    Args:
        loss: `(outputs, targets) -> (batch,)`, one of `jn.losses` or your own, which treats every element alike.
        reduction: as above.

    Returns:
        A loss `(outputs, targets, weights=None) -> (batch,)`, or of the weights' shape with "none", reported under the
        name of `loss`. `weights` `(batch, ...)` have the first axes of outputs and targets: all of them for regression
        and binary losses, all but the classes for losses of classes; ≥ 0. Without them `targets` is a pair.

    Raises:
        NetError: for another reduction; when called, for weights that are negative or do not have the first axes of
            outputs and targets.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> outputs, targets = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.zeros((2, 2))
    >>> weights = jnp.array([[1.0, 0.0], [0.5, 2.0]])
    >>> print(weighted(jn.losses.squared_error)(outputs, targets, weights))
    [ 0.5  18.25]
    >>> print(weighted(jn.losses.squared_error, "none")(outputs, (targets, weights)))
    [[ 1.   0. ]
     [ 4.5 32. ]]
    """
    name = name_of(loss)
    label = f"weighted({name})"
    if reduction not in ("mean", "weighted mean", "sum", "none"):
        raise NetError(f"expects reduction 'mean', 'weighted mean', 'sum' or 'none', got {reduction!r}", label=label)

    def weighted_loss(outputs: Any, targets: Any, weights: Any = None) -> jax.Array:
        with labeled_as(label):
            if weights is None:
                if not isinstance(targets, tuple | list) or len(targets) != 2:
                    raise NetError(f"expects targets as a pair (targets, weights), got {type(targets).__name__}")
                targets, weights = targets
            outputs, targets, shape = jnp.asarray(outputs), array(targets), jnp.shape(weights)
            if not shape or any(x.shape[: len(shape)] != shape for x in (outputs, targets)):
                raise NetError(
                    f"expects outputs, targets and weights (batch, ...) with the same first axes, got {outputs.shape}, "
                    f"{targets.shape} and {shape}"
                )
            weights = check_weights(weights, shape)
            outputs, targets = blanked(weights > 0, outputs), stood_in(weights > 0, targets)
        values = loss(*(x.reshape((weights.size, *x.shape[len(shape) :])) for x in (outputs, targets)))
        if jnp.shape(values) != (weights.size,):
            raise NetError(f"expects a loss with one value for each of {weights.size} elements", label=label)
        values, weights = (x.reshape(len(weights), -1).astype(values.dtype) for x in (values, weights))
        if reduction == "weighted mean":
            return weighted_mean(values, weights, axis=1)
        values = jnp.where(weights == 0, 0, weights * values)
        if reduction == "none":
            return values.reshape(shape)
        return values.mean(axis=1) if reduction == "mean" else values.sum(axis=1)

    weighted_loss.__name__ = name
    return weighted_loss
