"""Distributions of the next token: which tokens may be drawn, and how much those seen before count."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, check_count, check_fraction, check_positive


def check_filters(top_k: int | None, top_p: Any, min_p: Any, repetition_penalty: Any) -> None:
    """Check the options that `sample` passes to `filtered`.

    Raises:
        NetError: for an option out of range.
    """
    if top_k is not None:
        check_count("top_k", top_k)
    for name, value in (("top_p", top_p), ("min_p", min_p)):
        if value is not None:
            check_fraction(name, value, one=True)
    if repetition_penalty is not None:
        check_positive("repetition_penalty", repetition_penalty)


def filtered(logits: jax.Array, top_k: int | None, top_p: Any, min_p: Any) -> jax.Array:
    """Return logits `(batch, vocabulary)` with -∞ for tokens that may not be drawn; the most probable always may.

    Args:
        logits: after division by the temperature.
        top_k: the number of most probable tokens that may be drawn.
        top_p: only the fewest most probable tokens whose probabilities add up to p, or more, among those left.
        min_p: only tokens of at least p times the largest probability.

    Raises:
        NetError: for `top_k` > vocabulary.
    """
    if top_k is not None:
        if top_k > logits.shape[-1]:
            raise NetError(f"expects top_k ≤ {logits.shape[-1]}, the vocabulary, got {top_k}")
        # Mask all but the k largest with −∞.
        values, places = jax.lax.top_k(logits, top_k)
        logits = jnp.put_along_axis(jnp.full_like(logits, -jnp.inf), places, values, axis=-1, inplace=False)
    if top_p is not None:
        order = jnp.argsort(-logits, axis=-1)
        probabilities = jax.nn.softmax(jnp.take_along_axis(logits, order, -1), -1)
        # A token counts as long as those before it have not reached p; the first always does.
        before = jnp.cumsum(probabilities, -1) - probabilities
        kept = (before < jnp.asarray(top_p, logits.dtype)) | (jnp.arange(logits.shape[-1]) == 0)[None]
        kept = jnp.put_along_axis(jnp.zeros_like(kept), order, kept, axis=-1, inplace=False)
        logits = jnp.where(kept, logits, -jnp.inf)
    if min_p is not None:
        least = logits.max(-1, keepdims=True) + jnp.log(jnp.asarray(min_p, logits.dtype))
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    return logits


def penalized(logits: jax.Array, seen: jax.Array, penalty: Any) -> jax.Array:
    """Return logits, those of `seen` tokens `(batch, vocabulary)` divided by θ if positive, multiplied if negative."""
    penalty = jnp.asarray(penalty, logits.dtype)
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)
