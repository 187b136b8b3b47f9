"""Beam search: decoding of an encoder–decoder with several hypotheses at a time."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.cache import batch_of, take_rows
from jaxnets.core.compiled import computed
from jaxnets.core.errors import check_count, check_positive, labeled_as
from jaxnets.core.net import Net, Params, State
from jaxnets.decoding.greedy import Decoded, encode, log_step
from jaxnets.decoding.reading import begun


def beam_search(
    net: Net,
    params: Params,
    state: State,
    source: Any,
    *,
    beam: int,
    max_length: int,
    start: int,
    end: int,
    length_penalty: Any = 0.0,
) -> Decoded:
    """Decode targets by keeping, at each step, the `beam` most probable of all one-token extensions.

    A hypothesis that reaches the end token is complete; it keeps its place in the beam, so fewer are extended. The
    search ends when all are complete, or at `max_length`. Then all hypotheses, including truncated ones, are ranked by
    log p / n^α over their n tokens, including the end token. A beam of 1 is `greedy`; a beam as large as the number of
    possible targets finds the most probable one. The loop is one compiled `while_loop`.

    Args:
        net: as for `greedy`.
        params: the network's parameters.
        state: the network's state.
        source: a batch of sources, in the form that the network takes.
        beam: the number of hypotheses, at least 1.
        max_length: the largest number of tokens, including the end token.
        start: the token that the decoder reads first.
        end: the token that ends a target.
        length_penalty: α ≥ 0. 0 favors short targets, 1 ranks by the mean log-probability of a token. May be traced.

    Raises:
        NetError: as in `greedy`, and for `beam` < 1 or α < 0.

    Sutskever, Vinyals and Le, "Sequence to Sequence Learning with Neural Networks" (2014), section 3.2; Wu et al.,
    "Google's Neural Machine Translation System" (2016), section 7, for dividing by a power of the length.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, source = jn.models.encoder_decoder(9, 7, 8, cell=jn.gru_cell), jnp.ones((2, 4), int)
    >>> params, state = net.init(jax.random.key(0), (source, source))
    >>> decoded = beam_search(net, params, state, source, beam=3, max_length=5, start=0, end=1)
    >>> decoded.tokens.shape, bool((decoded.log_probabilities[:, 0] >= decoded.log_probabilities[:, 1]).all())
    ((2, 3, 5), True)
    """
    with labeled_as("beam_search"):
        check_count("beam", beam)
        check_positive("length_penalty", length_penalty, zero=True)
        decoder, limits, inputs = encode(net, params, state, source, max_length, start, end)
    return computed(_beam_search, [decoder, beam, *limits], *inputs, jnp.asarray(length_penalty))


def _beam_search(
    decoder: Net,
    beam: int,
    max_length: int,
    start: int,
    end: int,
    params: Params,
    state: State,
    carry: Any,
    alpha: jax.Array,
) -> Decoded:
    # The loop's state: place, scalar, the position to write; tokens (batch, beam, max_length); scores and ended
    # (batch, beam); carry, leaves (batch · beam, ...). Unused places of the beam have score −∞.
    def is_unfinished(loop: tuple[Any, ...]) -> jax.Array:
        place, _, scores, ended, _ = loop
        return (place < max_length) & (~ended & (scores > -jnp.inf)).any()

    def extend(loop: tuple[Any, ...]) -> tuple[Any, ...]:
        place, tokens, scores, ended, carry = loop
        last = jnp.where(place > 0, tokens[:, :, place - 1], start)
        log_probs, carry = log_step(decoder, params, state, last.reshape(-1), carry, start, end)
        # (batch · beam, vocabulary) → (batch, beam, vocabulary)
        log_probs = log_probs.reshape(batch, beam, -1)
        size = log_probs.shape[-1]

        # A complete hypothesis has one extension, another end token, which costs nothing.
        only_end = jnp.where(jnp.arange(size) == end, 0, -jnp.inf).astype(log_probs.dtype)[None, None]
        # log p of each extension: (batch, beam, vocabulary)
        totals = scores[..., None] + jnp.where(ended[..., None], only_end, log_probs)
        # Complete hypotheses keep their place in the beam: here they outrank all others, whatever their score.
        rank = jnp.where(ended[..., None] & (totals > -jnp.inf), jnp.inf, totals)

        # The best of all beam · vocabulary extensions; an index is parent · vocabulary + token. All (batch, beam).
        _, chosen = jax.lax.top_k(rank.reshape(batch, -1), beam)
        scores = jnp.take_along_axis(totals.reshape(batch, -1), chosen, axis=1)
        parents, last = chosen // size, (chosen % size).astype(jnp.int32)

        # Each new hypothesis continues its parent's tokens and its parent's carry.
        tokens = jnp.take_along_axis(tokens, parents[..., None], axis=1).at[:, :, place].set(last)
        # The row of each parent in the decoder's batch, (batch · beam,)
        rows = (parents + beam * jnp.arange(batch, dtype=parents.dtype)[:, None]).reshape(-1)
        carry = take_rows(carry, rows)
        return place + 1, tokens, scores, (last == end) & (scores > -jnp.inf), carry

    batch, carry = batch_of(carry), begun(decoder, params, state, carry, max_length)
    # The decoder sees all hypotheses as one batch: (batch, ...) → (batch · beam, ...)
    carry = take_rows(carry, jnp.repeat(jnp.arange(batch), beam))
    tokens = jnp.full((batch, beam, max_length), end, jnp.int32)
    log_probs = jax.eval_shape(
        lambda: log_step(decoder, params, state, tokens[..., 0].reshape(-1), carry, start, end)[0]
    )
    # The search starts from a single empty hypothesis: several would all be extended in the same way.
    scores = jnp.where(jnp.arange(beam) == 0, 0, -jnp.inf).astype(log_probs.dtype)[None].repeat(batch, axis=0)
    first = (jnp.zeros((), jnp.int32), tokens, scores, jnp.zeros((batch, beam), bool), carry)
    _, tokens, scores, _, _ = jax.lax.while_loop(is_unfinished, extend, first)

    # Empty places of the beam hold no tokens.
    tokens = jnp.where(scores[..., None] > -jnp.inf, tokens, end)
    # An example with NaN among its scores has no targets.
    broken = jnp.isnan(scores).any(-1, keepdims=True)
    tokens, scores = jnp.where(broken[..., None], -1, tokens), jnp.where(broken, jnp.nan, scores)
    lengths = (tokens != end).sum(axis=-1, dtype=jnp.int32)
    # n, the number of factors in p: the end token counts, where there is one.
    factors = jnp.minimum(lengths + 1, max_length).astype(scores.dtype)
    best = jnp.argsort(-scores / factors ** alpha.astype(scores.dtype), axis=-1)
    return Decoded(
        jnp.take_along_axis(tokens, best[..., None], axis=1),
        jnp.take_along_axis(lengths, best, axis=1),
        jnp.take_along_axis(scores, best, axis=1),
    )
