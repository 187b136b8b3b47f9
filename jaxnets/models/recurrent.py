"""Recurrent classifiers and regressors: LSTM, GRU, Elman's RNN; and the stacks of cells that other models share."""

from collections.abc import Callable
from typing import Any

from jaxnets.combinators.serial import serial
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import Cell, bidirectional, dense, embed, gru_cell, lstm_cell, recurrent, rnn_cell
from jaxnets.layers import dropout as dropout_layer

MakeCell = Callable[[int], Cell]


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
    """Return an LSTM that reads a sequence and classifies it, or predicts real numbers: y = W h_T + b.

    The input is `(batch, time, features)`, or with a vocabulary integers `(batch, time)`, an array or `Padded`. h_T is
    the output at the last real step; a bidirectional network appends the backward output at the first step. The
    children are `embedding`, `lstm`, `dropout`, `fc`. The weights are those of a PyTorch module with the attribute
    `lstm`: those of layer k under `lstm/k`, of a single layer under `lstm`; if bidirectional, inside it under `forward`
    and `backward`.

    Args:
        hidden: the width of h.
        num_classes: the number of logits of a classifier, without softmax.
        num_outputs: the width of a regressor's output, instead of `num_classes`.
        layers: the number of recurrent layers, each over the outputs of the previous one.
        bidirectional: whether each layer has a second cell that runs backward.
        dropout: the rate in [0, 1) between the layers and before the output. May be traced.
        vocabulary: the number of tokens, for inputs that are tokens.
        embedding: the width of a token's embedding. Default: `hidden`.
        return_sequences: whether to return an output for every step, `(batch, time, …)`, `Padded` if the input is.
        cell: a function from a width to a cell; `functools.partial(jn.lstm_cell, peepholes=True)` sets options.

    Raises:
        NetError: unless one of `num_classes` and `num_outputs` is given; for a size below 1, or a rate out of range.

    Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997).

    >>> import jax, jax.numpy as jnp
    >>> net = lstm(64, 10)
    >>> params, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 28, 28)))  # 28 rows of an image
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    24458
    """
    with labeled_as("lstm"):
        table, width = look_up(vocabulary, embedding, hidden), _output_width(num_classes, num_outputs)
        stack = recurrent_stack(cell, hidden, layers, dropout, bidirectional, return_sequences)
        return serial(**table, lstm=stack, dropout=dropout_layer(dropout), fc=dense(width))


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
    """Return a GRU that reads a sequence and classifies it, or predicts real numbers.

    Arguments, input, output and errors are those of `lstm`; the recurrent child is named `gru`.

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation" (2014).

    >>> import jax, jax.numpy as jnp
    >>> net, x = gru(32, num_outputs=1), jnp.ones((4, 9, 3))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (4, 1)
    """
    with labeled_as("gru"):
        table, width = look_up(vocabulary, embedding, hidden), _output_width(num_classes, num_outputs)
        stack = recurrent_stack(cell, hidden, layers, dropout, bidirectional, return_sequences)
        return serial(**table, gru=stack, dropout=dropout_layer(dropout), fc=dense(width))


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
    """Return Elman's recurrent network, which reads a sequence and classifies it, or predicts real numbers.

    Arguments, input, output and errors are those of `lstm`; the recurrent child is named `rnn`.

    Elman, "Finding Structure in Time" (1990).

    >>> list(rnn(32, 5, vocabulary=100).children)
    ['embedding', 'rnn', 'dropout', 'fc']
    """
    with labeled_as("rnn"):
        table, width = look_up(vocabulary, embedding, hidden), _output_width(num_classes, num_outputs)
        stack = recurrent_stack(cell, hidden, layers, dropout, bidirectional, return_sequences)
        return serial(**table, rnn=stack, dropout=dropout_layer(dropout), fc=dense(width))


def recurrent_stack(
    cell: MakeCell,
    hidden: int,
    layers: int,
    dropout: Any,
    both_ways: bool = False,
    return_sequences: bool = True,
    return_carry: bool = False,
) -> Net:
    """Return `layers` recurrent layers of width `hidden`, one on top of the other, with dropout in between.

    Several layers are named `0`, `1`, …. With `both_ways`, each is a pair of cells.

    Raises:
        NetError: for fewer than one layer, or a `cell` that is not a function from a width to a cell.
    """
    if isinstance(cell, Cell) or not callable(cell):
        raise NetError(
            f"expects for cell a function from a width to a cell, such as jn.lstm_cell or "
            f"functools.partial(jn.lstm_cell, peepholes=True), got {cell!r}"
        )
    check_count("layers", layers)
    one = cell(hidden)
    options: dict[str, Any] = {"return_sequences": return_sequences, "return_carry": return_carry}
    rate = 0.0 if layers == 1 else dropout
    if both_ways:
        return bidirectional(one, layers=layers, dropout=rate, **options)
    return recurrent(*[one] * layers, dropout=rate, **options)


def look_up(vocabulary: int | None, embedding: int | None, hidden: int) -> dict[str, Net]:
    """Return the embedding of a vocabulary under its name, by default of width `hidden`; {} without a vocabulary.

    Raises:
        NetError: for a width without a vocabulary.
    """
    if vocabulary is not None:
        return {"embedding": embed(vocabulary, hidden if embedding is None else embedding)}
    if embedding is not None:
        raise NetError(f"expects vocabulary=, the number of tokens, with embedding=, got only embedding={embedding}")
    return {}


def _output_width(num_classes: int | None, num_outputs: int | None) -> int:
    """Return the width of the output, of a classifier or of a regressor.

    Raises:
        NetError: unless exactly one of the two is given.
    """
    if num_classes is not None and num_outputs is None:
        return num_classes
    if num_outputs is not None and num_classes is None:
        return num_outputs
    raise NetError(
        f"expects num_classes for a classifier or num_outputs for a regressor, one of the two, "
        f"got num_classes={num_classes} and num_outputs={num_outputs}"
    )
