"""Pooling of channels-last arrays.

Large windows are pooled one axis after another, as maximum and sum are separable. The derivative of a maximum needs
only the index of the maximum in each window, a byte for windows of up to 128 elements: its tangent is that of the
element with this index. This is linear, so forward mode applies it and reverse mode transposes it, at any order.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.ops.extrema import max_along
from jaxnets.ops.geometry import Pairs, Sizes, out_sizes
from jaxnets.ops.plain import is_plain
from jaxnets.ops.windows import NO_WINDOW, Windows, margins, pad, window_elements, window_sum

MAX_WHOLE = 9
"""A window of up to this many elements is pooled in one pass over memory, without intermediate results."""

MAX_SLICES = 8
"""An axis of a window of up to this size is computed from a slice per element, one of up to so many bins from one each.

Slices are far cheaper to differentiate than `reduce_window` or indices, but compile time grows with their number.
"""

FEW_CHANNELS = 16
"""With fewer channels, argmax indices are materialized; otherwise recomputing them where needed is faster."""


@functools.partial(jax.jit, static_argnames=("window", "stride", "padding", "dilation"))
def max_pool(x: jax.Array, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> jax.Array:
    """Take the maximum over each window; padding counts as −∞.

    The gradient goes to the first of equal maxima in row-major order, as in PyTorch. NaN counts as the maximum.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        window: sizes of the window.
        stride: steps between windows.
        padding: positions that windows extend over the edges, before and after each spatial axis.
        dilation: steps between the elements of one window.

    Returns:
        `(batch, *out, channels)`, of the dtype of `x`.

    >>> print(max_pool(jnp.array([3.0, 1, 2, 5]).reshape(1, 4, 1), (2,), (2,), ((0, 0),), (1,)).ravel())
    [3. 5.]
    """
    # Each pass pools one axis, or the whole of a small window.
    for windows in _passes(window, stride, padding, dilation):
        x = _reduce_window(x, windows, -jnp.inf, lax.max) if _is_long(windows) else _maximum(x, windows)
    return x


@functools.partial(jax.jit, static_argnames=("window", "stride", "padding", "dilation", "counted"))
def avg_pool(  # noqa: D417 (the arguments that are not described are those of `max_pool`)
    x: jax.Array, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, counted: Pairs | None = None
) -> jax.Array:
    """Take the mean over each window: the sum of its elements divided by the number of positions that count.

    Sums are computed in float32 for narrower input.

    Args:
        x, window, stride, padding, dilation: as for `max_pool`, over zeros.
        counted: how far beyond the edges positions count in the mean; default: not at all.

    Returns:
        `(batch, *out, channels)`, of the dtype of `x`.

    >>> print(avg_pool(jnp.array([3.0, 1, 2, 5]).reshape(1, 4, 1), (2,), (2,), ((0, 0),), (1,)).ravel())
    [2.  3.5]
    """
    spatial = x.shape[1:-1]
    out = out_sizes(spatial, window, stride, padding, dilation)
    y = _widen(x)
    for windows in _passes(window, stride, padding, dilation):
        y = _reduce_window(y, windows, 0.0, lax.add) if _is_long(windows) else _sum(y, windows)
    counts = window_counts(spatial, window, stride, padding, dilation, counted)
    # All windows count the same number of elements.
    if all(len(set(count)) == 1 for count in counts):
        return (y / math.prod(int(count[0]) for count in counts)).astype(x.dtype)
    # Windows at the edges have fewer elements: one divisor per position, (1, *out, 1).
    divisors = functools.reduce(np.multiply.outer, counts).reshape(1, *out, 1)
    return (y / jnp.asarray(divisors, y.dtype)).astype(x.dtype)


@functools.partial(jax.jit, static_argnames=("sizes",))
def adaptive_avg_pool(x: jax.Array, sizes: Sizes) -> jax.Array:
    """Take means over nearly equal bins: bin i of k over n positions spans ⌊i n / k⌋ to ⌈(i + 1) n / k⌉.

    Where the bins divide an axis, each is a contiguous tile; otherwise the means are a matrix product. Sums are
    computed in float32 for narrower input.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        sizes: number of bins for each spatial axis; may exceed the axis.

    Returns:
        `(batch, *sizes, channels)`, of the dtype of `x`.

    >>> print(adaptive_avg_pool(jnp.array([1.0, 2, 6]).reshape(1, 3, 1), (2,)).ravel())
    [1.5 4. ]
    """
    y = _widen(x)
    for axis, bins in enumerate(sizes, start=1):
        n = y.shape[axis]
        if n % bins == 0:
            # (…, bins, n / bins, …), averaged over each bin
            y = y if n == bins else y.reshape(*y.shape[:axis], bins, n // bins, *y.shape[axis + 1 :]).mean(axis + 1)
            continue
        # (n, bins)
        weights = jnp.asarray(_bin_weights(n, bins), y.dtype)
        y = jnp.moveaxis(jnp.tensordot(y, weights, (axis, 0), precision="highest"), -1, axis)
    return y.astype(x.dtype)


@functools.partial(jax.jit, static_argnames=("sizes",))
def adaptive_max_pool(x: jax.Array, sizes: Sizes) -> jax.Array:
    """Take maxima over the bins of `adaptive_avg_pool`.

    The gradient goes to the first of equal maxima in row-major order. NaN counts as the maximum.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        sizes: number of bins for each spatial axis; may exceed the axis.

    Returns:
        `(batch, *sizes, channels)`, of the dtype of `x`.

    >>> print(adaptive_max_pool(jnp.array([3.0, 1, 2]).reshape(1, 3, 1), (2,)).ravel())
    [3. 2.]
    """
    # The last axis first: of each row the first maximum, then of all rows the first, as in row-major order.
    for axis in range(len(sizes), 0, -1):
        n, bins = x.shape[axis], sizes[axis - 1]
        if n == bins:
            continue
        starts, ends = _bin_edges(n, bins)
        if n % bins == 0:
            elements = x.reshape(*x.shape[:axis], bins, n // bins, *x.shape[axis + 1 :])
        elif bins <= MAX_SLICES:
            slices = [lax.slice_in_dim(x, start, end, axis=axis) for start, end in zip(starts, ends)]
            x = jnp.stack([max_along(each, axis) for each in slices], axis)
            continue
        else:
            # (bins, longest): a shorter bin repeats its last position, which is not the first of equal maxima.
            positions = np.minimum(starts[:, None] + np.arange((ends - starts).max()), ends[:, None] - 1)
            elements = jnp.take(x, positions, axis, mode="clip")
        # (…, bins, elements, …)
        x = max_along(elements, axis + 1)
    return x


def window_counts(
    spatial: Sizes, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, counted: Pairs | None = None
) -> list[np.ndarray]:
    """Return, for each axis, how many elements of each window are inside, or up to `counted` beyond its ends.

    >>> window_counts((4,), (3,), (2,), ((1, 1),), (1,))
    [array([2, 3])]
    """
    out = out_sizes(spatial, window, stride, padding, dilation)
    beyond = counted or ((0, 0),) * len(spatial)
    counts = []
    for n, size, step, pair, spread, m, (low, high) in zip(spatial, window, stride, padding, dilation, out, beyond):
        # (windows, elements)
        positions = step * np.arange(m)[:, None] - pair[0] + spread * np.arange(size)[None, :]
        counts.append(((positions >= -low) & (positions < n + high)).sum(1))
    return counts


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def _passes(window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> list[Windows]:
    """Return the windows of each pass over the array."""
    if math.prod(window) <= MAX_WHOLE and max(window) <= MAX_SLICES:
        return [Windows(window, stride, padding, dilation)]
    rank, passes = len(window), []
    # The last axis first: of each row the first maximum, then of all rows the first, as in row-major order.
    for axis in reversed(range(rank)):
        size, step, spread = (
            (1,) * axis + (own[axis],) + (1,) * (rank - axis - 1) for own in (window, stride, dilation)
        )
        pairs = tuple(pair if k == axis else (0, 0) for k, pair in enumerate(padding))
        passes.append(Windows(size, step, pairs, spread))
    return passes


def _is_long(windows: Windows) -> bool:
    """Tell whether to use `_reduce_window`, as one slice per element compiles slowly; it can't dilate windows."""
    return (is_plain() or max(windows.size) > MAX_SLICES) and set(windows.dilation) == {1}


