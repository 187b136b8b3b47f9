"""Operations that jax2onnx or onnxruntime can't take, in terms of others that they can."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.core.errors import NetError
from jaxnets.export.rewriting import Rule

Sizes = Sequence[int]
Window = tuple[int, int, tuple[int, int], int]  # size, stride, padding, dilation


def _pad(x: Any, value: Any, *, padding_config: Sequence[tuple[int, int, int]]) -> Any:
    """Concatenate blocks of the value: jax2onnx pads no array of free batch, and none between elements."""
    for axis, (low, high, interior) in enumerate(padding_config):

        def block(size: Any, x: Any = x, axis: int = axis) -> Any:
            return lax.broadcast(value, (*x.shape[:axis], size, *x.shape[axis + 1 :]))

        if interior:
            # (..., n, ...) → (..., n, 1 + interior, ...) → (..., n (1 + interior), ...), without the last block
            shape = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
            wide = lax.reshape(x, (*shape[0], shape[1], 1, *shape[2]))
            gaps = lax.broadcast(value, (*shape[0], shape[1], interior, *shape[2]))
            whole = lax.concatenate([wide, gaps], axis + 1)
            x = lax.reshape(whole, (*shape[0], shape[1] * (1 + interior), *shape[2]))
            x = lax.slice_in_dim(x, 0, x.shape[axis] - interior, axis=axis)
        if low < 0 or high < 0:
            x = lax.slice_in_dim(x, max(-low, 0), x.shape[axis] - max(-high, 0), axis=axis)
        x = _concatenate(block(max(low, 0)), x, block(max(high, 0)), dimension=axis)
    return x


def _concatenate(*parts: Any, dimension: int) -> Any:
    """Leave out empty parts, of which the checker of ONNX infers other shapes."""
    full = [part for part in parts if part.shape[dimension] != 0] or [parts[0]]
    return lax.concatenate(full, dimension) if len(full) > 1 else full[0]


def _max_pool(x: Any, **params: Any) -> Any:
    """Pool a batch of planes: jax2onnx pools over all axes, of which onnxruntime takes three."""

    def pool(planes: Any, windows: Sequence[Window]) -> Any:
        if any(max(pads) >= size for size, _, pads, _ in windows):
            # onnxruntime pads by less than a window.
            config = [(0, 0, 0), *((*pads, 0) for _, _, pads, _ in windows)]
            planes = _pad(planes, jnp.array(-jnp.inf, planes.dtype), padding_config=config)
            windows = [(size, stride, (0, 0), dilation) for size, stride, _, dilation in windows]
        sizes, strides, pads, dilations = zip((1, 1, (0, 0), 1), *windows)
        return lax.reduce_window_max_p.bind(
            planes,
            window_dimensions=sizes,
            window_strides=strides,
            padding=pads,
            base_dilation=(1,) * len(sizes),
            window_dilation=dilations,
        )

    return _by_planes(x, pool, **params)


def _sum_pool(x: Any, **params: Any) -> Any:
    """Convolve a batch of planes with ones, where jax2onnx convolves over all axes."""

    def pool(planes: Any, windows: Sequence[Window]) -> Any:
        sizes, strides, pads, dilations = zip(*windows)
        kernel = jnp.ones((1, 1, *sizes), planes.dtype)
        y = lax.conv_general_dilated(lax.expand_dims(planes, (1,)), kernel, strides, pads, None, dilations)
        return lax.squeeze(y, (1,))

    return _by_planes(x, pool, **params)


def _by_planes(
    x: Any,
    pool: Callable[[Any, Sequence[Window]], Any],
    *,
    window_dimensions: Sizes,
    window_strides: Sizes,
    padding: Sequence[tuple[int, int]],
    base_dilation: Sizes,
    window_dilation: Sizes,
    **_: Any,
) -> Any:
    """Pool at most two axes at a time, put last and all others into one: (planes, height, width)."""
    if any(each != 1 for each in base_dilation):
        raise NetError("can't convert pooling of dilated input")
    windows = [*zip(window_dimensions, window_strides, padding, window_dilation, strict=True)]
    pooled = [axis for axis, (size, stride, pads, _) in enumerate(windows) if (size, stride, *pads) != (1, 1, 0, 0)]
    for axes in (pooled[first : first + 2] for first in range(0, len(pooled), 2)):
        order = [*(axis for axis in range(x.ndim) if axis not in axes), *axes]
        outer = [x.shape[axis] for axis in order[: -len(axes)]]
        planes = lax.reshape(lax.transpose(x, order), (math.prod(outer), *(x.shape[axis] for axis in axes)))
        y = pool(planes, [windows[axis] for axis in axes])
        x = lax.transpose(lax.reshape(y, (*outer, *y.shape[1:])), [order.index(axis) for axis in range(x.ndim)])
    return x


def _stack(*parts: Any, axis: int) -> Any:
    return lax.concatenate([lax.expand_dims(part, (axis,)) for part in parts], axis)


def _conv(x: Any, kernel: Any, *, dimension_numbers: Any, padding: Any, **params: Any) -> Any:
    """Convolve three axes by two-dimensional convolutions, one for each place of the kernel along the first axis.

    jax2onnx knows the layouts of one and two axes alone.
    """
    numbers = lax.ConvDimensionNumbers(*dimension_numbers)
    if x.ndim != 5:
        return lax.conv_general_dilated_p.bind(x, kernel, dimension_numbers=numbers, padding=padding, **params)
    if params["batch_group_count"] != 1:
        raise NetError("can't convert a convolution of three axes with groups of examples")
    strides, before, dilations = (params.pop(each) for each in ("window_strides", "lhs_dilation", "rhs_dilation"))
    # (batch, depth, height, width, channels) and (depth, height, width, channels, features)
    batch, channels, *axes = numbers.lhs_spec
    x = lax.transpose(x, (batch, *axes, channels))
    features, inputs, *axes = numbers.rhs_spec
    kernel = lax.transpose(kernel, (*axes, inputs, features))
    low, high = padding[0]
    x = _pad(
        x,
        jnp.zeros((), x.dtype),
        padding_config=[(0, 0, 0), (low, high, before[0] - 1), *[(0, 0, 0)] * 3],
    )
    depth = (x.shape[1] - (kernel.shape[0] - 1) * dilations[0] - 1) // strides[0] + 1
    total: Any = None
    for place in range(kernel.shape[0]):
        first = place * dilations[0]
        part = lax.slice_in_dim(x, first, first + (depth - 1) * strides[0] + 1, strides[0], axis=1)
        # Every slice along the depth is an example.
        part = lax.conv_general_dilated_p.bind(
            lax.reshape(part, (part.shape[0] * depth, *part.shape[2:])),
            lax.index_in_dim(kernel, place, keepdims=False),
            window_strides=strides[1:],
            lhs_dilation=before[1:],
            rhs_dilation=dilations[1:],
            padding=padding[1:],
            dimension_numbers=lax.conv_dimension_numbers((1,) * 4, (1,) * 4, ("NHWC", "HWIO", "NHWC")),
            **params,
        )
        total = part if total is None else lax.add(total, part)
    y = lax.reshape(total, (x.shape[0], depth, *total.shape[1:]))
    batch, features, *axes = numbers.out_spec
    return lax.transpose(y, [(batch, *axes, features).index(axis) for axis in range(5)])


def _unstack(x: Any, *, axis: int) -> list[Any]:
    return [lax.index_in_dim(x, n, axis, keepdims=False) for n in range(x.shape[axis])]


def _tile(x: Any, *, reps: Sizes) -> Any:
    for axis, count in enumerate(reps):
        x = _concatenate(*[x] * count, dimension=axis) if count else lax.slice_in_dim(x, 0, 0, axis=axis)
    return x


def _dim_as_value(*, dim: Any, **_: Any) -> Any:
    """Count the elements of an array of that size, which may depend on the batch."""
    return lax.reduce(lax.full((dim,), 1, jnp.int32), np.int32(0), lax.add, (0,))


def _log1p(x: Any, **_: Any) -> Any:
    """Return log(1 + x) as log(u) · x / (u - 1), where u is 1 + x as rounded: the errors of both factors cancel."""
    u = lax.add(x, lax.full_like(x, 1))
    plain = lax.bitwise_or(lax.eq(u, lax.full_like(u, 1)), lax.eq(u, lax.full_like(u, jnp.inf)))
    below = lax.select(plain, lax.full_like(u, 1), lax.sub(u, lax.full_like(u, 1)))
    return lax.select(plain, x, lax.mul(lax.log(u), lax.div(x, below)))


def _expm1(x: Any, **_: Any) -> Any:
    """Return exp(x) - 1 as tanh(x / 2) · (exp(x) + 1), which loses no digits near 0."""
    return lax.mul(lax.tanh(lax.mul(x, lax.full_like(x, 0.5))), lax.add(lax.exp(x), lax.full_like(x, 1)))


RULES: dict[str, Rule] = {
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "dim_as_value": _dim_as_value,
    "expm1": _expm1,
    "log1p": _log1p,
    "log2": lambda x, **_: lax.mul(lax.log(x), lax.full_like(x, 1 / math.log(2))),
    "optimization_barrier": lambda *inputs, **_: [*inputs],
    "pad": _pad,
    "reduce_window_max": _max_pool,
    "reduce_window_min": lambda x, **params: lax.neg(_max_pool(lax.neg(x), **params)),
    "reduce_window_sum": _sum_pool,
    "stack": _stack,
    "tile": _tile,
    "unstack": _unstack,
}
