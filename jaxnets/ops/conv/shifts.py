"""Convolution with windows at every position, and its kernel gradient: patches along one axis, shifts along the others.

Full patches repeat the input once for each element of the window. Here only the last axis is cut into patches. One
matrix product with the whole kernel gives what each position adds to the outputs along the other axes; these terms are
shifted and added:

    y[i, j] = Σ_a z_a[i + a, j],    z_a[i, j] = Σ_{b, c} x[i, j + b, c] w[a, b, c]
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.geometry import Geometry, elements, flipped, padded, under


def applies(map_: str, geometry: Geometry) -> bool:
    """Return whether it computes a map of this geometry."""
    return geometry.unit_stride


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    g, rows = geometry, math.prod(geometry.window[:-1])
    # (batch, *padded, out, last window size · channels)
    patches = cut(x, g)
    # (last window size · channels, rows · features)
    matrix = jnp.moveaxis(kernel.reshape(rows, -1, g.features), 0, 1).reshape(-1, rows * g.features)
    z = jnp.matmul(patches, matrix)
    # (batch, *padded, out, rows, features)
    z = z.reshape(*z.shape[:-1], rows, g.features)
    y = None
    for row, element in enumerate(elements(g.window[:-1])):
        # Rows of the window are its elements along all axes but the last: each adds a shifted slice.
        part = under(z[..., row, :], g, element)
        y = part if y is None else y + part
    assert y is not None
    return y


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input gradient, which is also such a convolution, with the flipped kernel."""
    return forward(dy, flipped(kernel), geometry.transposed())


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel gradient: one product of the same patches with all shifts of `dy`."""
    g = geometry
    patches, zero = cut(x, g), jnp.zeros((), dy.dtype)
    shifted = []
    for element in elements(g.window[:-1]):
        sizes = zip(patches.shape[1:-2], g.out, element, g.dilation)
        # dy at the padded positions that this row of the window reads: (batch, *padded, out, features)
        edges = [(index * d, n - out - index * d, 0) for n, out, index, d in sizes]
        shifted.append(lax.pad(dy, zero, ((0, 0, 0), *edges, (0, 0, 0), (0, 0, 0))))
    # (batch, *padded, out, rows · features)
    columns = jnp.concatenate(shifted, -1)
    # (last window size · channels, rows · features), summed over batch and positions
    dkernel = lax.dot_general(
        patches.reshape(-1, patches.shape[-1]), columns.reshape(-1, columns.shape[-1]), (((0,), (0,)), ((), ()))
    )
    return jnp.moveaxis(dkernel.reshape(-1, len(shifted), g.features), 1, 0).reshape(g.kernel)


def cut(x: jax.Array, geometry: Geometry) -> jax.Array:
    """Return patches along the last axis, `(batch, *padded, out, window · channels)`."""
    g, x = geometry, padded(x, geometry)
    starts = range(0, g.reach[-1], g.dilation[-1])
    return jnp.concatenate([lax.slice_in_dim(x, start, start + g.out[-1], 1, x.ndim - 2) for start in starts], -1)


def written(map_: str, geometry: Geometry) -> int:
    """Return how many numbers the patches of one example and the product with them hold."""
    g = geometry.transposed() if map_ == "to_input" else geometry
    rows = math.prod(n + sum(pair) for n, pair in zip(g.spatial[:-1], g.padding[:-1]))
    return rows * g.out[-1] * (g.window[-1] * g.channels + math.prod(g.window[:-1]) * g.features)