def _reduce_window(x: jax.Array, windows: Windows, initial: float, reduce: Callable) -> jax.Array:
    sizes, strides = ((1, *each, 1) for each in (windows.size, windows.stride))
    padding = ((0, 0), *windows.padding, (0, 0))
    return lax.reduce_window(x, np.asarray(initial, x.dtype), reduce, sizes, strides, padding)


def _bin_weights(n: int, bins: int) -> np.ndarray:
    """Return the matrix `(n, bins)` that takes the mean of each bin."""
    (starts, ends), position = _bin_edges(n, bins), np.arange(n)[:, None]
    inside = (position >= starts) & (position < ends)
    return inside / inside.sum(0, keepdims=True)


def _bin_edges(n: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each bin starts, and where it ends, ⌊i n / k⌋ and ⌈(i + 1) n / k⌉."""
    index = np.arange(bins)
    return index * n // bins, -(-(index + 1) * n // bins)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum(x: jax.Array, windows: Windows) -> jax.Array:
    return functools.reduce(operator.add, window_elements(x, windows, 0.0))


@_sum.defjvp
def _(windows: Windows, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    return _sum(*primals, windows), window_sum(*tangents, windows)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _maximum(x: jax.Array, windows: Windows) -> jax.Array:
    """Return the maximum of each window, `(batch, *out, channels)`; −∞ outside."""
    return functools.reduce(jnp.maximum, window_elements(x, windows, -np.inf))


@_maximum.defjvp
def _(windows: Windows, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    # The backward pass compares indices again, which is cheaper than a mask for every element as a residual.
    linear = jax.checkpoint(lambda dx, choice: window_sum(dx, windows, choice), prevent_cse=False)
    choice = _argmax(x, windows, margins(x.shape[1:-1], windows))
    return _maximum(x, windows), linear(dx, lax.optimization_barrier(choice))


def _argmax(x: jax.Array, windows: Windows, edges: Pairs, axis: int = 1) -> jax.Array:
    """Return the index of the first maximum in each window, surrounded by `edges` of `NO_WINDOW`.

    Along each axis, windows that extend over an end are handled separately, so that only their input is padded: XLA
    computes the comparisons ten times slower if padding is fused with them.
    """
    if axis == x.ndim - 1:
        return _first_index(window_elements(x, windows, -np.inf))
    n, m, (low, high) = x.shape[axis], windows.out(x.shape[1:-1])[axis - 1], edges[axis - 1]
    stride, before = windows.stride[axis - 1], windows.padding[axis - 1][0]
    reach, parts = windows.dilation[axis - 1] * (windows.size[axis - 1] - 1) + 1, []
    # Windows from `first` to before `last` are inside the array.
    first = min(-(-before // stride), m)
    last = max(first, min(m, (n - reach + before) // stride + 1))
    unpadded = windows._replace(padding=tuple((0, 0) if k == axis - 1 else p for k, p in enumerate(windows.padding)))
    # Windows that start before the array, those inside it, and those that extend over its end.
    for start, stop in ((0, first), (first, last), (last, m)):
        if start == stop:
            continue
        # The part that these windows read, and how far it extends over the ends.
        begin, end = start * stride - before, (stop - 1) * stride - before + reach
        seen = lax.slice_in_dim(x, min(max(0, begin), n), max(0, min(n, end)), 1, axis)
        over = (min(max(0, -begin), end - begin), min(max(0, end - n), end - begin))
        seen = pad(seen, [over if k == axis else (0, 0) for k in range(x.ndim)], -np.inf)
        # The windows' padding along this axis is now part of `seen`.
        parts.append(_argmax(seen, unpadded, edges, axis + 1))
    # Join the parts, and add the margins along this axis, or crop where these are negative.
    ends = [
        [jnp.full((*parts[0].shape[:axis], more, *parts[0].shape[axis + 1 :]), NO_WINDOW, parts[0].dtype)]
        if more > 0
        else []
        for more in (low, high)
    ]
    whole = lax.concatenate([*ends[0], *parts, *ends[1]], axis)
    return lax.slice_in_dim(whole, max(0, -low), whole.shape[axis] - max(0, -high), 1, axis)


def _first_index(elements: list[jax.Array]) -> jax.Array:
    """Return the index of the first maximum, where the first NaN counts as such."""
    # A running maximum, instead of a search for the elements that equal it: XLA recomputes the elements here, after a
    # batch norm possibly with other rounding, and then none may equal a maximum computed elsewhere.
    integer = np.min_scalar_type(-len(elements)).type
    largest, choice = elements[0], jnp.zeros(elements[0].shape, integer)
    for index, element in enumerate(elements[1:], start=1):
        # True unless the element is at most the largest so far, or that is NaN. So NaN replaces a number.
        replaces = ~((element <= largest) | (largest != largest))
        largest, choice = jnp.where(replaces, element, largest), jnp.where(replaces, integer(index), choice)
    # This remainder changes nothing, but XLA considers it expensive, and so does not recompute the index per position.
    return lax.rem(choice, integer(np.iinfo(integer).max)) if choice.shape[-1] < FEW_CHANNELS else choice
