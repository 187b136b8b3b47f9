"""How large the output of a window that slides over an input is."""

from collections.abc import Sequence
from typing import overload

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.layers import conv_transpose
from jaxnets.layers.windows import Ints, Padding, Windows
from jaxnets.ops.geometry import out_sizes


@overload
def output_size(
    size: int,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    transposed: bool = False,
    output_padding: Ints = 0,
) -> int: ...
@overload
def output_size(
    size: Sequence[int],
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    transposed: bool = False,
    output_padding: Ints = 0,
) -> tuple[int, ...]: ...
def output_size(
    size: int | Sequence[int],
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    transposed: bool = False,
    output_padding: Ints = 0,
) -> int | tuple[int, ...]:
    """Return the size of a convolution's, a pool's or a transposed convolution's output.

    With p the padding on both sides together and k the kernel size, a convolution or a pool has ⌊(n + p - dilation (k - 1) - 1) /
    stride⌋ + 1 places, and a transposed convolution (n - 1) stride - p + dilation (k - 1) + output_padding + 1.

    Args:
        size: of the input, an integer, or a tuple with one for each spatial axis.
        kernel_size: size of the window, an integer for every axis or a tuple with one for each.
        stride: steps between windows, likewise; pools have their window if not told otherwise, so say it here.
        padding: as for `jn.conv`: an integer for both sides, one or (before, after) for each axis, "SAME" or "VALID".
        dilation: steps between the elements of one window.
        ceil_mode: whether a last window may reach over the end, as in the pools.
        transposed: whether it is the transposed convolution, `jn.conv_transpose`.
        output_padding: places more at the end; of a transposed convolution only.

    Returns:
        An integer for an integer, a tuple for a tuple.

    Raises:
        NetError: for settings out of range or for unequal numbers of axes, an input smaller than its window, or one of
            `ceil_mode` and `output_padding` where it has no meaning.

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
        spatial = (size,) if single else tuple(size)
        for each in spatial:
            if isinstance(each, bool) or not hasattr(each, "__index__") or each < 1:
                raise NetError(f"expects the input's size as an integer ≥ 1, or a tuple of them, got {size!r}")
        x = jax.ShapeDtypeStruct((1, *spatial, 1), jnp.float32)
        if transposed and ceil_mode:
            raise NetError("expects no ceil_mode of a transposed convolution; see output_padding")
        if not transposed and output_padding != 0:
            raise NetError(f"expects output_padding of a transposed convolution alone, got {output_padding!r}")
        if transposed:
            settings = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
            net = conv_transpose(1, kernel_size, **settings, use_bias=False)
            params, state = jax.eval_shape(net.init, jax.random.key(0), x)
            out = jax.eval_shape(net.apply, params, state, x)[0].shape[1:-1]
        else:
            out = out_sizes(spatial, *Windows(kernel_size, stride, padding, dilation).over(x, ceil=ceil_mode))
    return out[0] if single else out
