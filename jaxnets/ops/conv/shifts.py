"""Convolution at every place, and its kernel's gradient, with half the patches: the last axis cut, the others shifted.

Patches repeat the input once for each element of the window. Here only the last axis is cut into patches, by a matrix
product with the whole kernel; that gives what each place adds to the outputs along the other axes, which are shifted to
each other and added up:

    y[i, j] = Σ_a z_a[i + a, j],    z_a[i, j] = Σ_{b, c} x[i, j + b, c] w[a, b, c]
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.geometry import Geometry, padded, places, under


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    g, rows = geometry, math.prod(geometry.window[:-1])
    patches = cut(x, g)
    matrix = jnp.moveaxis(kernel.reshape(rows, -1, g.features), 0, 1).reshape(-1, rows * g.features)
    added = jnp.matmul(patches, matrix)
    added = added.reshape(*added.shape[:-1], rows, g.features)
    y = None
    for row, place in enumerate(places(g.window[:-1])):
        part = under(added[..., row, :], g, place)
        y = part if y is None else y + part
    assert y is not None
    return y


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the gradient by the kernel: a product of the same patches with `dy`, once for each shift."""
    g = geometry
    patches, zero = cut(x, g), jnp.zeros((), dy.dtype)
    shifted = []
    for place in places(g.window[:-1]):
        sizes = zip(patches.shape[1:-2], g.out, place, g.dilation)
        edges = [(element * d, n - out - element * d, 0) for n, out, element, d in sizes]
        shifted.append(lax.pad(dy, zero, ((0, 0, 0), *edges, (0, 0, 0), (0, 0, 0))))
    columns = jnp.concatenate(shifted, -1)
    made = lax.dot_general(
        patches.reshape(-1, patches.shape[-1]), columns.reshape(-1, columns.shape[-1]), (((0,), (0,)), ((), ()))
    )
    return jnp.moveaxis(made.reshape(-1, len(shifted), g.features), 1, 0).reshape(g.kernel)


def cut(x: jax.Array, geometry: Geometry) -> jax.Array:
    """Return what windows along the last axis see, `(batch, *padded, out, window · channels)`."""
    g, x = geometry, padded(x, geometry)
    begin = range(0, g.reach[-1], g.dilation[-1])
    return jnp.concatenate([lax.slice_in_dim(x, start, start + g.out[-1], 1, x.ndim - 2) for start in begin], -1)


def written(geometry: Geometry) -> int:
    """Return how many numbers the patches of one example, and what is shifted, are."""
    g = geometry
    tall = math.prod(n + sum(pair) for n, pair in zip(g.spatial[:-1], g.padding[:-1]))
    return tall * g.out[-1] * (g.window[-1] * g.channels + math.prod(g.window[:-1]) * g.features)
