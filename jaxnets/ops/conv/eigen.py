"""2-D convolution and its kernel gradient by XLA's Eigen kernel, which padded rows make XLA choose.

On CPU, XLA runs such a convolution with YNNPACK, which takes about twice as long as Eigen from about 32 channels on. No
option of an operation selects Eigen. But XLA does not use YNNPACK where the output or the kernel has more rows than the
input. So the convolution pads zero rows after the input until the output has more rows, and the surplus output rows are
dropped. In the kernel gradient `dy` is the kernel, and is padded instead. If a version of XLA chooses otherwise, the
result is the same.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.conv import native
from jaxnets.ops.geometry import Geometry, flipped

MIN_ROWS_PER_PAD = 8
"""At least this many output rows for each padded one."""


def applies(map_: str, geometry: Geometry) -> bool:
    """Return whether Eigen can compute a convolution and its kernel gradient with few padded rows."""
    g = geometry.transposed() if map_ == "to_input" and geometry.unit_stride else geometry
    if len(g.window) != 2 or not g.unit_stride or set(g.dilation) != {1}:
        return False
    # In the kernel gradient: rows of the padded dy, and columns of the padded x.
    rows, columns = g.out[0] + _padding_rows(g), g.spatial[1] + sum(g.padding[1])
    # There dy is the kernel. XLA swaps a kernel larger than its input with the input, which is slow.
    return MIN_ROWS_PER_PAD * _padding_rows(g) <= g.out[0] and rows * g.out[1] <= g.spatial[0] * columns


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    g, ((low, high), columns) = geometry, geometry.padding
    # (batch, height + surplus, width, features)
    y = native.convolve(x, kernel, g.stride, ((low, high + _padding_rows(g)), columns))
    return lax.slice_in_dim(y, 0, g.out[0], axis=1)


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input gradient, which is also such a convolution, with the flipped kernel."""
    return forward(dy, flipped(kernel), geometry.transposed())


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel gradient: a convolution of the input with `dy`, which sums over the batch."""
    g, ((low, high), columns) = geometry, geometry.padding
    # Columns are padded here; the convolution below pads only rows.
    x = jnp.pad(x, ((0, 0), (0, 0), columns, (0, 0)))
    dy = jnp.pad(dy, ((0, 0), (0, _padding_rows(g)), (0, 0), (0, 0)))
    # The batch replaces the channels: (channels, height, width, batch) and (height, width, batch, features).
    x, dy = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(dy, 0, -2)
    # (channels, *window, features) → (*window, channels, features)
    return jnp.moveaxis(native.convolve(x, dy, g.stride, ((low, high + _padding_rows(g)), (0, 0))), 0, -2)


def _padding_rows(geometry: Geometry) -> int:
    """Return how many rows to pad for the output to have more rows than the input."""
    return max(0, geometry.spatial[0] + 1 - geometry.out[0])
