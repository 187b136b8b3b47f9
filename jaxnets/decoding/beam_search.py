"""The target that an encoder–decoder writes, found by a beam of hypotheses."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.compiled import computed
from jaxnets.core.errors import check_count, check_positive, labeled_as
from jaxnets.core.net import Net, Params, State
from jaxnets.decoding.greedy import Decoded, begin, step


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
    """Write a target by keeping the likeliest `beam` hypotheses, each step, of all that go on from those kept.

    A hypothesis with the end token is complete: it stays, and leaves its place among those that go on no more.
    At last all, those cut off at `max_length` too, are ranked by log p / n^α over their n tokens, the end token
    included. With a beam of 1 it is `greedy`; one as large as there are targets finds the likeliest. One
    compiled loop, which ends with the last hypothesis.

    Args:
        net: as for `greedy`.
        params: its parameters.
        state: its state.
        source: a batch of sources, as the network takes them.
        beam: how many hypotheses are kept, at least 1.
        max_length: how many tokens are written at most, the end token included.
        start: the token that the decoder is given first.
        end: the token that ends a target.
        length_penalty: α ≥ 0; at 0 short targets are favored, at 1 the mean log-probability of a token counts. May be
            traced.

    Raises:
        NetError: as `greedy` does, and for a beam below 1 or α below 0.

    Sutskever, Vinyals and Le, "Sequence to Sequence Learning with Neural Networks" (2014), section 3.2; Wu et al.,
    "Google's Neural Machine Translation System" (2016), section 7, for dividing by a power of the length.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, source = jn.models.encoder_decoder(9, 7, 8, cell=jn.gru_cell), jnp.ones((2, 4), int)
    >>> params, state = net.init(jax.random.key(0), (source, source))
    >>> written = beam_search(net, params, state, source, beam=3, max_length=5, start=0, end=1)
    >>> written.tokens.shape, bool((written.log_probabilities[:, 0] >= written.log_probabilities[:, 1]).all())
    ((2, 3, 5), True)
    """
    with labeled_as("beam_search"):
        check_count("beam", beam)
        check_positive("length_penalty", length_penalty, zero=True)
        decoder, limits, given = begin(net, params, state, source, max_length, start, end)
    return computed(_beam, [decoder, beam, *limits], *given, jnp.asarray(length_penalty))


def _beam(
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
    def goes_on(carried: tuple[Any, ...]) -> jax.Array:
        place, _, scores, ended, _ = carried
        return (place < max_length) & (~ended & (scores > -jnp.inf)).any()

    def one(carried: tuple[Any, ...]) -> tuple[Any, ...]:
        place, tokens, scores, ended, carry = carried
        last = jnp.where(place > 0, tokens[:, :, place - 1], start)
        values, carry = step(decoder, params, state, last.reshape(-1), carry, start, end)
        values = values.reshape(batch, beam, -1)
        size = values.shape[-1]
        kept = jnp.where(jnp.arange(size) == end, 0, -jnp.inf).astype(values.dtype)[None, None]
        totals = scores[..., None] + jnp.where(ended[..., None], kept, values)  # (batch, beam, vocabulary)
        rank = jnp.where(ended[..., None] & (totals > -jnp.inf), jnp.inf, totals)  # the complete stay
        _, chosen = jax.lax.top_k(rank.reshape(batch, -1), beam)
        scores = jnp.take_along_axis(totals.reshape(batch, -1), chosen, axis=1)
        parents, last = chosen // size, (chosen % size).astype(jnp.int32)
        tokens = jnp.take_along_axis(tokens, parents[..., None], axis=1).at[:, :, place].set(last)
        rows = (parents + beam * jnp.arange(batch, dtype=parents.dtype)[:, None]).reshape(-1)
        carry = jax.tree.map(lambda leaf: leaf[rows], carry)
        return place + 1, tokens, scores, (last == end) & (scores > -jnp.inf), carry

    batch = jax.tree.leaves(carry)[0].shape[0]
    carry = jax.tree.map(lambda leaf: jnp.repeat(leaf, beam, axis=0), carry)  # (batch · beam, ...)
    tokens = jnp.full((batch, beam, max_length), end, jnp.int32)
    values = jax.eval_shape(lambda: step(decoder, params, state, tokens[..., 0].reshape(-1), carry, start, end)[0])
    scores = jnp.where(jnp.arange(beam) == 0, 0, -jnp.inf).astype(values.dtype)[None].repeat(batch, axis=0)
    first = (jnp.zeros((), jnp.int32), tokens, scores, jnp.zeros((batch, beam), bool), carry)
    _, tokens, scores, _, _ = jax.lax.while_loop(goes_on, one, first)

    tokens = jnp.where(scores[..., None] > -jnp.inf, tokens, end)
    lengths = (tokens != end).sum(axis=-1, dtype=jnp.int32)
    terms = jnp.minimum(lengths + 1, max_length).astype(scores.dtype)  # factors of the probability
    best = jnp.argsort(-scores / terms ** alpha.astype(scores.dtype), axis=-1)
    return Decoded(
        *(
            jnp.take_along_axis(leaf, best[..., None] if leaf.ndim > 2 else best, axis=1)
            for leaf in (tokens, lengths, scores)
        )
    )
