"""Transposed convolution of channels-last arrays: the input gradient of a convolution."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxnets.ops.conv.primitives import bind
from jaxnets.ops.geometry import Geometry, Pairs, Sizes


@partial(jax.jit, static_argnames=("stride", "padding", "output_padding", "dilation", "groups"))
def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sizes,
    padding: Pairs,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int = 1,
) -> jax.Array:
    """Apply the transpose of a convolution: add each input, times the kernel, to a window of the output.

    This is the linear transpose of `conv` with the same stride, padding and dilation: the gradient of `conv` with
    respect to its input. With a stride, XLA inserts zeros into the input and convolves them too, which is slow on CPU;
    there `ops.conv.phases` avoids them, except in a depthwise convolution.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        kernel: `(*window, channels, features / groups)`, of the dtype of `x`.
        stride: steps in the output for one step in the input.
        padding: positions cut off before and after each spatial axis of the output.
        output_padding: positions added after each spatial axis of the output.
        dilation: steps in the output between the elements of one window.
        groups: number of groups that channels and features are split into.

    Returns:
        `(batch, *out, features)` with out = (n − 1) stride − padding + dilation (window − 1) + output_padding + 1.

    >>> x, kernel = jnp.array([1.0, 2.0]).reshape(1, 2, 1), jnp.ones((3, 1, 1))
    >>> print(conv_transpose(x, kernel, (2,), ((0, 0),), (0,), (1,)).ravel())
    [1. 1. 3. 2. 2.]
    """
    spatial, window, features = x.shape[1:-1], kernel.shape[:-2], kernel.shape[-1] * groups
    out = transposed_sizes(spatial, window, stride, padding, output_padding, dilation)
    # The convolution that is transposed goes from the features to the channels:
    # (*window, features / groups, channels)
    kernel = jnp.swapaxes(kernel, -2, -1)
    geometry = Geometry(out, window, features, x.shape[-1], stride, padding, dilation, groups)
    # An output_padding of at least the stride makes space for further windows, over zeros.
    added = [(0, windows - n) for windows, n in zip(geometry.out, spatial, strict=True)]
    return bind("to_input", jnp.pad(x, ((0, 0), *added, (0, 0))), kernel, geometry, None)


def transposed_sizes(
    spatial: Sizes, window: Sizes, stride: Sizes, padding: Pairs, output_padding: Sizes, dilation: Sizes
) -> Sizes:
    """Return the spatial sizes of the output of `conv_transpose`.

    >>> transposed_sizes((14, 14), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (1, 1))
    (28, 28)
    """
    return tuple(
        (n - 1) * s - sum(pair) + d * (w - 1) + more + 1
        for n, w, s, pair, more, d in zip(spatial, window, stride, padding, output_padding, dilation, strict=True)
    )
