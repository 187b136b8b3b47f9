"""A 2-D convolution and both its gradients by Eigen, XLA's other routine on CPU.

XLA gives such a convolution to YNNPACK, which takes about twice as long as Eigen from some 32 channels on. No setting
of a single operation says which; but YNNPACK is not asked where the output or the kernel has more rows than the input.
So the input gets so many more rows of zeros at its end, and what they add to the output is cut off; in the gradient by
the kernel the cotangent is what slides, and gets rows of zeros. A few rows are computed in vain. Should a version of
XLA decide otherwise, the result is the same.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.conv import native
from jaxnets.ops.geometry import Geometry

SHARE = 8
"""At most one row in so many is computed in vain."""


def suits(geometry: Geometry) -> bool:
    """Tell whether a convolution, and its gradient by the kernel, are computed so, and with few rows in vain."""
    g = geometry
    if len(g.window) != 2 or not g.gathered or set(g.dilation) != {1}:
        return False
    rows, columns = g.out[0] + _more(g), g.spatial[1] + sum(g.padding[1])
    # XLA turns a kernel that is larger than its input into the input, and takes a slow routine.
    return SHARE * _more(g) <= g.out[0] and rows * g.out[1] <= g.spatial[0] * columns


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    g, ((low, high), columns) = geometry, geometry.padding
    y = native.convolve(x, kernel, g.stride, ((low, high + _more(g)), columns))
    return lax.slice_in_dim(y, 0, g.out[0], axis=1)


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the gradient by the kernel: the input convolved with `dy`, over the batch."""
    g, ((low, high), columns) = geometry, geometry.padding
    x = jnp.pad(x, ((0, 0), (0, 0), columns, (0, 0)))
    dy = jnp.pad(dy, ((0, 0), (0, _more(g)), (0, 0), (0, 0)))
    x, dy = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(dy, 0, -2)  # the batch is what is summed over
    return jnp.moveaxis(native.convolve(x, dy, g.stride, ((low, high + _more(g)), (0, 0))), 0, -2)


def _more(geometry: Geometry) -> int:
    """Return how many rows the output lacks to have more than the input."""
    return max(0, geometry.spatial[0] + 1 - geometry.out[0])
