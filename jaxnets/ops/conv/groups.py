"""A convolution in groups, and both its gradients, as a loop over the groups, each of them an ordinary convolution.

XLA's own takes up to ten times as long on CPU. Groups of few channels would be thin products: as many are taken
together as have `CHANNELS` channels, their kernels between zeros,

    [y₀ y₁] = [x₀ x₁] ∗ [w₀ 0; 0 w₁]

which multiplies zeros, and wins. In the gradient by the kernel what stands in the place of zeros is left out.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.geometry import Geometry

CHANNELS = 16
"""How many channels what is computed at once has at least, where there are as many."""


def one(geometry: Geometry) -> Geometry:
    """Return the geometry of what is computed at once."""
    g, count = geometry, left(geometry)
    return replace(g, groups=1, channels=g.channels // count, features=g.features // count)


def left(geometry: Geometry) -> int:
    """Return how many groups are left when thin ones are taken together."""
    g = geometry
    return max(n for n in range(1, g.groups + 1) if g.groups % n == 0 and (g.channels >= n * CHANNELS or n == 1))


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry, compute: Callable[..., jax.Array]) -> jax.Array:
    """Return y, `(batch, *out, features)`, by the ordinary convolution `compute` of `one(geometry)`; so `to_input`."""
    count = left(geometry)
    return _joined(lax.map(lambda pair: compute(*pair), (_split(x, count), _split(_widened(kernel, geometry), count))))


to_input = forward


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry, compute: Callable[..., jax.Array]) -> jax.Array:
    """Return the gradient by the kernel."""
    count = left(geometry)
    wide = _joined(lax.map(lambda pair: compute(*pair), (_split(x, count), _split(dy, count))))
    kernel = jax.ShapeDtypeStruct(geometry.kernel, wide.dtype)
    return jax.linear_transpose(lambda kernel: _widened(kernel, geometry), kernel)(wide)[0]


def _split(x: jax.Array, count: int) -> jax.Array:
    """Return the groups of the last axis as the first."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], count, -1), -2, 0)


def _joined(x: jax.Array) -> jax.Array:
    """Return the first axis as groups of the last."""
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def _widened(kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel, `(*window, channels at once, features)`, with zeros where a channel is another group's."""
    count = left(geometry)
    together = geometry.groups // count
    if together == 1:
        return kernel
    *window, channels, features = kernel.shape
    apart = kernel.reshape(*window, 1, channels, count, together, -1)
    own = jnp.eye(together, dtype=bool)[:, None, None, :, None]
    return jnp.where(own, apart, jnp.zeros((), kernel.dtype)).reshape(*window, together * channels, features)
