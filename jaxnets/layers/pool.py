"""Pooling layers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp

from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.layer import as_net, labeled, layer
from jaxnets.core.net import Net
from jaxnets.layers.windows import (
    AXES,
    Grid,
    Ints,
    Padding,
    Windows,
    check_ints,
    check_spatial,
    common_rank,
    refuse_padded,
    spread,
)
from jaxnets.ops import pool as ops
from jaxnets.ops.extrema import max_along
from jaxnets.ops.geometry import Sizes


@labeled
def max_pool(
    kernel_size: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Net:
    """Take the maximum of each channel over a sliding window: y[i] = max_j x[i·stride + j·dilation − padding].

    Padding counts as −∞. The gradient goes to the first of equal maxima in row-major order, as in PyTorch. NaN counts
    as the maximum.

    Args:
        kernel_size: size of the window, an integer for all spatial axes of the input or a tuple with one for each.
        stride: the step between windows; default: `kernel_size`, so that windows don't overlap.
        padding: an integer for both sides of every axis; a tuple with an integer, or with `(before, after)`, for each
            axis; "VALID" for none; "SAME" for an output of ⌈n / stride⌉ positions (see `conv`).
        dilation: the step between elements of one window.
        ceil_mode: whether the last window may extend past the end of the padded input. A window that would start past
            the end of the input is left out, as in PyTorch.

    Returns:
        A network from `(batch, *spatial, channels)` to `(batch, *out, channels)`, of the same floating dtype, with
        out = ⌊(n + padding − dilation (kernel_size − 1) − 1) / stride⌋ + 1, or ⌈…⌉ + 1.

    Raises:
        NetError: for settings out of range or with different numbers of axes, input of another rank, integer input,
            input smaller than the window, or padding so wide that a window is entirely in it.

    >>> import jax.numpy as jnp
    >>> net = max_pool(2)
    >>> net.apply({}, {}, jnp.arange(16.0).reshape(1, 4, 4, 1))[0].ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    windows = Windows(kernel_size, kernel_size if stride is None else stride, padding, dilation)

    def apply(_: Any, x: Any) -> jax.Array:
        return ops.max_pool(jnp.asarray(x), *_filled(windows, x, ceil_mode))

    return refuse_padded(layer(None, apply))


@labeled
def avg_pool(
    kernel_size: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    count_include_pad: bool = True,
    ceil_mode: bool = False,
) -> Net:
    """Take the mean of each channel over a sliding window: y[i] = (1/m) Σ_j x[i·stride + j·dilation − padding].

    Sums are in float32 or wider.

    Args:
        kernel_size: size of the window, as for `max_pool`.
        stride: the step between windows; default: `kernel_size`.
        padding: as for `max_pool`, with zeros.
        dilation: the step between elements of one window.
        count_include_pad: whether m counts positions in the padding, as in PyTorch by default; `False` averages only
            over the input, which with "SAME" is TensorFlow's rule. Positions that `ceil_mode` adds past the padded
            input never count.
        ceil_mode: as for `max_pool`.

    Returns:
        A network from `(batch, *spatial, channels)` to `(batch, *out, channels)`, of the same floating dtype.

    Raises:
        NetError: as in `max_pool`.

    >>> import jax.numpy as jnp
    >>> net = avg_pool(2)
    >>> net.apply({}, {}, jnp.arange(16.0).reshape(1, 4, 4, 1))[0].ravel().tolist()
    [2.5, 4.5, 10.5, 12.5]
    """
    windows = Windows(kernel_size, kernel_size if stride is None else stride, padding, dilation)

    def apply(_: Any, x: Any) -> jax.Array:
        # Without ceil_mode: positions that it adds never count.
        counted = windows.over(x).padding if count_include_pad else None
        return ops.avg_pool(jnp.asarray(x), *_filled(windows, x, ceil_mode), counted)

    return refuse_padded(layer(None, apply))


@labeled
def adaptive_avg_pool(output_size: int | Sequence[int | None]) -> Net:
    """Take the mean over nearly equal bins, so that the output has a given size for any input size.

    Bin i of k over an axis of n positions extends from ⌊i n / k⌋ to ⌈(i + 1) n / k⌉, as in PyTorch's `AdaptiveAvgPool`.
    Sums are in float32 or wider.

    Args:
        output_size: an integer for all spatial axes, or a tuple with one for each; may exceed the input's size. `None`
            in the tuple keeps the size of its axis.

    Returns:
        A network from `(batch, *spatial, channels)` to `(batch, *output_size, channels)`, of the same floating dtype.

    Raises:
        NetError: for sizes below 1, input of another rank, empty input, or integer input.

    >>> import jax.numpy as jnp
    >>> adaptive_avg_pool(7).apply({}, {}, jnp.ones((2, 10, 12, 3)))[0].shape
    (2, 7, 7, 3)
    """
    return _adaptive("adaptive_avg_pool", output_size, ops.adaptive_avg_pool)


