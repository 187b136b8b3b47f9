"""Wrappers of losses: over sequences, without some labels, with element weights, and with auxiliary heads.

Each wrapper takes a loss `(outputs, targets) -> (batch,)`, of `jn.losses` or custom, and keeps its name.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import name_of
from jaxnets.core.errors import NetError, check_positive, labeled_as, shown
from jaxnets.core.padded import Padded
from jaxnets.losses.checks import array, option
from jaxnets.losses.labels import ignore_label, labels_of, takes_labels
from jaxnets.losses.masking import check_weights, fill_masked, real_steps, weighted_mean, weighted_sum, zero_masked

Loss = Callable[..., jax.Array]


def sequence(loss: Loss, reduction: Literal["mean", "sum"] = "mean") -> Loss:
    """Convert a loss of steps to a loss of sequences: Σ_t w_t l_t / Σ_t w_t for each sequence.

    Padding has weight 0, and has no effect on value or gradient, even if it is NaN. A sequence without real steps has
    loss 0. Averaged over a batch, the mean gives each sequence the same weight, long or short; with `reduction="sum"`
    each step has the same weight.

    Args:
        loss: `(outputs, targets) -> (batch,)` of single steps, one of `jn.losses` or a custom one.
        reduction: "mean" or "sum" over the real steps.

    Returns:
        A loss `(outputs, targets, weights=None) -> (batch,)`, reported under the name of `loss`. Outputs and targets
        `(batch, time, ...)` are arrays or `Padded`, of the same lengths if both are. `weights` `(batch, time)` weight
        single steps. In a training run they are passed with the targets, as the pair `(targets, weights)`.

    Raises:
        NetError: for another reduction; when called, if outputs and targets differ in batch, time or lengths.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> logits = jn.Padded(jnp.zeros((2, 3, 4)), jnp.array([3, 1]))
    >>> print(jax.jit(sequence(jn.losses.cross_entropy))(logits, jnp.zeros((2, 3), int)).round(4))
    [1.3863 1.3863]
    """
    name = name_of(loss)
    label = f"sequence({name})"
    if reduction not in ("mean", "sum"):
        raise NetError(f"expects reduction 'mean' or 'sum', got {reduction!r}", label="sequence")

    def sequence_loss(outputs: Any, targets: Any, weights: Any = None) -> jax.Array:
        with labeled_as(label):
            if weights is None and isinstance(targets, tuple) and len(targets) == 2:
                targets, weights = targets
            mask = real_steps(outputs, targets)
            outputs, targets = (jnp.asarray(x.values if isinstance(x, Padded) else x) for x in (outputs, targets))
            steps = outputs.shape[:2]  # (batch, time)
            if len(steps) < 2 or targets.shape[:2] != steps:
                raise NetError(
                    f"expects outputs and targets (batch, time, ...) of the same batch and time, "
                    f"got {outputs.shape} and {targets.shape}"
                )
            weights = jnp.ones(steps, jnp.float32) if weights is None else check_weights(weights, steps)
            weights = weights if mask is None else jnp.where(mask, weights, 0)
            outputs, targets = zero_masked(weights > 0, outputs), fill_masked(weights > 0, targets)
        # The loss gets steps as examples: (batch, time, ...) -> (batch · time, ...).
        values = loss(*(x.reshape((steps[0] * steps[1], *x.shape[2:])) for x in (outputs, targets)))
        if np.shape(values) != (steps[0] * steps[1],):
            raise NetError(
                f"expects a loss with one value per step, got {np.shape(values)} for {steps[0] * steps[1]} steps",
                label=label,
            )
        values = values.reshape(steps)
        if reduction == "mean":
            return weighted_mean(values, weights, axis=1)
        return jax.vmap(weighted_sum)(values, weights)

    sequence_loss.__name__ = name
    return takes_labels(sequence_loss, labels_of(loss))


def ignoring(loss: Loss, label: int) -> Loss:
    """Ignore positions with a label that means "no label", such as 255 at the borders of a segmentation.

    An example's loss is the mean over its other positions, and 0 if there are none: Σ_p m_p l_p / Σ_p m_p, with m_p = 1
    where the target is not `label`. Outputs at ignored positions have no effect on value or gradient. (PyTorch's
    `ignore_index` averages over the positions of the whole batch instead.)

    Args:
        loss: `(outputs, targets) -> (batch,)` with integer labels, such as `cross_entropy`.
        label: the integer that means "no label".

    Returns:
        A loss of outputs `(batch, ..., classes)` and integer labels `(batch, ...)` with at least one axis of positions,
        reported under the name of `loss`.

    Raises:
        NetError: when called, for labels without an axis of positions, or that are not integers.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> logits, labels = jnp.zeros((1, 2, 2, 4)), jnp.array([[[0, 3], [255, 255]]])
    >>> print(jax.jit(ignoring(jn.losses.cross_entropy, 255))(logits, labels).round(4))
    [1.3863]
    """
    if not callable(loss):
        raise NetError(f"expects a loss first, then a label, got {shown(loss)}", label="ignoring")
    name = name_of(loss)
    over_positions = sequence(loss)

    def labeled_loss(outputs: Any, targets: Any) -> jax.Array:
        outputs, targets = jnp.asarray(outputs), jnp.asarray(targets)
        if targets.ndim < 2 or outputs.shape[:-1] != targets.shape or not jnp.issubdtype(targets.dtype, jnp.integer):
            hint = "; to leave out whole examples give them weight 0, data=(x, y, y != label)"
            hint = hint if targets.ndim == 1 else ""
            raise NetError(
                f"expects outputs (batch, positions, ..., classes) and integer labels (batch, positions, ...), got "
                f"{outputs.shape} and {targets.dtype} {targets.shape}{hint}",
                label=f"ignoring({name}, {label})",
            )
        rows = targets.reshape(len(targets), -1)  # (batch, positions)
        flat = outputs.reshape(*rows.shape, outputs.shape[-1])  # (batch, positions, classes)
        return over_positions(flat, rows, (rows != label).astype(jnp.float32))

    labeled_loss.__name__ = name
    return takes_labels(labeled_loss, ignore_label(labels_of(loss), label))


def weighted(loss: Loss, reduction: Literal["mean", "weighted mean", "sum", "none"] = "mean") -> Loss:
    """Weight single elements of a loss that averages over them: w_e l_e for pixels, steps or features e.

    With "mean" an example's loss is Σ_e w_e l_e / E, where E is the number of elements, as with the weights of
    PyTorch's `BCELoss` and a Keras `sample_weight` of the outputs' shape. With "weighted mean" it is Σ_e w_e l_e / Σ_e
    w_e, and 0 where all weights are 0. "sum" does not divide. "none" returns every w_e l_e, for custom reductions: an
    objective needs one value per example. Elements of weight 0 have no effect on value or gradient.

    In a training run the weights are passed with the targets, as the pair `(targets, weights)`.

    Args:
        loss: `(outputs, targets) -> (batch,)`, one of `jn.losses` or a custom one, which treats all elements equally.
        reduction: as above.

    Returns:
        A loss `(outputs, targets, weights=None) -> (batch,)`, or of the weights' shape with "none", reported under the
        name of `loss`. `weights` `(batch, ...)`, ≥ 0, have the first axes of outputs and targets: all of them for
        regression and binary losses, all but the classes for losses of classes. Without `weights`, `targets` is a pair.

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
            outputs, targets, shape = jnp.asarray(outputs), array(targets), np.shape(weights)
            if not shape or any(x.shape[: len(shape)] != shape for x in (outputs, targets)):
                raise NetError(
                    f"expects outputs, targets and weights (batch, ...) with the same first axes, got {outputs.shape}, "
                    f"{targets.shape} and {shape}"
                )
            weights = check_weights(weights, shape)
            outputs, targets = zero_masked(weights > 0, outputs), fill_masked(weights > 0, targets)
        # The loss gets elements as examples: (*weights.shape, ...) -> (elements, ...).
        values = loss(*(x.reshape((weights.size, *x.shape[len(shape) :])) for x in (outputs, targets)))
        if np.shape(values) != (weights.size,):
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


