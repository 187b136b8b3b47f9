"""A loss that leaves out places without a label."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import name_of
from jaxnets.core.errors import NetError, shown
from jaxnets.losses.labels import but, labels_of, takes_labels
from jaxnets.losses.sequences import Loss, sequence


def ignoring(loss: Loss, label: int) -> Loss:
    """Leave out the places that bear a label which stands for none, such as the 255 of a segmentation's borders.

    An example's loss is the mean over its other places, and 0 if there are none: Σ_p m_p l_p / Σ_p m_p, m_p being 1
    where the target is not `label`. What stands in the outputs at the places left out never matters, in value or
    gradient. (PyTorch's `ignore_index` takes the mean over the places of the whole batch instead.)

    Args:
        loss: `(outputs, targets) -> (batch,)` with integer labels, such as `cross_entropy`.
        label: the integer that stands for no label.

    Returns:
        A loss of outputs `(batch, ..., classes)` and integer labels `(batch, ...)` with at least one axis of places,
        reported under the name of `loss`.

    Raises:
        NetError: when called, for labels without an axis of places, or not of integers.

    >>> import jax.numpy as jnp, jaxnets as jn
    >>> logits, labels = jnp.zeros((1, 2, 2, 4)), jnp.array([[[0, 3], [255, 255]]])
    >>> print(ignoring(jn.losses.cross_entropy, 255)(logits, labels).round(4))
    [1.3863]
    """
    if not callable(loss):
        raise NetError(f"expects a loss first, then a label, got {shown(loss)}", label="ignoring")
    name = name_of(loss)
    over_places = sequence(loss)

    def labeled_loss(outputs: Any, targets: Any) -> jax.Array:
        outputs, targets = jnp.asarray(outputs), jnp.asarray(targets)
        if targets.ndim < 2 or outputs.shape[:-1] != targets.shape or not jnp.issubdtype(targets.dtype, jnp.integer):
            hint = "; of one label an example those left out get weight 0, data=(x, y, y != label)"
            hint = hint if targets.ndim == 1 else ""
            raise NetError(
                f"expects outputs (batch, places, ..., classes) and integer labels (batch, places, ...), got "
                f"{outputs.shape} and {targets.dtype} {targets.shape}{hint}",
                label=f"ignoring({name}, {label})",
            )
        rows = targets.reshape(len(targets), -1)
        flat = outputs.reshape(*rows.shape, outputs.shape[-1])
        return over_places(flat, rows, (rows != label).astype(jnp.float32))

    labeled_loss.__name__ = name
    return takes_labels(labeled_loss, but(labels_of(loss), label))
