"""Connectionist temporal classification: the loss of sequences whose alignment with their labels is unknown."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.checks import refuse
from jaxnets.core.errors import NetError
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded
from jaxnets.losses.checks import at_least_zero, floating, named
from jaxnets.losses.labels import Labels, takes_labels
from jaxnets.losses.masking import fill_masked, real_steps, zero_masked


@partial(takes_labels, labels=Labels(first=1))
@named
def ctc(outputs: Any, targets: Any) -> jax.Array:
    """Return the CTC loss, −log of the total probability of all paths that yield the labels.

    A path chooses a class or the blank, class 0, at every step. Merging repeats and then dropping blanks yields the
    labels. Labels longer than the outputs (a repeated label needs a blank in between) have no path: their loss is about
    1e30, where PyTorch returns ∞; leave them out by a weight of 0. The loss is not divided by the number of labels.

    Args:
        outputs: logits `(batch, time, classes)`, an array or `Padded`.
        targets: labels `(batch, labels)` from 1 to classes − 1, an integer array or `Padded`.

    Returns:
        `(batch,)`, float32 or wider, ≥ 0. It is the logarithm of a sum of probabilities in that dtype, so losses below
        about 10⁻⁶ have no correct digit. Padding is ignored, even if it is NaN.

    Raises:
        NetError: for other ranks or batches, labels that are not integers, or known labels out of range.

    Graves and others, "Connectionist Temporal Classification" (2006), section 4.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, numpy as np
    >>> logits = jn.Padded(jnp.zeros((2, 4, 3)), jnp.array([4, 1]))
    >>> labels = jn.Padded(jnp.array([[1, 2], [1, 0]]), jnp.array([2, 1]))
    >>> print((np.exp(-jax.jit(ctc)(logits, labels)) * np.array([81.0, 3.0])).round(1))  # 15 of 3⁴ paths, and 1 of 3
    [15.  1.]
    """
    if any(isinstance(x, Packed) for x in (outputs, targets)):
        raise NetError("takes no Packed documents: a path runs along a row; pad them")
    # Where steps and labels are real, (batch, time) and (batch, labels); `None` where nothing is padded.
    real, real_labels = real_steps(outputs, None), real_steps(targets, None)
    logits = floating(outputs.values if isinstance(outputs, Padded) else outputs)
    labels = jnp.asarray(targets.values if isinstance(targets, Padded) else targets)
    if logits.ndim != 3 or logits.shape[2] < 2 or labels.ndim != 2 or labels.shape[0] != logits.shape[0]:
        raise NetError(
            f"expects logits (batch, time, classes) and labels (batch, labels), got {logits.shape} and {labels.shape}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise NetError(f"expects integer labels, got {labels.dtype}; convert them, targets.astype(jnp.int32)")
    real = jnp.ones(logits.shape[:2], bool) if real is None else real
    real_labels = jnp.ones(labels.shape, bool) if real_labels is None else real_labels
    # Padding must not reach the loss, not even NaN or an invalid label.
    logits, labels = zero_masked(real, logits), fill_masked(real_labels, labels.astype(jnp.int32))
    classes = logits.shape[2]
    refuse(
        jnp.where(real_labels, labels, 1),
        lambda y: (y < 1) | (y >= classes),
        f"expects labels from 1 to {classes - 1} (0 is the blank), got {{}}",
    )
    # Optax marks padding by 1.
    paddings = (1 - real.astype(logits.dtype), 1 - real_labels.astype(logits.dtype))
    # Optax promotes dtypes and ranks, and gathers by a matrix product, which a GPU would round.
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
    ):
        values = optax.losses.ctc_loss(logits, paddings[0], labels, paddings[1], log_epsilon=-1e30)
    return at_least_zero(values)
