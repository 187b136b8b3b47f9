"""Output sizes of convolutions, pools and transposed convolutions."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.layers import conv_transpose
from jaxnets.layers.windows import Ints, Padding, Windows
from jaxnets.ops.geometry import out_sizes

# An integer for an integer, a tuple for a tuple
S = TypeVar("S", int, tuple[int, ...])


def output_size(
    size: S,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    transposed: bool = False,
    output_padding: Ints = 0,
) -> S:
    """Return the output size of a convolution, a pool or a transposed convolution.

    Let n be the input size, k the kernel size, and p the total padding of both sides. A convolution or a pool has
    ⌊(n + p - dilation (k - 1) - 1) / stride⌋ + 1 outputs along an axis. A transposed convolution has
    (n - 1) stride - p + dilation (k - 1) + output_padding + 1.

    Args:
        size: input size, an integer or a tuple with one for each spatial axis.
        kernel_size: an integer for all axes or a tuple with one for each.
        stride: step between windows, in the same form. Set it for a pool, whose default is the kernel size.
        padding: as for `jn.conv`: an integer for both sides, an integer or (before, after) for each axis, "SAME" or
            "VALID".
        dilation: step between the elements of one window.
        ceil_mode: whether the last window may reach past the end, as in the pools.
        transposed: whether to compute the size for the transposed convolution, `jn.conv_transpose`.
        output_padding: additional outputs at the end of a transposed convolution.

    Returns:
        An integer for an integer, a tuple for a tuple.

    Raises:
        NetError: for settings out of range, unequal numbers of axes, an input smaller than its window, `ceil_mode` with
            a transposed convolution, or `output_padding` without one.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).

    >>> output_size(224, 7, stride=2, padding=3)
    112
    >>> output_size((12, 17), 3, stride=2, ceil_mode=True)
    (6, 8)
    >>> output_size(112, 4, stride=2, padding=1, transposed=True)
    224
    """
    single = not isinstance(size, Sequence)
    with labeled_as("output_size"):
        spatial: Any = (size,) if single else tuple(size)
        for each in spatial:
            if isinstance(each, bool) or not hasattr(each, "__index__") or each < 1:
                raise NetError(f"expects size as an integer ≥ 1 or a tuple of them, got {size!r}")
        x = jax.ShapeDtypeStruct((1, *spatial, 1), jnp.float32)
        if transposed and ceil_mode:
            raise NetError("expects no ceil_mode for a transposed convolution; output_padding enlarges its output")
        if not transposed and output_padding != 0:
            raise NetError(f"expects output_padding only with transposed=True, got {output_padding!r}")
        if transposed:
            settings = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
            net = conv_transpose(1, kernel_size, **settings, use_bias=False)
            params, state = jax.eval_shape(net.init, jax.random.key(0), x)
            out = jax.eval_shape(net.apply, params, state, x)[0].shape[1:-1]
        else:
            out = out_sizes(spatial, *Windows(kernel_size, stride, padding, dilation).over(x, ceil=ceil_mode))
    answer: Any = out[0] if single else out
    return answer
