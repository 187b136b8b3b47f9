"""Weights of examples and of steps: values of weight 0 have no effect, not even NaN."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import refuse
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, known
from jaxnets.core.padded import Padded, check_padded


def check_weights(weights: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return weights of a given shape as floats. A traced negative weight becomes NaN, and so does any mean with it.

    Raises:
        NetError: if they have another shape, or a known one is negative.
    """
    weights = jnp.asarray(weights)
    if weights.shape != shape:
        raise NetError(f"expects weights {shape}, got {weights.shape}; give one for each value, 0 to mask it")
    refuse(weights, lambda w: w < 0, "expects weights ≥ 0, got {}")
    # Traced weights can't be checked; NaN shows the mistake in the result.
    weights = wide(weights)
    return jnp.where(weights < 0, jnp.nan, weights) if known(weights) is None else weights


def check_by_example(name: str, values: Any, outputs: Any) -> None:
    """Check that values are `(batch,)`, with the batch axis of the outputs.

    Raises:
        NetError: if they are not.
    """
    batch = np.shape(jax.tree.leaves(outputs)[0])[:1]
    if np.shape(values) != batch:
        raise NetError(
            f"expects {name} to return one value per example, {batch}, got {np.shape(values)}; "
            f"average over the other axes, not over the batch"
        )


def zero_masked(mask: jax.Array, x: Any) -> jax.Array:
    """Return `x` `(*mask.shape, ...)` with zeros where the mask is false, which block gradients and NaN."""
    x = jnp.asarray(x)
    return jnp.where(_spread(mask, x), x, jnp.zeros((), x.dtype))


def fill_masked(mask: jax.Array, x: Any) -> jax.Array:
    """Return `x` with entries where the mask is false replaced by the first entry where it is true.

    Targets need this, since they must remain valid: 0 is not a valid target of a hinge loss.
    """
    x = jnp.asarray(x)
    flat = x.reshape((mask.size, *x.shape[mask.ndim :]))  # (mask.size, ...)
    if not mask.size:
        return x
    # Zeros where the mask is false everywhere.
    first = zero_masked(mask.any(), jax.lax.stop_gradient(flat[jnp.argmax(mask)]))
    return jnp.where(_spread(mask, x), x, jnp.broadcast_to(first.reshape((1,) * mask.ndim + first.shape), x.shape))


def masked_rows(outputs: Any, targets: Any, weights: Any) -> tuple[Any, Any, jax.Array | None]:
    """Return outputs and targets, pytrees of `(batch, ...)`, with harmless rows where the weight is 0, and the weights.

    Raises:
        NetError: if weights are not `(batch,)` or not ≥ 0, or a leaf has another batch axis.
    """
    if weights is None:
        _check_batch("outputs", np.shape(jax.tree.leaves(outputs)[0])[:1], outputs=outputs, targets=targets)
        return outputs, targets, None
    weights = jnp.asarray(weights)
    weights = check_weights(weights, (len(weights),) if weights.ndim else np.shape(jax.tree.leaves(outputs)[0])[:1])
    real = weights > 0
    _check_batch("weights", real.shape, outputs=outputs, targets=targets)

    def harmless(x: Any) -> jax.Array:
        # Integers, such as lengths, must remain valid, which zeros might not be.
        return zero_masked(real, x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else fill_masked(real, x)

    return jax.tree.map(harmless, outputs), jax.tree.map(lambda x: fill_masked(real, x), targets), weights


def weighted_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Return Σ w v of values `(*weights.shape, ...)` over the axes of the weights; 0 · NaN counts as 0."""
    spread = _spread(weights.astype(values.dtype), values)
    return jnp.where(spread == 0, 0, spread * values).sum(axis=tuple(range(weights.ndim)))


def weighted_mean(values: jax.Array, weights: jax.Array, axis: int = 0) -> jax.Array:
    """Return Σ w v / Σ w along an axis of two arrays of the same shape; 0 where all weights are 0."""
    weights = weights.astype(values.dtype)
    total = weights.sum(axis=axis)
    return jnp.where(weights == 0, 0, weights * values).sum(axis=axis) / jnp.where(total == 0, 1, total)


def real_steps(outputs: Any, targets: Any) -> jax.Array | None:
    """Return which steps are real in both outputs and targets, `(batch, time)`, or `None` if neither is `Padded`.

    Raises:
        NetError: if they differ in batch, time or known lengths, or a known length is outside 0 … time.
    """
    sequences = [x for x in (outputs, targets) if isinstance(x, Padded)]
    for x in sequences:
        check_padded(x)
        time = np.shape(x.values)[1]
        refuse(x.lengths, lambda n, time=time: (n < 0) | (n > time), f"expects lengths from 0 to {time}, got {{}}")
    if len(sequences) < 2:
        return sequences[0].mask if sequences else None
    first, second = (np.shape(x.values)[:2] for x in sequences)
    if first != second:
        raise NetError(f"expects outputs and targets of the same batch and time, got {first} and {second}")
    # Lengths of both, if they are known.
    lengths, others = (known(x.lengths) for x in sequences)
    if lengths is not None and others is not None and (lengths != others).any():
        raise NetError(f"expects outputs and targets of the same lengths, got {lengths} and {others}")
    return sequences[0].mask & sequences[1].mask


def _check_batch(of: str, batch: tuple[int, ...], **trees: Any) -> None:
    """Check that all leaves start with `batch`, the batch axis of `of`."""
    for name, tree in trees.items():
        for leaf in jax.tree.leaves(tree):
            if np.shape(leaf)[:1] != batch:
                raise NetError(f"expects {name} with the batch axis of the {of}, {batch}, got {np.shape(leaf)}")


def _spread(mask: jax.Array, x: jax.Array) -> jax.Array:
    """Return a mask or weights with trailing axes of length 1, up to the rank of `x`."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
