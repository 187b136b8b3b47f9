"""Pooling of channels-last arrays, one spatial axis after another: a window's maximum or sum is separable."""

import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.ops.geometry import Pairs, Sizes, out_sizes

SLICES_LIMIT = 8
"""Up to which window size a pool is computed from one slice for each element of the window.

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
    axes = zip(window, stride, padding, dilation, strict=True)
    # The last axis first: so each row keeps its first maximum, and the first such row wins.
    for axis, (size, step, pair, spread) in reversed(list(enumerate(axes, start=1))):
        x = _pad(x, axis, pair, -jnp.inf)
        if size > SLICES_LIMIT and spread == 1:
            x = _reduce_window(x, axis, size, step, -jnp.inf, lax.max)
        else:
            x = functools.reduce(_first_maximum, _elements(x, axis, size, step, spread))
    return x


@functools.partial(jax.jit, static_argnames=("window", "stride", "padding", "counted"))
def avg_pool(x: jax.Array, window: Sizes, stride: Sizes, padding: Pairs, counted: Pairs | None = None) -> jax.Array:
    """Take the mean over each window: the sum of what lies in it divided by how many places count.

    Sums are taken in float32 for narrower input.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        window: sizes of the window.
        stride: steps between windows.
        padding: how far windows reach over the edges, before and after each spatial axis, over zeros.
        counted: how far over the edges places count in the mean; none of them if not given.

    Returns:
        `(batch, *out, channels)`, of the dtype of `x`.

    >>> print(avg_pool(jnp.array([3.0, 1, 2, 5]).reshape(1, 4, 1), (2,), (2,), ((0, 0),)).ravel())
    [2.  3.5]
    """
    ones, spatial = (1,) * len(window), x.shape[1:-1]
    out = out_sizes(spatial, window, stride, padding, ones)
    y = _widen(x)
    for axis, (size, step, pair) in enumerate(zip(window, stride, padding, strict=True), start=1):
        y = _pad(y, axis, pair, 0.0)
        if size > SLICES_LIMIT:
            y = _reduce_window(y, axis, size, step, 0.0, lax.add)
        else:
            y = functools.reduce(operator.add, _elements(y, axis, size, step, 1))
    counts = window_counts(spatial, window, stride, padding, ones, counted)
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


def _first_maximum(best: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.where((best >= new) | jnp.isnan(best), best, new)


def _elements(x: jax.Array, axis: int, size: int, stride: int, dilation: int) -> list[jax.Array]:
    """Return the first elements of all windows along an axis, the second ones, and so on."""
    (n,) = out_sizes((x.shape[axis],), (size,), (stride,), ((0, 0),), (dilation,))
    if stride == size and dilation == 1:  # the windows tile the axis
        tiles = lax.slice_in_dim(x, 0, n * size, axis=axis).reshape(*x.shape[:axis], n, size, *x.shape[axis + 1 :])
        return [lax.index_in_dim(tiles, place, axis + 1, keepdims=False) for place in range(size)]
    starts = range(0, size * dilation, dilation)
    return [lax.slice_in_dim(x, start, start + (n - 1) * stride + 1, stride, axis) for start in starts]


def _reduce_window(x: jax.Array, axis: int, size: int, stride: int, initial: float, reduce: Callable) -> jax.Array:
    sizes, strides = [1] * x.ndim, [1] * x.ndim
    sizes[axis], strides[axis] = size, stride
    return lax.reduce_window(x, np.asarray(initial, x.dtype), reduce, sizes, strides, "VALID")


def _pad(x: jax.Array, axis: int, pair: tuple[int, int], value: float) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = pair
    return jnp.pad(x, widths, constant_values=value) if any(pair) else x


def _averages(n: int, bins: int) -> np.ndarray:
    """Return the matrix `(n, bins)` that takes the mean of each bin."""
    bin_, place = np.arange(bins)[None, :], np.arange(n)[:, None]
    inside = (place >= bin_ * n // bins) & (place < -(-(bin_ + 1) * n // bins))
    return inside / inside.sum(0, keepdims=True)