def auxiliary_loss(loss: Loss, /, **weights: Any) -> Loss:
    """Sum a loss over the outputs of `jn.auxiliary_heads`: l(logits) + Σ_k w_k l(head k).

    In evaluation the output is only the logits, and the loss is only theirs. So the reported training loss is the whole
    sum, but the validation loss is that of the main output.

    Args:
        loss: `(outputs, targets) -> (batch,)`, of one output.
        **weights: w_k ≥ 0 for each head by name; may be traced. With 0 a head is computed but not trained.

    Returns:
        A loss `(outputs, targets) -> (batch,)`, reported under the name of `loss`. Outputs are a dict with `logits`
        and all heads, or whatever `loss` takes. All outputs have the same targets.

    Raises:
        NetError: for a negative weight, or without weights; when called, for a dict with other heads.

    Szegedy and others, "Going Deeper with Convolutions" (2015), section 5, with w = 0.3.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> loss = auxiliary_loss(jn.losses.cross_entropy, aux1=0.3, aux2=0.3)
    >>> logits, labels = jnp.zeros((2, 4)), jnp.array([0, 3])
    >>> print(loss(logits, labels).round(2), loss({"logits": logits, "aux1": logits, "aux2": logits}, labels).round(2))
    [1.39 1.39] [2.22 2.22]
    """
    name = name_of(loss)
    label = f"auxiliary_loss({name})"
    with labeled_as(label):
        if not weights:
            raise NetError("expects a weight for each head, aux1=0.3")
        for head, weight in weights.items():
            check_positive(f"the weight of {head}", weight, zero=True)

    def heads_loss(outputs: Any, targets: Any) -> jax.Array:
        if not isinstance(outputs, Mapping):
            return loss(outputs, targets)
        if set(outputs) != {"logits", *weights}:
            wanted, came = ", ".join(["logits", *weights]), ", ".join(map(str, outputs)) or "none"
            raise NetError(f"expects the outputs {wanted}, got {came}; give each head its weight", label=label)
        total = loss(outputs["logits"], targets)
        for head, weight in weights.items():
            total = jnp.add(total, option(weight, total) * loss(outputs[head], targets))
        return total

    heads_loss.__name__ = name
    return takes_labels(heads_loss, labels_of(loss))
