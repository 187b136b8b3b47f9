"""The input gradient of a strided convolution, which is a transposed convolution, phase by phase.

dx[i] = Σ_j dy[(i + low − j · dilation) / stride] w[j], over the j for which the division is exact. XLA inserts zeros
between the elements of `dy` and convolves them too. Here a single matrix product without zeros first multiplies every
`dy` by the whole kernel. With i = stride · q + r, element j of the window reads `dy` at
q + (r + low − j · dilation) / stride, so its offset from q is the same for all q. Each phase r is therefore a sum of
shifted slices of the product, and the phases are interleaved.
"""

import itertools
import math
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.geometry import Geometry

Taps = list[tuple[int, int]]  # the (window element, offset from q) pairs of one phase


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input gradient, `(batch, *spatial, channels)`."""
    g, axes = geometry, taps_of_phases(geometry)
    # Number of q along each axis, and the range of offsets from q.
    sizes = [-(-n // s) for n, s in zip(g.spatial, g.stride, strict=True)]
    low = [min((offset for taps in phases for _, offset in taps), default=0) for phases in axes]
    high = [max((offset for taps in phases for _, offset in taps), default=0) for phases in axes]

    products = jnp.matmul(dy, jnp.moveaxis(kernel, -1, 0).reshape(g.features, -1))
    # (batch, *out, *window, channels)
    products = products.reshape(*dy.shape[:-1], *g.window, g.channels)
    # Pad or crop to the positions that phases read, from `low` to q − 1 + `high`.
    edges = [(-a, q - 1 + b - (n - 1), 0) for a, b, q, n in zip(low, high, sizes, g.out, strict=True)]
    none = [(0, 0, 0)] * len(sizes)
    products = lax.pad(products, jnp.zeros((), dy.dtype), [(0, 0, 0), *edges, *none, (0, 0, 0)])

    def term(taps: tuple[tuple[int, int], ...]) -> jax.Array:
        """Return what one element of the window adds to a phase, `(batch, *q, channels)`."""
        # `products` begins at position `low`.
        starts = [offset - a for (_, offset), a in zip(taps, low, strict=True)]
        elements = [element for element, _ in taps]
        ends = [*(a + q for a, q in zip(starts, sizes)), *(element + 1 for element in elements)]
        part = lax.slice(products, (0, *starts, *elements, 0), (dy.shape[0], *ends, g.channels))
        return part.reshape(dy.shape[0], *sizes, g.channels)

    # A phase that no window reaches is zero.
    zeros = jnp.zeros((dy.shape[0], *sizes, g.channels), dy.dtype)
    phases = []
    for taps in itertools.product(*axes):
        terms = [term(each) for each in itertools.product(*taps)]
        phases.append(reduce(jnp.add, terms) if terms else zeros)

    # Interleave the phases of each axis, the last axis first, as it varies fastest in `phases`.
    for axis, stride in reversed([*enumerate(g.stride, start=1)]):
        groups = [phases[start : start + stride] for start in range(0, len(phases), stride)]
        phases = [group[0] if stride == 1 else jnp.stack(group, axis + 1) for group in groups]
        # (…, q, stride, …) → (…, q · stride, …)
        phases = [each.reshape(*each.shape[:axis], -1, *each.shape[axis + 1 + (stride > 1) :]) for each in phases]
    (dx,) = phases
    # q · stride may exceed the size of the input.
    return lax.slice(dx, (0,) * dy.ndim, (dy.shape[0], *g.spatial, g.channels))


def written(geometry: Geometry) -> int:
    """Return how many numbers the product of one example holds."""
    return math.prod(geometry.out) * math.prod(geometry.window) * geometry.channels


def taps_of_phases(geometry: Geometry) -> list[list[Taps]]:
    """Return the taps of each phase, for each axis."""
    g = geometry
    # The elements j for which the division is exact, with its result.
    return [
        [[(j, (r + low - j * d) // s) for j in range(w) if (r + low - j * d) % s == 0] for r in range(s)]
        for w, s, d, (low, _) in zip(g.window, g.stride, g.dilation, g.padding, strict=True)
    ]
