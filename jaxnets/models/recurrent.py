"""Recurrent networks that read a sequence and answer: classifiers and regressors."""

from typing import Any

from jaxnets.combinators import serial
from jaxnets.errors import labelled_as
from jaxnets.keywords import explained
from jaxnets.layers import dense, gru_cell, lstm_cell, rnn_cell
from jaxnets.layers import dropout as dropout_layer
from jaxnets.models.recurrent_stack import MakeCell, look_up, one_width, recurrent_stack
from jaxnets.net import Net


@explained
def lstm(
    hidden: int,
    num_classes: int | None = None,
    *,
    num_outputs: int | None = None,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: Any = 0.0,
    vocabulary: int | None = None,
    embedding: int | None = None,
    return_sequences: bool = False,
    cell: MakeCell = lstm_cell,
) -> Net:
    """Return a network that reads a sequence by an LSTM, and classifies it or regresses on it: y = W h_T + b.

    It takes `(batch, time, features)`, or with a vocabulary integers `(batch, time)`, an array or `Padded`; h_T is
    the output at the last real step, with both directions beside the backward cell's at the first. The children
    are `embedding`, `lstm`, `dropout`, `fc`, and PyTorch's module of the name `lstm` has the same weights: layer
    k's are under `lstm/k`, a single layer's under `lstm`, with both directions there under `forward`, `backward`.

    Args:
        hidden: width of h.
        num_classes: width of the logits of a classifier, which come without softmax.
        num_outputs: width of a regressor's output, in place of `num_classes`.
        layers: how many cells there are in depth, each over the outputs of the one before.
        bidirectional: whether each of them has a second cell that runs backwards.
        dropout: rate in [0, 1) in training between the layers and before the output. May be traced.
        vocabulary: how many tokens there are, for inputs that are tokens.
        embedding: width of a token's vector; `hidden` if not given.
        return_sequences: whether to answer at every step, `(batch, time, …)`, `Padded` if the input is.
        cell: makes the cell of a width; `functools.partial(jn.lstm_cell, peepholes=True)` sets options.

    Raises:
        NetError: unless one of `num_classes` and `num_outputs` is given; for a size below 1, or a wrong rate.

    Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997).

    >>> import jax, jax.numpy as jnp
    >>> net = lstm(64, 10)
    >>> params, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 28, 28)))  # 28 rows of an image
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    24458
    """
    with labelled_as("lstm"):
        first, width = look_up(vocabulary, embedding, hidden), one_width(num_classes, num_outputs)
        stack = recurrent_stack(cell, hidden, layers, dropout, bidirectional, return_sequences)
        return serial(**first, lstm=stack, dropout=dropout_layer(dropout), fc=dense(width))


@explained
def gru(
    hidden: int,
    num_classes: int | None = None,
    *,
    num_outputs: int | None = None,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: Any = 0.0,
    vocabulary: int | None = None,
    embedding: int | None = None,
    return_sequences: bool = False,
    cell: MakeCell = gru_cell,
) -> Net:
    """Return a network that reads a sequence by a GRU, and classifies it or regresses on it.

    Arguments, input, output and errors are those of `lstm`; the recurrent child is named `gru`.

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation" (2014).

    >>> import jax, jax.numpy as jnp
    >>> net, x = gru(32, num_outputs=1), jnp.ones((4, 9, 3))
    >>> net.apply(*net.init(jax.random.key(0), x), x)[0].shape
    (4, 1)
    """
    with labelled_as("gru"):
        first, width = look_up(vocabulary, embedding, hidden), one_width(num_classes, num_outputs)
        stack = recurrent_stack(cell, hidden, layers, dropout, bidirectional, return_sequences)
        return serial(**first, gru=stack, dropout=dropout_layer(dropout), fc=dense(width))


@explained
def rnn(
    hidden: int,
    num_classes: int | None = None,
    *,
    num_outputs: int | None = None,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: Any = 0.0,
    vocabulary: int | None = None,
    embedding: int | None = None,
    return_sequences: bool = False,
    cell: MakeCell = rnn_cell,
) -> Net:
    """Return a network that reads a sequence by Elman's recurrence, and classifies it or regresses on it.

    Arguments, input, output and errors are those of `lstm`; the recurrent child is named `rnn`.

    Elman, "Finding Structure in Time" (1990).

    >>> list(rnn(32, 5, vocabulary=100).children)
    ['embedding', 'rnn', 'dropout', 'fc']
    """
    with labelled_as("rnn"):
        first, width = look_up(vocabulary, embedding, hidden), one_width(num_classes, num_outputs)
        stack = recurrent_stack(cell, hidden, layers, dropout, bidirectional, return_sequences)
        return serial(**first, rnn=stack, dropout=dropout_layer(dropout), fc=dense(width))
