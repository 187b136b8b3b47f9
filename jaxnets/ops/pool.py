"""Pooling of channels-last arrays; large windows one axis after another, as maximum and sum are separable."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.ops.geometry import Pairs, Sizes, out_sizes
from jaxnets.ops.maxima import maxima
from jaxnets.ops.windows import Windows, summed, under

WHOLE_LIMIT = 9
"""Up to how many elements a window is taken as a whole: passes over memory are spared, and nothing written between."""

SLICES_LIMIT = 8
"""Up to which size one axis of a window is computed from one slice for each element.

Slices are far cheaper to differentiate than `reduce_window`, but compile time grows with their number.
"""


@functools.partial(jax.jit, static_argnames=("window", "stride", "padding", "dilation"))
def max_pool(x: jax.Array, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> jax.Array:
    """Take the maximum over each window; what lies in the padding counts as −∞.

    The gradient goes to the first of equal maxima in row-major order, PyTorch's rule. NaN counts as the maximum.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        window: sizes of the window.
        stride: steps between windows.
        padding: how far windows reach over the edges, before and after each spatial axis.
        dilation: steps between the elements of one window.

    Returns:
        `(batch, *out, channels)`, of the dtype of `x`.

    >>> print(max_pool(jnp.array([3.0, 1, 2, 5]).reshape(1, 4, 1), (2,), (2,), ((0, 0),), (1,)).ravel())
    [3. 5.]
    """
    for windows, size, spread in _passes(window, stride, padding, dilation):
        if size > SLICES_LIMIT and spread == 1:
            x = _reduce_window(x, windows, -jnp.inf, lax.max)
        else:
            x = maxima(x, windows)
    return x


@functools.partial(jax.jit, static_argnames=("window", "stride", "padding", "dilation", "counted"))
def avg_pool(
    x: jax.Array, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, counted: Pairs | None = None
) -> jax.Array:
    """Take the mean over each window: the sum of what lies in it divided by how many places count.

    Sums are taken in float32 for narrower input.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        window: sizes of the window.
        stride: steps between windows.
        padding: how far windows reach over the edges, before and after each spatial axis, over zeros.
        dilation: steps between the elements of one window.
        counted: how far over the edges places count in the mean; none of them if not given.

    Returns:
        `(batch, *out, channels)`, of the dtype of `x`.

    >>> print(avg_pool(jnp.array([3.0, 1, 2, 5]).reshape(1, 4, 1), (2,), (2,), ((0, 0),), (1,)).ravel())
    [2.  3.5]
    """
    spatial = x.shape[1:-1]
    out = out_sizes(spatial, window, stride, padding, dilation)
    y = _widen(x)
    for windows, size, spread in _passes(window, stride, padding, dilation):
        long = size > SLICES_LIMIT and spread == 1
        y = _reduce_window(y, windows, 0.0, lax.add) if long else _sums(y, windows)
    counts = window_counts(spatial, window, stride, padding, dilation, counted)
    if all(len(set(count)) == 1 for count in counts):
        return (y / math.prod(int(count[0]) for count in counts)).astype(x.dtype)
    grid = functools.reduce(np.multiply.outer, counts).reshape(1, *out, 1)
    return (y / jnp.asarray(grid, y.dtype)).astype(x.dtype)


@functools.partial(jax.jit, static_argnames=("sizes",))
def adaptive_avg_pool(x: jax.Array, sizes: Sizes) -> jax.Array:
    """Take means over nearly equal bins: bin i of k over n places reaches from ⌊i n / k⌋ to ⌈(i + 1) n / k⌉.

    Where the bins divide an axis they are tiles, whose mean is taken; else one product with a matrix of averages.
    Sums are taken in float32 for narrower input.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        sizes: how many bins for each spatial axis; may exceed the axis.

    Returns:
        `(batch, *sizes, channels)`, of the dtype of `x`.

    >>> print(adaptive_avg_pool(jnp.array([1.0, 2, 6]).reshape(1, 3, 1), (2,)).ravel())
    [1.5 4. ]
    """
    y = _widen(x)
    for axis, bins in enumerate(sizes, start=1):
        n = y.shape[axis]
        if n % bins == 0:
            y = y if n == bins else y.reshape(*y.shape[:axis], bins, n // bins, *y.shape[axis + 1 :]).mean(axis + 1)
            continue
        averages = jnp.asarray(_averages(n, bins), y.dtype)
        y = jnp.moveaxis(jnp.tensordot(y, averages, (axis, 0), precision="highest"), -1, axis)
    return y.astype(x.dtype)


def window_counts(
    spatial: Sizes, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, counted: Pairs | None = None
) -> list[np.ndarray]:
    """Return, for each axis, how many elements of each window lie on the axis, or up to `counted` beyond its ends.

    >>> window_counts((4,), (3,), (2,), ((1, 1),), (1,))
    [array([2, 3])]
    """
    out = out_sizes(spatial, window, stride, padding, dilation)
    beyond = counted or ((0, 0),) * len(spatial)
    counts = []
    for n, size, step, pair, spread, m, (low, high) in zip(spatial, window, stride, padding, dilation, out, beyond):
        places = step * np.arange(m)[:, None] - pair[0] + spread * np.arange(size)[None, :]
        counts.append(((places >= -low) & (places < n + high)).sum(1))
    return counts


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def _passes(window: Sizes, step: Sizes, padding: Pairs, spread: Sizes) -> list[tuple[Windows, int, int]]:
    """Return the windows of each pass over the array, the size of their longest axis, and its dilation.

    The last axis first: so each row keeps its first maximum, and the first such row wins.
    """
    whole = Windows(window, step, padding, spread)
    if math.prod(window) <= WHOLE_LIMIT and max(window) <= SLICES_LIMIT:
        return [(whole, max(window), 1)]
    rank, passes = len(window), []
    for axis in reversed(range(rank)):
        size, stride, dilation = (
            (1,) * axis + (own[axis],) + (1,) * (rank - axis - 1) for own in (window, step, spread)
        )
        beyond = tuple(pair if k == axis else (0, 0) for k, pair in enumerate(padding))
        passes.append((Windows(size, stride, beyond, dilation), window[axis], spread[axis]))
    return passes


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sums(x: jax.Array, windows: Windows) -> jax.Array:
    return functools.reduce(operator.add, under(x, windows, 0.0))


@_sums.defjvp
def _(windows: Windows, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    return _sums(*primals, windows), summed(*tangents, windows)


def _reduce_window(x: jax.Array, windows: Windows, initial: float, reduce: Callable) -> jax.Array:
    sizes, strides = ((1, *each, 1) for each in (windows.size, windows.stride))
    padding = ((0, 0), *windows.padding, (0, 0))
    return lax.reduce_window(x, np.asarray(initial, x.dtype), reduce, sizes, strides, padding)


def _averages(n: int, bins: int) -> np.ndarray:
    """Return the matrix `(n, bins)` that takes the mean of each bin."""
    bin_, place = np.arange(bins)[None, :], np.arange(n)[:, None]
    inside = (place >= bin_ * n // bins) & (place < -(-(bin_ + 1) * n // bins))
    return inside / inside.sum(0, keepdims=True)
