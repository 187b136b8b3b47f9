"""Documents packed into rows of equal length, so that little of a batch is padding."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, shown
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded


def pad(sequences: Sequence[Any], *, fill: Any = 0) -> Padded:
    """Pad sequences of unequal length to the longest, with their lengths: `Padded.from_sequences`.

    Layers, losses and metrics of this library leave the padding out. `split`, `fold`, `stream` and training take the
    result as they take an array, and `padded[index]` selects sequences.

    Args:
        sequences: arrays or lists `(time, ...)`, at least one; only `time` may differ.
        fill: the value of the padding.

    Returns:
        A `Padded` of NumPy arrays: values `(batch, longest, ...)` in the common dtype of the sequences, and lengths in
        int32.

    Raises:
        NetError: for no sequences, or sequences that differ in more than `time`.

    >>> padded = pad([[1, 2], [3, 4, 5]])
    >>> padded.values.tolist(), padded[0].tolist()
    ([[1, 2, 0], [3, 4, 5]], [1, 2])
    """
    return Padded.from_sequences(sequences, fill=fill)


def pack(documents: Sequence[Any], length: int, *, fill: Any = 0, separator: Any = None, cut: bool = False) -> Packed:
    """Pack documents into rows of one length, several to a row, so that few steps are padding.

    The longest document is placed first, each in the row with the least space that is left for it, or in a new one
    (best-fit decreasing). Within a row documents keep their order, and rows are in the order of their first ones; the
    result depends on nothing else.

    Args:
        documents: arrays or lists `(time, ...)`; only `time` may differ. One without steps takes no place.
        length: the length of the rows, at least 1.
        fill: the value of padding.
        separator: what to put behind each document, such as the token that ends a text; `None` for nothing.
        cut: whether a document longer than `length` is cut into pieces, each a document of its own: pieces do not read
            each other.

    Returns:
        A `Packed` of NumPy arrays: values `(rows, length, ...)` in the common dtype of the documents, lengths and
        segments in int32. A segment is the number of a document, in the order given, after any cuts; -1 for padding.

    Raises:
        NetError: for no steps at all, documents that differ in more than `time`, or a longer one without `cut`.

    >>> rows = pack([[1, 2, 3], [4], [5, 6], [7]], 4)
    >>> print(np.concatenate([rows.values, rows.segments]))
    [[ 1  2  3  4]
     [ 5  6  7  0]
     [ 0  0  0  1]
     [ 2  2  3 -1]]
    """
    with labeled_as("pack"):
        check_count("length", length)
        arrays = [np.asarray(each) for each in documents]
        full = [each for each in arrays if each.size]
        shapes = {each.shape[1:] for each in full}
        if len(shapes) != 1 or not all(each.ndim for each in arrays):
            found = ", ".join(sorted({str(each.shape) for each in arrays})[:6]) or "none"
            raise NetError(
                f"expects documents (time, ...) that differ in time alone, one of them not empty, got {found}"
            )
        dtype = np.result_type(*full)
        arrays = [each if each.size else np.zeros((0, *each.shape[1:]), dtype) for each in arrays]
        if separator is not None:
            end = np.broadcast_to(np.asarray(separator, dtype), (1, *next(iter(shapes))))
            arrays = [np.concatenate([each.reshape(-1, *end.shape[1:]), end]) for each in arrays]
        longest = max(map(len, arrays))
        if longest > length and not cut:
            hint = "use a larger length, or cut=True to cut it into pieces"
            raise NetError(f"expects documents of at most {length} steps, got one of {longest}; {hint}")
        pieces = [each[begin : begin + length] for each in arrays for begin in range(0, len(each), length)]
        rows = _rows([len(each) for each in pieces], length)
        values = np.full((len(rows), length, *next(iter(shapes))), fill, dtype)
        segments = np.full((len(rows), length), -1, np.int32)
        lengths = np.zeros(len(rows), np.int32)
        for row, numbers in enumerate(rows):
            lengths[row] = sum(len(pieces[number]) for number in numbers)
            values[row, : lengths[row]] = np.concatenate([pieces[number] for number in numbers])
            segments[row, : lengths[row]] = np.repeat(numbers, [len(pieces[number]) for number in numbers])
    return Packed(values, lengths, segments)


def unpack(packed: Any) -> list[np.ndarray]:
    """Return the documents of packed rows, each an array `(time, ...)`.

    Args:
        packed: a `jn.Packed`, of known values.

    Returns:
        The documents in the order of their segments, and those of one number in the order of their rows. So documents
        that `jn.data.pack` has packed come back in the order in which they were given, without those that are empty.

    Raises:
        NetError: for anything but a `Packed`.

    >>> documents = unpack(pack([[1, 2, 3], [4], [5, 6], [7]], 4))
    >>> [document.tolist() for document in documents]
    [[1, 2, 3], [4], [5, 6], [7]]
    """
    if not isinstance(packed, Packed):
        raise NetError(f"expects a jn.Packed, got {shown(packed)}", label="unpack")
    values, lengths, segments = (np.asarray(each) for each in (packed.values, packed.lengths, packed.segments))
    found: list[tuple[int, np.ndarray]] = []
    for row, length in enumerate(lengths.tolist()):
        begins = np.flatnonzero(np.diff(segments[row, :length], prepend=segments[row, 0] - 1 if length else 0))
        for begin, end in zip(begins, [*begins[1:], length]):
            found.append((int(segments[row, begin]), values[row, begin:end]))
    # The sort is stable.
    return [document for _, document in sorted(found, key=lambda each: each[0])]


def _rows(sizes: list[int], length: int) -> list[list[int]]:
    """Return the numbers of the documents of each row, for documents of some sizes from 1 to `length`."""
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # the space that is left, and the row, in order
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        place = bisect_left(spaces, (sizes[number], -1))
        if place == len(spaces):
            rows.append([])
            space, row = length, len(rows) - 1
        else:
            space, row = spaces.pop(place)
        rows[row].append(number)
        if space > sizes[number]:
            insort(spaces, (space - sizes[number], row))
    return sorted(map(sorted, rows))
