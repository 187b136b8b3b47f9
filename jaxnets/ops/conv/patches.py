"""Convolution and both its gradients as one matrix product each, of patches of the input and the kernel.

A patch for each place of the output holds what its window sees; times the kernel as a matrix it gives the features
there. With few channels that matrix has too few columns for a fast product, and the patches repeat each input as
often as the window is wide. So one patch may serve `block` neighboring places of the last axis at once. The matrix
then has the kernel once for each of them, shifted and between zeros:

    [y₀ y₁] = [x₀ x₁ x₂ x₃] · [w₀ 0; w₁ w₀; w₂ w₁; 0 w₂]    (a window of 3, a block of 2)

It multiplies zeros, and still wins: LeNet-5's first convolution is 3 to 4 times as fast with a block of 4.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.geometry import Geometry, padded, places, under


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry, block: int = 1) -> jax.Array:
    """Return y, `(batch, *out, features)`; `block` divides the last size of the output."""
    patches = cut(x, geometry, block)
    return jnp.matmul(patches, _matrix(kernel, geometry, block)).reshape(len(x), *geometry.out, geometry.features)


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry, block: int = 1) -> jax.Array:
    """Return the gradient by the input: each patch's gradient, added up where patches overlap."""
    g = geometry
    x = jax.ShapeDtypeStruct((len(dy), *g.spatial, g.channels), dy.dtype)
    grouped = dy.reshape(len(dy), *g.out[:-1], g.out[-1] // block, block * g.features)
    patches = jnp.matmul(grouped, _matrix(kernel, g, block).T)
    return jax.linear_transpose(lambda x: cut(x, g, block), x)(patches)[0]


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry, block: int = 1) -> jax.Array:
    """Return the gradient by the kernel: that of the matrix, with the shifted copies added up."""
    g = geometry
    patches = cut(x, g, block)
    columns = dy.reshape(-1, block * g.features)
    matrix = lax.dot_general(patches.reshape(-1, patches.shape[-1]), columns, (((0,), (0,)), ((), ())))
    kernel = jax.ShapeDtypeStruct(g.kernel, dy.dtype)
    return jax.linear_transpose(lambda kernel: _matrix(kernel, g, block), kernel)(matrix)[0]


def cut(x: jax.Array, geometry: Geometry, block: int = 1) -> jax.Array:
    """Return the patches, `(batch, *out, elements)` with the last size divided by `block`."""
    g, x = geometry, padded(x, geometry)
    if block == 1:
        return jnp.concatenate([under(x, g, place) for place in places(g.window)], -1)
    # The last axis in pieces of as many columns as lie between blocks: a block sees its own piece and some that follow.
    step, count, width = block * g.stride[-1], g.out[-1] // block, reach(g, block)
    pieces = -(-width // step)
    spare = (count + pieces - 1) * step - x.shape[-2]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, spare * (axis == x.ndim - 2), 0) for axis in range(x.ndim)])
    x = x.reshape(*x.shape[:-2], -1, step * g.channels)
    parts = []
    for place in places(g.window[:-1]):
        rows = under(x, g, place)
        for piece in range(pieces):
            parts.append(rows[..., piece : piece + count, : (width - piece * step) * g.channels])
    return jnp.concatenate(parts, -1)


def written(geometry: Geometry, block: int = 1) -> int:
    """Return how many numbers the patches of one example are."""
    g = geometry
    width = g.window[-1] if block == 1 else reach(g, block)
    return math.prod(g.out) // block * math.prod(g.window[:-1]) * width * g.channels


def reach(geometry: Geometry, block: int) -> int:
    """Return how many columns the windows of a block see."""
    return (block - 1) * geometry.stride[-1] + geometry.reach[-1]


def _matrix(kernel: jax.Array, geometry: Geometry, block: int) -> jax.Array:
    """Return the kernel as a matrix, `(elements, block · features)`."""
    g = geometry
    if block == 1:
        return kernel.reshape(-1, g.features)
    width, zero = reach(g, block), jnp.zeros((), kernel.dtype)
    shifted = []
    for place in range(block):
        low = place * g.stride[-1]
        edges = [(0, 0, 0)] * kernel.ndim
        edges[-3] = (low, width - low - g.reach[-1], g.dilation[-1] - 1)
        shifted.append(lax.pad(kernel, zero, edges))
    elements = math.prod(g.window[:-1]) * width * g.channels
    return jnp.stack(shifted, -2).reshape(elements, block * g.features)
