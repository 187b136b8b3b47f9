"""What recurrent models share: cells in depth over a sequence, one way or both ways, and a table before them."""

from collections.abc import Callable
from typing import Any

from jaxnets.errors import NetError, check_count
from jaxnets.layers import Cell, bidirectional, embed, recurrent
from jaxnets.net import Net

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
