"""Depthwise convolution and its gradients as sums over the elements of the window.

y[i, c, m] = Σ_j x[i·stride + j·dilation − padding, c] w[j, c, m]

Each channel has its own kernel, so a matrix product has nothing to share; elementwise products fuse into one loop.
"""

import jax
import jax.numpy as jnp

from jaxnets.ops.geometry import Geometry, elements, padded, under


def applies(map_: str, geometry: Geometry) -> bool:
    """Return whether this formulation can compute a map of this geometry."""
    return geometry.groups == geometry.channels


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    g, slices, y = geometry, _slices(x, geometry), None
    # (elements, 1, *ones, channels, multiplier): broadcast over batch and positions
    weights = kernel.reshape(-1, *(1,) * (len(g.window) + 1), g.channels, g.features // g.channels)
    # (batch, *out, channels, multiplier)
    for part, weight in zip(slices, weights, strict=True):
        y = part[..., None] * weight if y is None else y + part[..., None] * weight
    assert y is not None
    return y.reshape(x.shape[0], *g.out, g.features)


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input gradient."""
    x = jax.ShapeDtypeStruct((dy.shape[0], *geometry.spatial, geometry.channels), dy.dtype)
    # y is linear in x, so JAX transposes `forward`.
    return jax.linear_transpose(lambda x: forward(x, kernel, geometry), x)(dy)[0]


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel gradient."""
    g = geometry
    # (batch, *out, channels, multiplier)
    split = dy.reshape(*dy.shape[:-1], g.channels, -1)
    positions = tuple(range(dy.ndim - 1))
    # Each slice of x times dy, summed over batch and positions: (elements, channels, multiplier)
    return jnp.stack([jnp.sum(part[..., None] * split, positions) for part in _slices(x, g)]).reshape(g.kernel)


def _slices(x: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """Return the input under each element of the window, `(batch, *out, channels)`."""
    x = padded(x, geometry)
    return [under(x, geometry, element) for element in elements(geometry.window)]
