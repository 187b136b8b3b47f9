"""Convolution of channels-last arrays."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.conv.dispatch import Form, check_form
from jaxnets.ops.conv.primitives import bind
from jaxnets.ops.geometry import Geometry, Pairs, Sizes
from jaxnets.ops.plain import is_plain


@partial(jax.jit, static_argnames=("stride", "padding", "dilation", "groups", "form"))
def conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sizes,
    padding: Pairs,
    dilation: Sizes,
    groups: int = 1,
    form: Form | None = None,
) -> jax.Array:
    """Convolve an array with a kernel: y[i, o] = Σ_{j, c} x[i·stride + j·dilation − padding, c] kernel[j, c, o].

    A 1×1 kernel is a matrix product on every platform. Otherwise the output and the two gradients are primitives
    (`ops.conv.primitives`). On CPU each is computed in the formulation that is fastest for its shapes, both inside and
    outside of loops; elsewhere by XLA's own convolution. All derivatives and `vmap` work. On CPU with at most
    eight channels, a NaN or infinity also reaches neighboring positions along the last spatial axis of its example,
    because patches multiply it by zeros (`ops.conv.patches`).

    Args:
        x: `(batch, *spatial, channels)`, floating.
        kernel: `(*window, channels / groups, features)`, of the dtype of `x`.
        stride: steps between windows.
        padding: zeros before and after each spatial axis.
        dilation: steps between the elements of one window.
        groups: number of groups that channels and features are split into; features of group g read only the channels
            of group g.
        form: the formulation on CPU, "native", "eigen", "onednn", "patches", "shifts", "depthwise" or "groups", where
            it applies; chosen by shape if `None`.

    Returns:
        `(batch, *out, features)` with out = ⌊(n + padding − dilation (window − 1) − 1) / stride⌋ + 1.

    >>> x, kernel = jnp.arange(6.0).reshape(1, 6, 1), jnp.ones((3, 1, 1))
    >>> print(conv(x, kernel, (1,), ((0, 0),), (1,)).ravel())
    [ 3.  6.  9. 12.]
    """
    window = kernel.shape[:-2]
    if groups == 1 and math.prod(window) == 1 and not is_plain():
        # A 1×1 kernel: pad, keep every stride-th position, and multiply.
        x = jnp.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x
        return jnp.matmul(lax.slice(x, (0,) * x.ndim, x.shape, (1, *stride, 1)), kernel.reshape(kernel.shape[-2:]))
    check_form(form)
    geometry = Geometry(x.shape[1:-1], window, x.shape[-1], kernel.shape[-1], stride, padding, dilation, groups)
    return bind("forward", x, kernel, geometry, form)
