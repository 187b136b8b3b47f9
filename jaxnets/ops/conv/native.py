"""Convolution and its gradients by XLA's own convolution, always of channels-last arrays.

JAX's gradients use other layouts. Outside loops XLA transposes them; inside `lax.scan` it does not, and uses its
slowest CPU routine, 10 to 60 times slower. In a single layout, the gradients are as fast in a loop as outside.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.geometry import Geometry


def applies(map_: str, geometry: Geometry) -> bool:
    """Return whether this formulation can compute a map of this geometry."""
    return True


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return y, `(batch, *out, features)`."""
    g = geometry
    return convolve(x, kernel, g.stride, g.padding, rhs_dilation=g.dilation, feature_group_count=g.groups)


def to_input(dy: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the input gradient: `dy`, dilated by the stride, convolved with the flipped kernel."""
    g = geometry
    # Exchange channels and features inside each group: (*window, features / groups, channels).
    split = jnp.flip(kernel, range(len(g.window))).reshape(
        *g.window, kernel.shape[-2], g.groups, g.features // g.groups
    )
    flipped = jnp.swapaxes(split, -3, -1).reshape(*g.window, g.features // g.groups, g.channels)
    # Padding that makes the output as long as x.
    padding = []
    for n, out, stride, reach, (low, _) in zip(g.spatial, g.out, g.stride, g.reach, g.padding):
        padding.append((reach - 1 - low, n + low - (out - 1) * stride - 1))
    return convolve(dy, flipped, (1,) * len(g.window), padding, g.stride, g.dilation, g.groups)


def to_kernel(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Return the kernel gradient: a convolution of the input with `dy`, which sums over the batch."""
    g = geometry
    # The batch replaces the channels as the axis that is summed over: x as (channels, *spatial, batch),
    # dy as (*out, batch, features).
    lhs, rhs = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(dy, 0, -2)
    # dy is a kernel dilated by the stride, and moves in steps of the dilation. Padding, which crops where it is
    # negative, makes the output as long as the window.
    padding = []
    for n, w, out, stride, d, (low, _) in zip(g.spatial, g.window, g.out, g.stride, g.dilation, g.padding):
        padding.append((low, (w - 1) * d + (out - 1) * stride + 1 - n - low))
    dkernel = convolve(lhs, rhs, g.dilation, padding, rhs_dilation=g.stride, batch_group_count=g.groups)
    # (channels / groups, *window, features) → (*window, channels / groups, features)
    return jnp.moveaxis(dkernel, 0, -2)


def convolve(
    x: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    feature_group_count: int = 1,
    **settings: Any,
) -> jax.Array:
    """Convolve channels-last arrays."""
    spatial = "DHW"[-len(stride) :]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(
        x, kernel, stride, padding, lhs_dilation, rhs_dilation, layout, feature_group_count, **settings
    )
