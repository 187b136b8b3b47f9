"""The encoder–decoder: one recurrent network reads a source, another predicts a target."""

from typing import Any

from jaxnets.combinators.serial import build_child, serial
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.layer import layer
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose
from jaxnets.layers import dropout as dropout_layer
from jaxnets.layers import lstm_cell
from jaxnets.models.language_model import language_model
from jaxnets.models.recurrent import MakeCell, look_up, recurrent_stack


@explained
def encoder_decoder(
    source_vocabulary: int | None,
    target_vocabulary: int,
    hidden: int,
    *,
    cell: MakeCell = lstm_cell,
    layers: int = 1,
    embedding: int | None = None,
    dropout: Any = 0.0,
) -> Net:
    """Return a network that reads a source and returns the logits of a target: p(y_t | x, y_1 … y_{t-1}).

    The decoder starts from the carry of the encoder after the last real step of the source; nothing else connects
    them. The input is `(source, target_in)`, the output `(batch, target time, target_vocabulary)`. In training
    `target_in` is the target delayed by one step, after a start token ("teacher forcing"), and the loss is
    `jn.losses.sequence(jn.losses.cross_entropy)` with the target itself, including its end token.
    `jn.decoding.greedy` and `jn.decoding.beam_search` generate targets.

    The source is integers `(batch, time)`, or floating `(batch, time, features)` without a vocabulary; source and
    `target_in` are arrays or `Padded`. The children are `encoder`, from the source to the carry, and `decoder`, a
    `language_model`; both have the cells under `rnn` and the embedding under `embedding`.

    Args:
        source_vocabulary: the number of tokens of the source; `None` for a source of features.
        target_vocabulary: the number of tokens of the target, including start and end tokens.
        hidden: the width of the cells.
        cell: a function from a width to a cell: `jn.lstm_cell`, `jn.gru_cell`, `jn.rnn_cell`, or a custom one.
        layers: the number of recurrent layers in each of the two.
        embedding: the width of a token's embedding. Default: `hidden`.
        dropout: the rate in [0, 1) before and between the layers and before the logits. May be traced.

    Raises:
        NetError: for a size below 1, a rate outside [0, 1), or an input that is not `(source, target_in)`.

    Sutskever, Vinyals and Le, "Sequence to Sequence Learning with Neural Networks" (2014), section 2, which
    reports that reversing the source helps. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for
    Statistical Machine Translation" (2014).

    >>> import jax, jax.numpy as jnp
    >>> net = encoder_decoder(160_000, 80_000, 1000, layers=4)  # the first paper's, "384M parameters"
    >>> x = jnp.ones((1, 7), int), jnp.ones((1, 9), int)
    >>> params, _ = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    384112000
    """
    with labeled_as("encoder_decoder"):
        table = {} if source_vocabulary is None else look_up(source_vocabulary, embedding, hidden)
        encoder = serial(
            **table,
            dropout=dropout_layer(dropout),
            rnn=recurrent_stack(cell, hidden, layers, dropout, return_sequences=False, return_carry=True),
            carry=layer(None, lambda _, pair: pair[1], label="carry"),
        )
        decoder = language_model(
            target_vocabulary, hidden, cell=cell, layers=layers, embedding=embedding, dropout=dropout
        )
        return joined("encoder_decoder", encoder, decoder)


def joined(label: str, encoder: Net, decoder: Net) -> Net:
    """Return the network from `(source, target_in)` to logits, of an encoder, and a decoder from `(target_in, carry)`.

    The children are `encoder` and `decoder`; the encoder's output is the first carry of the decoder.
    """
    children = {"encoder": encoder, "decoder": decoder}

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        source, target = _unpack(x, label)
        params: dict[str, Any] = {}
        carry = build_child(encoder, "encoder", key, source, params, {})
        logits, _ = build_child(decoder, "decoder", key, (target, carry), params, {})
        return params, {}, logits

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        source, target = _unpack(x, label)
        carry, _ = apply_child(encoder, "encoder", params, state, source, key=key, train=train)
        (logits, _), _ = apply_child(decoder, "decoder", params, state, (target, carry), key=key, train=train)
        return logits, state

    return compose(build, apply, label=label, children=children)


def _unpack(x: Any, label: str) -> tuple[Any, Any]:
    if not isinstance(x, tuple) or len(x) != 2:
        hint = "; jn.decoding.greedy and beam_search write targets"
        raise NetError(f"expects (source, target_in), got {type(x).__name__}{hint}", label=label)
    return x
