"""Convolution and its gradients as one matrix product each, of patches of the input and the kernel.

The patch of an output position holds the input under its window. Multiplied by the kernel as a matrix, it gives the
features there. Few features are too few columns for a fast product, and patches repeat each input once per element of
the window. So with few channels, a `block` of neighboring positions along the last axis may share one patch. The matrix
then holds one shifted copy of the kernel for each of them, between zeros:

    [y₀ y₁] = [x₀ x₁ x₂ x₃] · [w₀ 0; w₁ w₀; w₂ w₁; 0 w₂]    (a window of 3, a block of 2)

This multiplies by zeros, but is still faster: LeNet-5's first convolution is 3 to 4 times as fast with a block of 4.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.conv import phases
from jaxnets.ops.geometry import Geometry, elements, padded, under

FAST_COLUMNS = 24
"""Columns that a matrix needs for a product at full speed."""

FEW_CHANNELS = 8
"""With at most this many channels, patches are faster than XLA's own convolution."""


def applies(map_: str, geometry: Geometry) -> bool:
    """Return whether this formulation can compute a map of this geometry."""
    return geometry.groups == 1


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    # (batch, *out[:-1], blocks, elements)
    patches = cut(x, geometry)
    return jnp.matmul(patches, _matrix(kernel, geometry)).reshape(x.shape[0], *geometry.out, geometry.features)


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input gradient: the gradient of each patch, added up where patches overlap."""
    g, size = geometry, block(geometry)
    # Anything but windows at every position is computed phase by phase.
    if not g.unit_stride:
        return phases.to_input(dy, kernel, g)
    x = jax.ShapeDtypeStruct((dy.shape[0], *g.spatial, g.channels), dy.dtype)
    # (batch, *out[:-1], blocks, block · features)
    grouped = dy.reshape(dy.shape[0], *g.out[:-1], g.out[-1] // size, size * g.features)
    patches = jnp.matmul(grouped, _matrix(kernel, g).T)
    # The transpose of `cut` adds up the patches where they overlap.
    return jax.linear_transpose(lambda x: cut(x, g), x)(patches)[0]


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel gradient: that of the matrix, with the shifted copies added up."""
    g = geometry
    patches = cut(x, g)
    columns = dy.reshape(-1, block(g) * g.features)
    # (elements, block · features), summed over batch and positions
    matrix = lax.dot_general(patches.reshape(-1, patches.shape[-1]), columns, (((0,), (0,)), ((), ())))
    kernel = jax.ShapeDtypeStruct(g.kernel, dy.dtype)
    # The transpose of `_matrix` adds up the shifted copies of the kernel.
    return jax.linear_transpose(lambda kernel: _matrix(kernel, g), kernel)(matrix)[0]


def cut(x: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the patches, `(batch, *out, elements)`, with the last size of `out` divided by that of a block."""
    g, x, size = geometry, padded(x, geometry), block(geometry)
    if size == 1:
        return jnp.concatenate([under(x, g, element) for element in elements(g.window)], -1)
    # Split the last axis into pieces as long as the step between blocks: a block reads its own piece and some of the
    # next ones, so its patch is a concatenation of contiguous pieces.
    step, count, width = size * g.stride[-1], g.out[-1] // size, reach(g, size)
    # How many pieces one block reads, the last one in part.
    pieces = -(-width // step)
    # Zeros up to the last piece of the last block; negative, which crops, if windows end before the array does.
    missing = (count + pieces - 1) * step - x.shape[-2]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, missing * (axis == x.ndim - 2), 0) for axis in range(x.ndim)])
    # (batch, *padded[:-1], pieces, step · channels)
    x = x.reshape(*x.shape[:-2], -1, step * g.channels)
    parts = []
    for element in elements(g.window[:-1]):
        # (batch, *out[:-1], pieces, step · channels)
        rows = under(x, g, element)
        for piece in range(pieces):
            # Blocks start at consecutive pieces; the slice at the end crops the last piece of each block to its width.
            parts.append(rows[..., piece : piece + count, : (width - piece * step) * g.channels])
    return jnp.concatenate(parts, -1)


def written(map_: str, geometry: Geometry) -> int:
    """Return how many numbers the patches of one example hold."""
    g, size = geometry, block(geometry)
    if map_ == "to_input":
        return 0 if g.unit_stride else phases.written(g)
    width = g.window[-1] if size == 1 else reach(g, size)
    return math.prod(g.out) // size * math.prod(g.window[:-1]) * width * g.channels


def block(geometry: Geometry) -> int:
    """Return how many neighboring positions share one patch; 1 with more than `FEW_CHANNELS` channels.

    It is the smallest block above 1 whose matrix has `FAST_COLUMNS` columns, or the largest block if none has.
    """
    g = geometry
    if g.channels > FEW_CHANNELS:
        return 1
    # Blocks must tile the output, and their windows must overlap.
    blocks = [b for b in range(1, g.out[-1] + 1) if g.out[-1] % b == 0 and (b - 1) * g.stride[-1] < g.reach[-1]]
    # The matrix of a block has block · features columns.
    return next((b for b in blocks if b > 1 and b * g.features >= FAST_COLUMNS), blocks[-1])


def reach(geometry: Geometry, block: int) -> int:
    """Return how many columns the windows of a block cover."""
    return (block - 1) * geometry.stride[-1] + geometry.reach[-1]


def _matrix(kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel as a matrix, `(elements, block · features)`."""
    g, size = geometry, block(geometry)
    if size == 1:
        return kernel.reshape(-1, g.features)
    width, zero = reach(g, size), jnp.zeros((), kernel.dtype)
    shifted = []
    for position in range(size):
        # Zeros before and after each copy, and between its elements where the window is dilated.
        low = position * g.stride[-1]
        edges = [(0, 0, 0)] * kernel.ndim
        edges[-3] = (low, width - low - g.reach[-1], g.dilation[-1] - 1)
        # (*window[:-1], width, channels, features)
        shifted.append(lax.pad(kernel, zero, edges))
    rows = math.prod(g.window[:-1]) * width * g.channels
    return jnp.stack(shifted, -2).reshape(rows, size * g.features)
