"""Windows over the spatial axes of an array: what each of their elements sees, and sums with a fast transpose.

A sum over windows, written as one slice for each element, turns in reverse mode into as many arrays of zeros with the
cotangent spread between them. `summed` is written from the other side. Place stride · i + a of an axis is seen by
window i - u as its element r where

    dilation · r = a + padding + stride · u.

So with an axis as a matrix of i and a, each of a few shifts u takes all places at once: choose, sum over a, move by u.
The transpose repeats the moved cotangent along a and chooses, in one pass that writes every place once.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.ops.geometry import Pairs, Sizes, out_sizes, places

NONE = -2
"""Stands in a choice where there is no window."""


class Windows(NamedTuple):
    """Sizes, steps between windows, places beyond the edges, and steps between elements, for each spatial axis."""

    size: Sizes
    stride: Sizes
    padding: Pairs
    dilation: Sizes

    def out(self, spatial: Sizes) -> Sizes:
        """Return how many windows there are along each axis."""
        return out_sizes(spatial, self.size, self.stride, self.padding, self.dilation)


def under(x: jax.Array, windows: Windows, outside: float) -> list[jax.Array]:
    """Return what each element of all windows sees, row-major, each `(batch, *out, channels)`.

    What lies outside is padded to each of them, not to `x`: XLA fuses that with what is made of them and never
    copies `x`.
    """
    out, seen = windows.out(x.shape[1:-1]), []
    for place in places(windows.size):
        begin, end, edges = [0], [x.shape[0]], [(0, 0)]
        grid = zip(place, x.shape[1:-1], out, windows.stride, windows.padding, windows.dilation, strict=True)
        for element, n, m, step, (low, _), spread in grid:
            offset = element * spread - low  # window q sees place step · q + offset
            first = min(max(0, -(offset // step)), m)
            last = max(min(m, (n - 1 - offset) // step + 1), first)
            begin.append(step * first + offset if last > first else 0)
            end.append(step * (last - 1) + offset + 1 if last > first else 0)
            edges.append((first, m - last))
        part = lax.slice(x, (*begin, 0), (*end, x.shape[-1]), (1, *windows.stride, 1))
        seen.append(pad(part, (*edges, (0, 0)), outside))
    return seen


def summed(x: jax.Array, windows: Windows, choice: jax.Array | None = None) -> jax.Array:
    """Return the sum over each window, or the one element of it that is chosen; linear in `x`, of fast transpose.

    Args:
        x: `(batch, *spatial, channels)`; zeros lie outside.
        windows: over the spatial axes.
        choice: the row-major number of an element for each window, and `NONE` for as many places around as `frame`
            says.

    Returns:
        `(batch, *out, channels)`.
    """
    spatial, step = x.shape[1:-1], windows.stride
    shifts, edges = [_shifts(*each) for each in zip(*windows, strict=True)], frame(spatial, windows)
    rows = [-(-n // a) for n, a in zip(spatial, step, strict=True)]
    full = [m + low + high for m, (low, high) in zip(windows.out(spatial), edges, strict=True)]
    x = pad(x, [(0, 0), *((0, i * a - n) for i, a, n in zip(rows, step, spatial, strict=True)), (0, 0)], 0)
    x = x.reshape(x.shape[0], *itertools.chain(*zip(rows, step, strict=True)), x.shape[-1])
    phases = range(2, x.ndim - 1, 2)
    others = [axis for axis in range(x.ndim) if axis not in phases]
    total = None
    for us in itertools.product(*shifts):
        element = _number([own[u] for own, u in zip(shifts, us, strict=True)], windows.size)
        begin = [low - u for (low, _), u in zip(edges, us, strict=True)]
        end = [first + i for first, i in zip(begin, rows, strict=True)]
        keep = jnp.expand_dims(element >= 0, others)
        if choice is not None:
            chosen = lax.slice(choice, (0, *begin, 0), (choice.shape[0], *end, choice.shape[-1]))
            keep = jnp.expand_dims(chosen, phases) == jnp.expand_dims(element.astype(choice.dtype), others)
        part = x if choice is None and (element >= 0).all() else jnp.where(keep, x, jnp.zeros((), x.dtype))
        around = [(first, size - last) for first, last, size in zip(begin, end, full, strict=True)]
        part = pad(part.sum(tuple(phases)), [(0, 0), *around, (0, 0)], 0)
        total = part if total is None else total + part
    assert total is not None
    return pad(total, [(0, 0), *((-low, -high) for low, high in edges), (0, 0)], 0)


def frame(spatial: Sizes, windows: Windows) -> Pairs:
    """Return how many more places than windows each axis has before and after it, that every i - u has one."""
    edges = []
    for n, m, size, step, pair, spread in zip(spatial, windows.out(spatial), *windows, strict=True):
        shifts = _shifts(size, step, pair, spread)
        edges.append((max(shifts), -(-n // step) - min(shifts) - m))
    return tuple(edges)


def pad(x: jax.Array, edges: Sequence[tuple[int, int]], value: float) -> jax.Array:
    """Return an array with more places before and after each axis, or with fewer for negative numbers."""
    return lax.pad(x, np.asarray(value, x.dtype), [(*pair, 0) for pair in edges]) if any(map(any, edges)) else x


def _shifts(size: int, stride: int, pair: tuple[int, int], dilation: int) -> dict[int, np.ndarray]:
    """Return, for each shift u, which element of window i - u the places a = 0, 1, … are; -1 for none."""
    reach, found = dilation * (size - 1) + 1, {}
    for u in range(-((stride - 1 + pair[0]) // stride), (reach - 1 - pair[0]) // stride + 1):
        offset = np.arange(stride) + pair[0] + stride * u
        element = np.where((offset >= 0) & (offset < reach) & (offset % dilation == 0), offset // dilation, -1)
        if (element >= 0).any():
            found[u] = element
    return found


def _number(axes: Sequence[np.ndarray], size: Sizes) -> np.ndarray:
    """Return the row-major numbers of elements, given their numbers along each axis; -1 where one is -1."""
    number = np.zeros((), int)
    for own, n in zip(axes, size, strict=True):
        number = np.where((number[..., None] < 0) | (own < 0), -1, number[..., None] * n + own)
    return number