@labeled
def adaptive_max_pool(output_size: int | Sequence[int | None]) -> Net:
    """Take the maximum over nearly equal bins, so that the output has a given size for any input size.

    The bins are those of `adaptive_avg_pool`; they overlap where their number does not divide the axis. The gradient
    goes to the first of equal maxima in row-major order, as in PyTorch's `AdaptiveMaxPool`. NaN counts as the maximum.

    Args:
        output_size: as for `adaptive_avg_pool`.

    Returns:
        A network from `(batch, *spatial, channels)` to `(batch, *output_size, channels)`, of the same floating dtype.

    Raises:
        NetError: as in `adaptive_avg_pool`.

    >>> import jax.numpy as jnp
    >>> adaptive_max_pool(2).apply({}, {}, jnp.array([3.0, 1, 2, 0, 5]).reshape(1, 5, 1))[0].ravel().tolist()
    [3.0, 5.0]
    """
    return _adaptive("adaptive_max_pool", output_size, ops.adaptive_max_pool)


@overload
def global_avg_pool(x: None = None) -> Net: ...
@overload
def global_avg_pool(x: Any) -> jax.Array: ...
def global_avg_pool(x: Any = None) -> jax.Array | Net:
    """Take the mean of each channel over all positions: `(batch, *spatial, channels)` to `(batch, channels)`.

    Sums are in float32 or wider. As a layer, write it with or without a call: `jn.serial(..., jn.global_avg_pool)`.

    Raises:
        NetError: for input without spatial axes, empty input, or integer input.

    Lin, Chen and Yan, "Network In Network" (2013), section 3.2.

    >>> import jax.numpy as jnp
    >>> global_avg_pool(jnp.ones((2, 7, 7, 64))).shape
    (2, 64)
    """
    if x is None:
        return as_net(global_avg_pool)
    rank = _nonempty_rank("global_avg_pool", x)
    x = jnp.asarray(x)
    return jnp.mean(x, axis=tuple(range(1, 1 + rank)), dtype=param_dtype(x)).astype(x.dtype)


@overload
def global_max_pool(x: None = None) -> Net: ...
@overload
def global_max_pool(x: Any) -> jax.Array: ...
def global_max_pool(x: Any = None) -> jax.Array | Net:
    """Take the maximum of each channel over all positions: `(batch, *spatial, channels)` to `(batch, channels)`.

    The gradient goes to the first of equal maxima in row-major order, as in `max_pool`. As a layer, write it with or
    without a call.

    Raises:
        NetError: for input without spatial axes, empty input, or integer input.

    >>> import jax.numpy as jnp
    >>> global_max_pool(jnp.ones((2, 7, 7, 64))).shape
    (2, 64)
    """
    if x is None:
        return as_net(global_max_pool)
    _nonempty_rank("global_max_pool", x)
    x = jnp.asarray(x)
    return max_along(x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]), 1)


def _adaptive(
    label: str, output_size: int | Sequence[int | None], pool: Callable[[jax.Array, Sizes], jax.Array]
) -> Net:
    """Make a layer of `pool(x, sizes)`, where `None` in the output size stands for that of the input."""
    per_axis = isinstance(output_size, Sequence)
    check_ints("output_size", [1 if size is None else size for size in output_size] if per_axis else output_size)

    def apply(_: Any, x: Any) -> jax.Array:
        rank = _nonempty_rank(label, x, common_rank(output_size=output_size))
        sizes = tuple(size or n for size, n in zip(spread(output_size, rank), x.shape[1:-1], strict=True))
        return pool(jnp.asarray(x), sizes)

    return refuse_padded(layer(None, apply))


def _nonempty_rank(label: str, x: Any, rank: int | None = None) -> int:
    """Check that an input has spatial axes and none is empty; return their number. Errors start with `label`."""
    with labeled_as(label, keep=True):
        found = check_spatial(x, rank)
        if 0 in x.shape[1:-1]:
            raise NetError(f"expects at least one position on every spatial axis, got {tuple(x.shape)}")
    return found


def _filled(windows: Windows, x: Any, ceil: bool) -> Grid:
    """Return the windows over an input.

    Raises:
        NetError: if a window contains no position of the input, so that its maximum and mean are undefined.
    """
    grid, spatial = windows.over(x, ceil=ceil), tuple(x.shape[1:-1])
    for axis, count in enumerate(ops.window_counts(spatial, *grid)):
        if not count.all():
            raise NetError(
                f"expects some input in every window, but with {AXES[len(spatial)][axis]} {spatial[axis]} and padding "
                f"{grid.padding[axis]} a window of {grid.size[axis]} lies entirely in the padding; pad less"
            )
    return grid
