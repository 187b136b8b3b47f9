"""Windows over the spatial axes of an array: the input under each element, and sums with a fast transpose.

If a sum over windows is written as one slice per element, reverse mode makes as many arrays of zeros, with the
cotangent spread over them. `window_sum` avoids that: each shift visits every position of the input once. Position
stride · i + a of an axis is element r of window i - u where

    dilation · r = a + padding + stride · u.

With an axis reshaped to a matrix over i and a, each of a few shifts u processes all positions at once: select, sum over
a, shift by u. The transpose repeats the shifted cotangent along a and selects, in a single pass that writes every
position once.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.ops.geometry import Pairs, Sizes, elements, out_sizes

NO_WINDOW = -2
"""Marks the margins of an array of chosen elements, where there is no window."""


class Windows(NamedTuple):
    """Size, stride, padding and dilation of windows, for each spatial axis."""

    size: Sizes
    stride: Sizes
    padding: Pairs
    dilation: Sizes

    def out(self, spatial: Sizes) -> Sizes:
        """Return how many windows there are along each axis."""
        return out_sizes(spatial, self.size, self.stride, self.padding, self.dilation)


def window_elements(x: jax.Array, windows: Windows, outside: float) -> list[jax.Array]:
    """Return the input under each element of the windows, in row-major order, each `(batch, *out, channels)`.

    Padding is added to each of these slices, not to `x`: XLA fuses it with the operations on them and never copies
    `x`.
    """
    out, seen = windows.out(x.shape[1:-1]), []
    for element in elements(windows.size):
        begin, end, edges = [0], [x.shape[0]], [(0, 0)]
        axes = zip(element, x.shape[1:-1], out, windows.stride, windows.padding, windows.dilation, strict=True)
        for index, n, m, stride, (low, _), dilation in axes:
            # Window q reads position stride · q + offset; windows first … last - 1 read one inside the array.
            offset = index * dilation - low
            first = min(max(0, -(offset // stride)), m)
            last = max(min(m, (n - 1 - offset) // stride + 1), first)
            begin.append(stride * first + offset if last > first else 0)
            end.append(stride * (last - 1) + offset + 1 if last > first else 0)
            edges.append((first, m - last))
        part = lax.slice(x, (*begin, 0), (*end, x.shape[-1]), (1, *windows.stride, 1))
        seen.append(pad(part, (*edges, (0, 0)), outside))
    return seen


def window_sum(x: jax.Array, windows: Windows, choice: jax.Array | None = None) -> jax.Array:
    """Return the sum over each window, or its chosen element; linear in `x`, with a fast transpose.

    Args:
        x: `(batch, *spatial, channels)`, zero outside.
        windows: the windows over the spatial axes.
        choice: the row-major index of an element for each window, surrounded by `margins` of `NO_WINDOW`.

    Returns:
        `(batch, *out, channels)`.
    """
    spatial, strides = x.shape[1:-1], windows.stride
    shifts, edges = [_shifts(*axis) for axis in zip(*windows, strict=True)], margins(spatial, windows)
    rows = [-(-n // stride) for n, stride in zip(spatial, strides, strict=True)]
    full = [m + low + high for m, (low, high) in zip(windows.out(spatial), edges, strict=True)]
    x = pad(x, [(0, 0), *((0, i * s - n) for i, s, n in zip(rows, strides, spatial, strict=True)), (0, 0)], 0)
    # Each spatial axis becomes two, i and a: (batch, i₁, a₁, i₂, a₂, …, channels).
    x = x.reshape(x.shape[0], *itertools.chain(*zip(rows, strides, strict=True)), x.shape[-1])
    phases = range(2, x.ndim - 1, 2)
    others = [axis for axis in range(x.ndim) if axis not in phases]
    total = None
    for us in itertools.product(*shifts):
        # The window element at positions a of each axis, (a₁, a₂, …).
        element = _row_major([axis[u] for axis, u in zip(shifts, us, strict=True)], windows.size)
        begin = [low - u for (low, _), u in zip(edges, us, strict=True)]
        end = [first + i for first, i in zip(begin, rows, strict=True)]
        selected = jnp.expand_dims(element >= 0, others)
        if choice is not None:
            chosen = lax.slice(choice, (0, *begin, 0), (choice.shape[0], *end, choice.shape[-1]))
            selected = jnp.expand_dims(chosen, phases) == jnp.expand_dims(element.astype(choice.dtype), others)
        part = x if choice is None and (element >= 0).all() else jnp.where(selected, x, jnp.zeros((), x.dtype))
        around = [(first, size - last) for first, last, size in zip(begin, end, full, strict=True)]
        part = pad(part.sum(tuple(phases)), [(0, 0), *around, (0, 0)], 0)
        total = part if total is None else total + part
    assert total is not None
    return pad(total, [(0, 0), *((-low, -high) for low, high in edges), (0, 0)], 0)


def margins(spatial: Sizes, windows: Windows) -> Pairs:
    """Return how far the range of i - u exceeds that of the windows, before and after, for each axis."""
    edges = []
    for n, m, size, stride, pair, dilation in zip(spatial, windows.out(spatial), *windows, strict=True):
        shifts = _shifts(size, stride, pair, dilation)
        edges.append((max(shifts), -(-n // stride) - min(shifts) - m))
    return tuple(edges)


def pad(x: jax.Array, edges: Sequence[tuple[int, int]], value: float) -> jax.Array:
    """Return an array padded before and after each axis, or cropped where a number is negative."""
    return lax.pad(x, np.asarray(value, x.dtype), [(*pair, 0) for pair in edges]) if any(map(any, edges)) else x


def _shifts(size: int, stride: int, pair: tuple[int, int], dilation: int) -> dict[int, np.ndarray]:
    """Return, for each shift u, the element of window i - u at positions a = 0, 1, …; -1 for none."""
    reach, found = dilation * (size - 1) + 1, {}
    for u in range(-((stride - 1 + pair[0]) // stride), (reach - 1 - pair[0]) // stride + 1):
        offset = np.arange(stride) + pair[0] + stride * u
        element = np.where((offset >= 0) & (offset < reach) & (offset % dilation == 0), offset // dilation, -1)
        if (element >= 0).any():
            found[u] = element
    return found


def _row_major(axes: Sequence[np.ndarray], size: Sizes) -> np.ndarray:
    """Return the row-major indices of elements, given their indices along each axis; -1 where one is -1."""
    index = np.zeros((), int)
    for own, n in zip(axes, size, strict=True):
        index = np.where((index[..., None] < 0) | (own < 0), -1, index[..., None] * n + own)
    return index
