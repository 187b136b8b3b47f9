"""Stretches of a long sequence, to learn the next element from."""

from typing import Any

import numpy as np

from jaxnets.errors import NetError, check_count, labelled_as


def windows(sequence: Any, length: int, *, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return stretches of a sequence, and the same stretches one step later: what is read, and what comes next.

    Window *i* is x_i = s[i·stride : i·stride + length], and y_i = s[i·stride + 1 : i·stride + length + 1]. What is
    left at the end and fills no window is dropped. Cut a sequence into training and test part first, and each into
    windows afterwards.

    Args:
        sequence: `(steps, ...)`, of any dtype.
        length: steps in a window, at least 1.
        stride: from the begin of one window to the next; `length` if not given, so that no element of `x` is in two.

    Returns:
        `x` and `y`, `(windows, length, ...)` in the sequence's dtype. To predict a single next value take `y[:, -1]`.

    Raises:
        NetError: if `length` or `stride` is less than 1, or the sequence is not longer than a window.

    >>> x, y = windows([0, 1, 2, 3, 4, 5, 6, 7], 3)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    with labelled_as("windows"):
        check_count("length", length)
        stride = length if stride is None else stride
        check_count("stride", stride)
        values = np.asarray(sequence)
        if values.ndim < 1 or len(values) <= length:
            raise NetError(
                f"expects a sequence of more than length={length} steps along its first axis, got {values.shape}"
            )
    begins = np.arange(0, len(values) - length, stride)
    places = begins[:, None] + np.arange(length)
    return values[places], values[places + 1]
