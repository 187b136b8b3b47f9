"""The gradient by the input of a strided convolution, which is a transposed convolution, by phases.

dx[i] = Σ_j dy[(i + low − j · dilation) / stride] w[j], over the j for which the division leaves nothing. XLA spreads
`dy` by the stride and convolves the zeros in between. Here every `dy` is multiplied with the whole kernel first, one
matrix product without a number in vain. What it adds lies a fixed way off for all inputs that are `stride` apart: with
i = stride · q + r, the element j of the window takes `dy` at q + (r + low − j · dilation) / stride. So each phase r is
a sum of shifted slices, and the phases are stacked between each other.
"""

import itertools
import math
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.geometry import Geometry

Taps = list[tuple[int, int]]  # the elements of the window that inputs of one phase meet, and how far off from q


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the gradient by the input, `(batch, *spatial, channels)`."""
    g, axes = geometry, _phases(geometry)
    sizes = [-(-n // s) for n, s in zip(g.spatial, g.stride, strict=True)]
    low = [min((far for taps in phases for _, far in taps), default=0) for phases in axes]
    high = [max((far for taps in phases for _, far in taps), default=0) for phases in axes]

    added = jnp.matmul(dy, jnp.moveaxis(kernel, -1, 0).reshape(g.features, -1))
    added = added.reshape(*dy.shape[:-1], *g.window, g.channels)  # (batch, *out, *window, channels)
    edges = [(-a, q - 1 + b - (n - 1), 0) for a, b, q, n in zip(low, high, sizes, g.out, strict=True)]
    none = [(0, 0, 0)] * len(sizes)
    added = lax.pad(added, jnp.zeros((), dy.dtype), [(0, 0, 0), *edges, *none, (0, 0, 0)])

    def slice_of(place: tuple[tuple[int, int], ...]) -> jax.Array:
        """Return what one element of the window adds, `(batch, *q, channels)`."""
        starts = [far - a for (_, far), a in zip(place, low, strict=True)]
        elements = [element for element, _ in place]
        ends = [*(a + q for a, q in zip(starts, sizes)), *(element + 1 for element in elements)]
        part = lax.slice(added, (0, *starts, *elements, 0), (len(dy), *ends, g.channels))
        return part.reshape(len(dy), *sizes, g.channels)

    zeros = jnp.zeros((len(dy), *sizes, g.channels), dy.dtype)  # of a phase that no window reaches
    made = []
    for taps in itertools.product(*axes):
        parts = [slice_of(place) for place in itertools.product(*taps)]
        made.append(reduce(jnp.add, parts) if parts else zeros)
    for axis, stride in reversed([*enumerate(g.stride, start=1)]):
        groups = [made[start : start + stride] for start in range(0, len(made), stride)]
        made = [group[0] if stride == 1 else jnp.stack(group, axis + 1) for group in groups]
        made = [each.reshape(*each.shape[:axis], -1, *each.shape[axis + 1 + (stride > 1) :]) for each in made]
    (whole,) = made
    return lax.slice(whole, (0,) * dy.ndim, (len(dy), *g.spatial, g.channels))


def written(geometry: Geometry) -> int:
    """Return how many numbers the product of one example has."""
    return math.prod(geometry.out) * math.prod(geometry.window) * geometry.channels


def _phases(geometry: Geometry) -> list[list[Taps]]:
    """Return, for each axis and phase, the elements that inputs of the phase meet."""
    g = geometry
    return [
        [[(j, (r + low - j * d) // s) for j in range(w) if (r + low - j * d) % s == 0] for r in range(s)]
        for w, s, d, (low, _) in zip(g.window, g.stride, g.dilation, g.padding, strict=True)
    ]
