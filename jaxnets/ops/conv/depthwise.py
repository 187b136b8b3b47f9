"""Depthwise convolution and both its gradients as sums over the elements of the window.

y[i, c, m] = Σ_j x[i·stride + j·dilation − padding, c] w[j, c, m]
"""

import jax
import jax.numpy as jnp

from jaxnets.ops.geometry import Geometry, padded, places, under


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    g, y = geometry, None
    for part, element in zip(_seen(x, g), _elements(kernel, g), strict=True):
        y = part[..., None] * element if y is None else y + part[..., None] * element
    assert y is not None
    return y.reshape(len(x), *g.out, g.features)


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the gradient by the input."""
    x = jax.ShapeDtypeStruct((len(dy), *geometry.spatial, geometry.channels), dy.dtype)
    return jax.linear_transpose(lambda x: forward(x, kernel, geometry), x)(dy)[0]


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the gradient by the kernel."""
    g = geometry
    split = dy.reshape(*dy.shape[:-1], g.channels, -1)
    over = tuple(range(dy.ndim - 1))
    return jnp.stack([jnp.sum(part[..., None] * split, over) for part in _seen(x, g)]).reshape(g.kernel)


def _seen(x: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """Return the input under each element of the window, `(batch, *out, channels)`."""
    x = padded(x, geometry)
    return [under(x, geometry, place) for place in places(geometry.window)]


def _elements(kernel: jax.Array, geometry: Geometry) -> jax.Array:
    ones = (1,) * (len(geometry.window) + 1)  # broadcast over batch and places
    return kernel.reshape(-1, *ones, geometry.channels, geometry.features // geometry.channels)
