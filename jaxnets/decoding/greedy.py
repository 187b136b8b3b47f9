"""The target that an encoder–decoder writes: what it is, and one written by the likeliest token each time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.core.compiled import computed
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.net import Net, Params, State, apply_child


class Decoded(NamedTuple):
    """Targets that were written, `jn.Padded(tokens, lengths)`, and how likely the network holds them.

    Attributes:
        tokens: `(batch, max_length)`, or `(batch, beam, max_length)` best first; filled up with the end token.
        lengths: `(batch,)` or `(batch, beam)`: how many tokens come before the end, `max_length` where there is none.
        log_probabilities: likewise: Σ_t log p(y_t | x, y_1 … y_{t-1}), the end token's included; −∞ for what is
            no hypothesis, because there are fewer than the beam holds.
    """

    tokens: jax.Array
    lengths: jax.Array
    log_probabilities: jax.Array


def greedy(net: Net, params: Params, state: State, source: Any, *, max_length: int, start: int, end: int) -> Decoded:
    """Write a target by taking the likeliest token each time, until the end token or `max_length`.

    One compiled scan. The function itself may be jitted, and mapped over parameters and sources.

    Args:
        net: a network with the children `encoder`, from source to carry, and `decoder`, from `(tokens, carry)` to
            `(logits, carry)`, such as `jn.models.encoder_decoder`.
        params: its parameters.
        state: its state.
        source: a batch of sources, as the network takes them.
        max_length: how many tokens are written at most, the end token included.
        start: the token that the decoder is given first.
        end: the token that ends a target.

    Raises:
        NetError: for a network without the two children, a length below 1, or `start` or `end` out of range.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, source = jn.models.encoder_decoder(9, 7, 8, cell=jn.gru_cell), jnp.ones((2, 4), int)
    >>> params, state = net.init(jax.random.key(0), (source, source))
    >>> written = greedy(net, params, state, source, max_length=5, start=0, end=1)
    >>> written.tokens.shape, written.lengths.shape
    ((2, 5), (2,))
    """
    with labeled_as("greedy"):
        decoder, limits, given = begin(net, params, state, source, max_length, start, end)
    return computed(_greedy, [decoder, *limits], *given)


def begin(
    net: Net, params: Params, state: State, source: Any, max_length: int, start: Any, end: Any
) -> tuple[Net, tuple[int, int, int], tuple[Params, State, Any]]:
    """Return the decoder, the checked limits, and the decoder's parameters, its state and the carry it starts from."""
    check_count("max_length", max_length)
    for name, token in (("start", start), ("end", end)):
        if isinstance(token, bool) or not hasattr(token, "__index__"):
            raise NetError(f"expects a token, an integer, for {name}, got {type(token).__name__} {token!r}")
    if not {"encoder", "decoder"} <= set(net.children):
        raise NetError(f"expects a network with the children encoder and decoder, got {net.label}")
    carry, _ = apply_child(net["encoder"], "encoder", params, state, source, key=None, train=False)
    limits = max_length, int(start), int(end)
    return net["decoder"], limits, (params.get("decoder", {}), state.get("decoder", {}), carry)


def step(
    decoder: Net, params: Params, state: State, tokens: jax.Array, carry: Any, start: int, end: int
) -> tuple[jax.Array, Any]:
    """Return log p of the next token, `(batch, vocabulary)` after tokens `(batch,)`, and the carry behind them."""
    (logits, carry), _ = decoder.apply(params, state, (tokens[:, None], carry))
    size = logits.shape[-1]
    for name, token in (("start", start), ("end", end)):
        if not 0 <= token < size:
            raise NetError(f"expects {name} from 0 to {size - 1}, got {token}", label="decoding")
    return jax.nn.log_softmax(logits[:, 0].astype(param_dtype(logits))), carry


def _greedy(decoder: Net, max_length: int, start: int, end: int, params: Params, state: State, carry: Any) -> Decoded:
    def one(carried: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], tuple[jax.Array, jax.Array]]:
        tokens, ended, carry = carried  # (batch,), (batch,)
        values, carry = step(decoder, params, state, tokens, carry, start, end)
        tokens = jnp.where(ended, end, values.argmax(axis=-1).astype(jnp.int32))
        gain = jnp.where(ended, 0, values.max(axis=-1))
        return (tokens, ended | (tokens == end), carry), (tokens, gain)

    batch = jax.tree.leaves(carry)[0].shape[0]
    first = (jnp.full(batch, start, jnp.int32), jnp.zeros(batch, bool), carry)
    _, (tokens, gains) = jax.lax.scan(one, first, length=max_length)  # (max_length, batch)
    return Decoded(tokens.T, (tokens != end).sum(axis=0, dtype=jnp.int32), gains.sum(axis=0))
