"""Convolution of channels-last arrays, in the formulation that is fast on the platform it runs on."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

Sizes = tuple[int, ...]  # one number per spatial axis
Pairs = tuple[tuple[int, int], ...]  # zeros before and after, per spatial axis

PATCHES_LIMIT = 10 * 2**20
"""Bytes of patches up to which a convolution on CPU is computed as a matrix product.

Beyond it, in a plain jit, writing the patches costs more than the native kernel gradient; inside a scan the patches win
far beyond it too, but no operation can know that it stands in one.
"""


@partial(jax.jit, static_argnames=("stride", "padding", "dilation", "groups"))
def conv(x: jax.Array, kernel: jax.Array, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int = 1) -> jax.Array:
    """Slide a kernel over an array: y[i, o] = Σ_{j, c} x[i·stride + j·dilation − padding, c] kernel[j, c, o].

    A 1×1 kernel is a matrix product on every platform. On CPU, whose native gradient of the kernel is slow inside
    `lax.scan`, a convolution with few patches is a matrix product too. All else is XLA's own convolution. Each
    is made of plain operations, so that every derivative and `vmap` work; it is jitted, so that a call outside
    `jax.jit` compiles one program.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        kernel: `(*window, channels / groups, features)`, of the dtype of `x`.
        stride: steps between windows.
        padding: zeros before and after each spatial axis.
        dilation: steps between the elements of one window.
        groups: into how many groups channels and features are split; group g of the features sees only
            group g of the channels.

    Returns:
        `(batch, *out, features)` with out = ⌊(n + padding − dilation (window − 1) − 1) / stride⌋ + 1.

    >>> x, kernel = jnp.arange(6.0).reshape(1, 6, 1), jnp.ones((3, 1, 1))
    >>> print(conv(x, kernel, (1,), ((0, 0),), (1,)).ravel())
    [ 3.  6.  9. 12.]
    """
    window = kernel.shape[:-2]
    if groups == 1 and math.prod(window) == 1:
        x = _pad(x, padding)
        return jnp.matmul(lax.slice(x, (0,) * x.ndim, x.shape, (1, *stride, 1)), kernel.reshape(kernel.shape[-2:]))
    native = partial(conv_native, stride=stride, padding=padding, dilation=dilation, groups=groups)
    out = out_sizes(x.shape[1:-1], window, stride, padding, dilation)
    patches = x.shape[0] * math.prod(out) * math.prod(kernel.shape[:-1]) * x.dtype.itemsize
    if groups > 1 or patches > PATCHES_LIMIT:
        return native(x, kernel)
    by_patches = partial(conv_patches, stride=stride, padding=padding, dilation=dilation)
    # The backward pass cuts the patches again: cheaper than keeping a copy of the input for each kernel element.
    return lax.platform_dependent(x, kernel, cpu=jax.checkpoint(by_patches), default=native)


def conv_native(
    x: jax.Array, kernel: jax.Array, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int = 1
) -> jax.Array:
    """Compute `conv` by XLA's own convolution."""
    spatial = "DHW"[-len(stride) :]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(
        x, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=layout, feature_group_count=groups
    )


def conv_patches(x: jax.Array, kernel: jax.Array, stride: Sizes, padding: Pairs, dilation: Sizes) -> jax.Array:
    """Compute `conv` with one group as the product of the matrix of patches with the kernel's matrix."""
    window = kernel.shape[:-2]
    out = out_sizes(x.shape[1:-1], window, stride, padding, dilation)
    x = _pad(x, padding)

    def element(place: Sizes) -> jax.Array:  # the input under one element of the kernel: (batch, *out, channels)
        starts = [p * d for p, d in zip(place, dilation)]
        ends = [start + (n - 1) * s + 1 for start, n, s in zip(starts, out, stride)]
        return lax.slice(x, (0, *starts, 0), (x.shape[0], *ends, x.shape[-1]), (1, *stride, 1))

    places = itertools.product(*map(range, window))
    patches = jnp.concatenate([element(place) for place in places], axis=-1)
    return jnp.matmul(patches, kernel.reshape(-1, kernel.shape[-1]))


def out_sizes(spatial: Sizes, window: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> Sizes:
    """Return how many windows fit in each spatial axis; zero or less where none does.

    >>> out_sizes((28, 28), (5, 5), (2, 1), ((0, 0), (2, 2)), (1, 1))
    (12, 28)
    """
    return tuple(
        (n + sum(pair) - d * (w - 1) - 1) // s + 1
        for n, w, s, pair, d in zip(spatial, window, stride, padding, dilation, strict=True)
    )


def _pad(x: jax.Array, padding: Pairs) -> jax.Array:
    return jnp.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x
