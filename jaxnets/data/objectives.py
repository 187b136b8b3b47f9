"""What a language model learns to predict: the next word, or words that are hidden."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import refuse
from jaxnets.core.errors import NetError, check_count, check_fraction, concrete, known, labeled_as, shown
from jaxnets.core.net import Key
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded, check_padded


def next_tokens(tokens: Any) -> tuple[Any, Any]:
    """Return the inputs and the targets of a causal language model: all tokens but the last, and all but the first.

    The target of token t is token t + 1. In `Padded` sequences all lengths become shorter by 1. In `Packed` rows each
    document loses its last token from the inputs and its first from the targets, and documents move together, so that
    no target is another document's and every real step of the inputs has a target: documents of one token vanish.

    Args:
        tokens: integers `(batch, time)`, time ≥ 2, an array, `Padded` or `Packed`. May be traced.

    Returns:
        Inputs and targets `(batch, time - 1)`, of the type of `tokens`, both with the same lengths and segments; NumPy
        arrays for NumPy arrays. A loss of steps, `jn.losses.sequence`, leaves out padding.

    Raises:
        NetError: for tokens of another shape or that are not integers.

    >>> import numpy as np, jaxnets as jn
    >>> inputs, targets = next_tokens(np.array([[5, 6, 7, 8]]))
    >>> inputs.tolist(), targets.tolist()
    ([[5, 6, 7]], [[6, 7, 8]])
    >>> inputs, targets = next_tokens(jn.data.pack([[1, 2, 3], [7, 8]], 6))
    >>> inputs.values.tolist(), targets.values.tolist(), inputs.segments.tolist()
    ([[1, 2, 7, 0, 0]], [[2, 3, 8, 0, 0]], [[0, 0, 1, -1, -1]])
    """
    with labeled_as("next_tokens"):
        _check_tokens(tokens, 2)
    if not isinstance(tokens, Padded):
        return tokens[:, :-1], tokens[:, 1:]
    xp: Any = np if all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tokens)) else jnp
    values, lengths = xp.asarray(tokens.values), xp.asarray(tokens.lengths)
    if not isinstance(tokens, Packed):
        # In a signed dtype, as 0 - 1 is not -1 in an unsigned one.
        shorter = xp.maximum(lengths.astype(np.int32) - 1, 0)
        return Padded(values[:, :-1], shorter), Padded(values[:, 1:], shorter)
    segments, width = xp.asarray(tokens.segments), values.shape[1] - 1
    # (batch, time - 1): whether a step and the next are of one document.
    followed = (segments[:, 1:] == segments[:, :-1]) & (xp.arange(1, width + 1)[None] < lengths[:, None])
    # The steps that are followed come first, in order.
    order = xp.argsort(~followed, axis=1, stable=True)
    shorter = followed.sum(1).astype(np.int32)
    real = xp.arange(width)[None] < shorter[:, None]

    def moved(x: Any, empty: int) -> Any:
        # Padding is empty, as after `pack`.
        return xp.where(real, xp.take_along_axis(x, order, axis=1), xp.asarray(empty, x.dtype))

    numbers = moved(segments.astype(np.int32), -1)
    inputs, targets = (Packed(moved(x, 0), shorter, numbers) for x in (values[:, :-1], values[:, 1:]))
    return inputs, targets


def mask_tokens(
    key: Key,
    tokens: Any,
    *,
    rate: Any = 0.15,
    mask: int,
    vocabulary: int,
    keep: Any = 0.1,
    random: Any = 0.1,
    special: Sequence[int] = (),
) -> tuple[Any, Any, jax.Array]:
    """Hide words at random, for a network that learns to predict them: the masked language model of BERT.

    Each token is chosen with probability `rate`, independently of the others. Of the chosen ones a share `keep` stays
    as it is, a share `random` becomes a word drawn from the vocabulary, and the others become `mask`. Padding, `mask`
    itself and the special tokens are never chosen, and no special token is drawn.

    Call it in every step with a new key, so that every epoch hides other words: in the function that `jn.fit` takes as
    `batch_augment`, with the targets and weights as a pair for `jn.losses.sequence`.

    Args:
        key: a random key.
        tokens: integers `(batch, time)` in [0, vocabulary), an array, `Padded` or `Packed`. May be traced.
        rate: the probability that a token is chosen, in [0, 1]. May be traced.
        mask: the token that hides a word.
        vocabulary: the number of tokens.
        keep: the share of the chosen tokens that stays, in [0, 1]. May be traced.
        random: the share of the chosen tokens that becomes any word, in [0, 1 - keep]. May be traced.
        special: further tokens that are neither chosen nor drawn, such as those that begin and end a text.

    Returns:
        Inputs, of the type and dtype of `tokens`; targets, `tokens` themselves; and weights `(batch, time)` float32, 1
        for chosen tokens and 0 for others.

    Raises:
        NetError: for tokens of another shape or that are not integers, a rate or share outside of its range, a mask or
            special token outside of the vocabulary, or if no word is left to draw.

    Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers" (2019), section 3.1. There
    the number of chosen tokens of a text is fixed, and words are drawn from the whole vocabulary.

    >>> import jax, jax.numpy as jnp
    >>> tokens = jnp.full((1, 1000), 7)
    >>> inputs, targets, weights = mask_tokens(jax.random.key(0), tokens, mask=1, vocabulary=10, special=(0, 2))
    >>> bool((inputs[weights == 0] == 7).all()), sorted(set(inputs[0].tolist()) - {1}), 100 < weights.sum() < 200
    (True, [3, 4, 5, 6, 7, 8, 9], Array(True, dtype=bool))
    """
    with labeled_as("mask_tokens"):
        _check_tokens(tokens, 0)
        check_count("vocabulary", vocabulary)
        for name, share in {"rate": rate, "keep": keep, "random": random}.items():
            check_fraction(name, share, one=True)
        stays, becomes = concrete(keep), concrete(random)
        if stays is not None and becomes is not None and stays + becomes > 1:
            raise NetError(f"expects keep + random of at most 1, got {stays:g} + {becomes:g}")
        outside = [each for each in (mask, *special) if not 0 <= each < vocabulary]
        if outside:
            raise NetError(f"expects mask and special tokens in [0, {vocabulary}), got {outside[0]}")
        words = np.setdiff1d(np.arange(vocabulary), [mask, *special])
        if not len(words):
            raise NetError(f"expects words besides the special tokens, got a vocabulary of {vocabulary} without any")
        values = jnp.asarray(tokens.values if isinstance(tokens, Padded) else tokens)
        real = tokens.mask if isinstance(tokens, Padded) else jnp.ones(values.shape, bool)
        if known(real) is not None:
            hint = f"expects tokens in [0, {vocabulary}), got {{}}"
            refuse(jnp.where(real, values, 0), lambda t: (t < 0) | (t >= vocabulary), hint)
    is_word = jnp.zeros(vocabulary, bool).at[words].set(True)
    which, how, what = jax.random.split(key, 3)
    drawn = jax.random.uniform(which, values.shape) < jnp.asarray(rate, jnp.float32)
    chosen = drawn & real & is_word.at[values].get(mode="fill", fill_value=False, wrap_negative_indices=False)
    # From 0: a share that stays, a share of random words, and the rest is hidden.
    place, stays = jax.random.uniform(how, values.shape), jnp.asarray(keep, jnp.float32)
    any_word = jnp.asarray(words, values.dtype)[jax.random.randint(what, values.shape, 0, len(words))]
    other = jnp.where(place < stays + jnp.asarray(random, jnp.float32), any_word, jnp.asarray(mask, values.dtype))
    inputs = jnp.where(chosen & (place >= stays), other, values)
    return tokens.with_values(inputs) if isinstance(tokens, Padded) else inputs, tokens, chosen.astype(jnp.float32)


def _check_tokens(tokens: Any, least: int) -> None:
    """Check that tokens are integers `(batch, time)` of at least some steps."""
    values = tokens.values if isinstance(tokens, Padded) else tokens
    if not hasattr(values, "dtype") or not jnp.issubdtype(values.dtype, jnp.integer) or len(values.shape) != 2:
        hint = "; add a batch axis, tokens[None]" if len(getattr(values, "shape", ())) == 1 else ""
        raise NetError(f"expects tokens as integers (batch, time), got {shown(values)}{hint}")
    if isinstance(tokens, Padded):
        check_padded(tokens)
    if values.shape[1] < least:
        raise NetError(f"expects at least {least} steps, got {shown(values)}")
