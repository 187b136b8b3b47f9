"""Greedy decoding of an encoder–decoder, and the decoding step that it shares with beam search."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.combinators.tied import untied
from jaxnets.core.cache import batch_of
from jaxnets.core.compiled import computed
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, known, labeled_as
from jaxnets.core.net import Net, Params, State, apply_child
from jaxnets.decoding.reading import begun, step


class Decoded(NamedTuple):
    """Decoded targets, the arguments of `jn.Padded(tokens, lengths)`, and their log-probabilities.

    Attributes:
        tokens: `(batch, max_length)` from `greedy`, `(batch, beam, max_length)` from `beam_search`, best first. The end
            token fills each row up to `max_length`. -1 where the logits are NaN.
        lengths: `(batch,)` or `(batch, beam)`, the number of tokens before the end token; `max_length` for a target
            without one.
        log_probabilities: `(batch,)` or `(batch, beam)`, Σ_t log p(y_t | x, y_1 … y_{t-1}) including the end token's
            term; −∞ for the empty places of a beam that is larger than the number of targets.
    """

    tokens: jax.Array
    lengths: jax.Array
    log_probabilities: jax.Array


def greedy(net: Net, params: Params, state: State, source: Any, *, max_length: int, start: int, end: int) -> Decoded:
    """Decode a target by taking the most probable token at each step, until the end token or `max_length`.

    The loop is one compiled scan. The function can be jitted, and mapped over parameters and sources.

    Args:
        net: a network with two children: `encoder`, from source to carry, and `decoder`, from `(tokens, carry)` to
            `(logits, carry)`; for example `jn.models.encoder_decoder`.
        params: the network's parameters.
        state: the network's state.
        source: a batch of sources, in the form that the network takes.
        max_length: the largest number of tokens, including the end token.
        start: the token that the decoder reads first.
        end: the token that ends a target.

    Raises:
        NetError: for a network without the two children, `max_length` < 1, or `start` or `end` out of range.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, source = jn.models.encoder_decoder(9, 7, 8, cell=jn.gru_cell), jnp.ones((2, 4), int)
    >>> params, state = net.init(jax.random.key(0), (source, source))
    >>> decoded = greedy(net, params, state, source, max_length=5, start=0, end=1)
    >>> decoded.tokens.shape, decoded.lengths.shape
    ((2, 5), (2,))
    """
    with labeled_as("greedy"):
        decoder, limits, inputs = encode(net, params, state, source, max_length, start, end)
    return computed(_greedy, [decoder, *limits], *inputs)


def encode(
    net: Net, params: Params, state: State, source: Any, max_length: int, start: Any, end: Any
) -> tuple[Net, tuple[int, int, int], tuple[Params, State, Any]]:
    """Check the arguments, run the encoder, and return what the decoder starts from.

    Returns:
        The decoder; `(max_length, start, end)` as integers; the decoder's parameters, its state, and its first carry.
    """
    check_count("max_length", max_length)
    for name, token in (("start", start), ("end", end)):
        if isinstance(token, bool) or not hasattr(token, "__index__"):
            raise NetError(f"expects a token, an integer, for {name}, got {type(token).__name__} {token!r}")
    if not {"encoder", "decoder"} <= set(net.children):
        raise NetError(f"expects a network with the children encoder and decoder, got {net.label}")
    net, params = untied(net, params)
    carry = computed(_encoded, [net["encoder"]], params, state, source)
    # Tokens out of range, which a compiled program can't refuse, become NaN: find the layer that says so.
    if (first := known(jax.tree.leaves(carry)[0])) is not None and np.isnan(first).any():
        _encoded(net["encoder"], params, state, source)
    limits, decoder = (max_length, int(start), int(end)), net["decoder"]
    own, own_state = params.get("decoder", {}), state.get("decoder", {})
    # Raises if the decoder can't read that many tokens; nothing is computed.
    whole = jax.ShapeDtypeStruct((batch_of(carry), max_length), jnp.int32)
    jax.eval_shape(decoder.apply, own, own_state, (whole, carry))
    return decoder, limits, (own, own_state, carry)


def _encoded(encoder: Net, params: Params, state: State, source: Any) -> Any:
    return apply_child(encoder, "encoder", params, state, source, key=None, train=False)[0]


def log_step(
    decoder: Net, params: Params, state: State, tokens: jax.Array, carry: Any, start: int, end: int
) -> tuple[jax.Array, Any]:
    """Read one token `(rows,)`; return log p of the next one, `(rows, vocabulary)`, and the new carry."""
    logits, carry = step(decoder, params, state, tokens, carry)
    # Only the logits show the size of the vocabulary.
    size = logits.shape[-1]
    for name, token in (("start", start), ("end", end)):
        if not 0 <= token < size:
            raise NetError(f"expects {name} from 0 to {size - 1}, got {token}", label="decoding")
    return jax.nn.log_softmax(logits.astype(param_dtype(logits))), carry


def _greedy(decoder: Net, max_length: int, start: int, end: int, params: Params, state: State, carry: Any) -> Decoded:
    def decode_token(loop: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], tuple[jax.Array, jax.Array]]:
        # tokens, ended: (batch,)
        tokens, ended, carry = loop
        log_probs, carry = log_step(decoder, params, state, tokens, carry, start, end)
        # A row that has ended repeats the end token, at log-probability 0.
        largest = log_probs.max(axis=-1)
        best = jnp.where(jnp.isnan(largest), -1, log_probs.argmax(axis=-1))
        tokens = jnp.where(ended, end, best.astype(jnp.int32))
        gains = jnp.where(ended, 0, largest)
        return (tokens, ended | (tokens == end), carry), (tokens, gains)

    batch, carry = batch_of(carry), begun(decoder, params, state, carry, max_length)
    first = (jnp.full(batch, start, jnp.int32), jnp.zeros(batch, bool), carry)
    # tokens, gains: (max_length, batch)
    _, (tokens, gains) = jax.lax.scan(decode_token, first, length=max_length)
    return Decoded(tokens.T, (tokens != end).sum(axis=0, dtype=jnp.int32), gains.sum(axis=0))
