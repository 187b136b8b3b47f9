"""A grouped convolution and its gradients as a loop over ordinary convolutions.

XLA's own grouped convolution takes up to ten times as long on CPU. Groups of few channels would make narrow matrix
products, so several groups are merged into one of at least `MIN_CHANNELS` channels, with zeros between their kernels:

    [y₀ y₁] = [x₀ x₁] ∗ [w₀ 0; 0 w₁]

This multiplies by zeros, but is still faster. The kernel gradient drops the entries in place of the zeros.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.geometry import Geometry

MIN_CHANNELS = 16
"""The fewest channels of one convolution of the loop, if the input has as many."""


def applies(map_: str, geometry: Geometry) -> bool:
    """Return whether this formulation can compute a map of this geometry."""
    return geometry.groups > 1


def per_product(geometry: Geometry) -> Geometry:
    """Return the geometry of one convolution of the loop."""
    g, count = geometry, merged_groups(geometry)
    return replace(g, groups=1, channels=g.channels // count, features=g.features // count)


def merged_groups(geometry: Geometry) -> int:
    """Return how many groups remain when groups of few channels are merged."""
    g = geometry
    # The most for which each has at least `MIN_CHANNELS` input channels, or a single one.
    return max(n for n in range(1, g.groups + 1) if g.groups % n == 0 and (g.channels >= n * MIN_CHANNELS or n == 1))


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry, compute: Callable[..., jax.Array]) -> jax.Array:
    """Return y, `(batch, *out, features)`; `compute` convolves arrays of geometry `per_product(geometry)`."""
    count = merged_groups(geometry)
    # x: (groups, batch, *spatial, channels / groups)
    # A loop, not `vmap`: XLA would turn a batch of convolutions into the slow grouped one.
    # Kernels: (groups, *window, merged channels, features / groups)
    return _joined(lax.map(lambda pair: compute(*pair), (_split(x, count), _split(_widened(kernel, geometry), count))))


# The input gradient is the same loop, with `compute` that of the input gradient.
to_input = forward


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry, compute: Callable[..., jax.Array]) -> jax.Array:
    """Return the kernel gradient."""
    count = merged_groups(geometry)
    # (*window, merged channels, features)
    wide = _joined(lax.map(lambda pair: compute(*pair), (_split(x, count), _split(dy, count))))
    kernel = jax.ShapeDtypeStruct(geometry.kernel, wide.dtype)
    # The transpose of `_widened` drops the entries between different groups.
    return jax.linear_transpose(lambda kernel: _widened(kernel, geometry), kernel)(wide)[0]


def _split(x: jax.Array, count: int) -> jax.Array:
    """Move the groups of the last axis to the front: `(groups, ..., channels / groups)`."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], count, -1), -2, 0)


def _joined(x: jax.Array) -> jax.Array:
    """Move groups at the front back into the last axis."""
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def _widened(kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel of merged groups, `(*window, merged channels, features)`, zero between different groups."""
    count = merged_groups(geometry)
    merged = geometry.groups // count
    if merged == 1:
        return kernel
    *window, channels, features = kernel.shape
    # (*window, input group, channels, merged groups, output group, features), of length 1 along the input group
    split = kernel.reshape(*window, 1, channels, count, merged, -1)
    # (input group, 1, 1, output group, 1)
    same_group = jnp.eye(merged, dtype=bool)[:, None, None, :, None]
    return jnp.where(same_group, split, jnp.zeros((), kernel.dtype)).reshape(*window, merged * channels, features)
