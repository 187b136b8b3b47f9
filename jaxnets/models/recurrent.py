"""What recurrent models share: cells in depth over a sequence, one way or both ways, and a table before them."""

from collections.abc import Callable
from typing import Any

from jaxnets.combinators.serial import serial
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import Cell, bidirectional, dense, embed, gru_cell, lstm_cell, recurrent, rnn_cell
from jaxnets.layers import dropout as dropout_layer

MakeCell = Callable[[int], Cell]


def recurrent_stack(
    cell: MakeCell,
    hidden: int,
    layers: int,
    dropout: Any,
    both_ways: bool = False,
    return_sequences: bool = True,
    return_carry: bool = False,
) -> Net:
    """Return `layers` cells of width `hidden`, each over the outputs of the one before, with dropout between.

    Several are named `0`, `1`, …. Both ways, each is a pair of cells.

    Raises:
        NetError: for fewer than one layer, or something that makes no cell.
    """
    if isinstance(cell, Cell) or not callable(cell):
        raise NetError(
            f"expects for cell what makes one of a width, such as jn.lstm_cell or "
            f"functools.partial(jn.lstm_cell, peepholes=True), got {cell!r}"
        )
    check_count("layers", layers)
    own = cell(hidden)
    options: dict[str, Any] = {"return_sequences": return_sequences, "return_carry": return_carry}
    rate = 0.0 if layers == 1 else dropout
    if both_ways:
        return bidirectional(own, layers=layers, dropout=rate, **options)
    return recurrent(*[own] * layers, dropout=rate, **options)


def look_up(vocabulary: int | None, embedding: int | None, hidden: int) -> dict[str, Net]:
    """Return the table of a vocabulary under its name, of width `hidden` if not said; nothing without a vocabulary.

    Raises:
        NetError: for a width without a vocabulary.
    """
    if vocabulary is not None:
        return {"embedding": embed(vocabulary, hidden if embedding is None else embedding)}
    if embedding is not None:
        raise NetError(f"looks up tokens where vocabulary= says how many there are, got only embedding={embedding}")
    return {}


def one_width(num_classes: int | None, num_outputs: int | None) -> int:
    """Return the width of the answer: that of a classifier or that of a regressor.

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
    with labeled_as("lstm"):
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
    with labeled_as("gru"):
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
    with labeled_as("rnn"):
        first, width = look_up(vocabulary, embedding, hidden), one_width(num_classes, num_outputs)
        stack = recurrent_stack(cell, hidden, layers, dropout, bidirectional, return_sequences)
        return serial(**first, rnn=stack, dropout=dropout_layer(dropout), fc=dense(width))
