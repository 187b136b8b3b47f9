"""The maximum of each window, and which element of the window it is: all that its derivative has to know.

The choice takes a byte for each window of up to 128 elements. The tangent of a maximum is the tangent of the element
chosen: linear, so forward mode takes it as it stands and reverse mode turned round, at any order.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.ops.windows import NONE, Windows, frame, pad, summed, under

FEW = 16
"""Below how many channels choices are computed apart; with more, again where they are needed is faster."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def maxima(x: jax.Array, windows: Windows) -> jax.Array:
    """Return the maximum of each window, `(batch, *out, channels)`; −∞ lies outside.

    Compile time grows with the elements of a window.
    """
    return functools.reduce(jnp.maximum, under(x, windows, -np.inf))


@maxima.defjvp
def _(windows: Windows, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    y = maxima(x, windows)
    # The backward pass compares choices anew: cheaper than keeping a mask for every element.
    linear = jax.checkpoint(lambda dx, choice: summed(dx, windows, choice), prevent_cse=False)
    # Without barriers XLA computes the maxima again for the choices, and parts of these twice.
    choice = _choices(x, lax.optimization_barrier(y), windows, frame(x.shape[1:-1], windows))
    return y, linear(dx, lax.optimization_barrier(choice))


def _choices(x: jax.Array, y: jax.Array, windows: Windows, edges: Any, axis: int = 1) -> jax.Array:
    """Return the number of the first maximum in each window, between `edges` of `NONE`.

    Windows that reach over an end are taken apart from the others, along each axis: only their input is padded.
    XLA computes the comparisons ten times slower if padding is fused with them.
    """
    if axis == x.ndim - 1:
        return _first(y, under(x, windows, -np.inf))
    n, m, (low, high) = x.shape[axis], y.shape[axis], edges[axis - 1]
    step, early = windows.stride[axis - 1], windows.padding[axis - 1][0]
    reach, parts = windows.dilation[axis - 1] * (windows.size[axis - 1] - 1) + 1, []
    before = min(-(-early // step), m)
    inside = max(before, min(m, (n - reach + early) // step + 1))
    cut = windows._replace(padding=tuple((0, 0) if k == axis - 1 else own for k, own in enumerate(windows.padding)))
    for first, last in ((0, before), (before, inside), (inside, m)):
        if first == last:
            continue
        begin, end = first * step - early, (last - 1) * step - early + reach
        seen = lax.slice_in_dim(x, min(max(0, begin), n), max(0, min(n, end)), 1, axis)
        over = (min(max(0, -begin), end - begin), min(max(0, end - n), end - begin))
        seen = pad(seen, [over if k == axis else (0, 0) for k in range(x.ndim)], -np.inf)
        parts.append(_choices(seen, lax.slice_in_dim(y, first, last, 1, axis), cut, edges, axis + 1))
    return _between(parts, low, high, axis)


def _between(parts: list[jax.Array], low: int, high: int, axis: int) -> jax.Array:
    """Return parts put together along an axis, with so much of `NONE` around, or with fewer places if negative."""
    shape = parts[0].shape
    ends = [
        [jnp.full((*shape[:axis], more, *shape[axis + 1 :]), NONE, parts[0].dtype)] if more > 0 else []
        for more in (low, high)
    ]
    whole = lax.concatenate([*ends[0], *parts, *ends[1]], axis)
    return lax.slice_in_dim(whole, max(0, -low), whole.shape[axis] - max(0, -high), 1, axis)


def _first(y: jax.Array, elements: list[jax.Array]) -> jax.Array:
    """Return the number of the first element that is the maximum y, or NaN where that is NaN."""
    least = jnp.where(jnp.isnan(y), np.asarray(np.inf, y.dtype), y)  # NaN is not less than it
    number = np.min_scalar_type(-len(elements)).type
    choice = jnp.full(y.shape, len(elements) - 1, number)
    for each, element in reversed([*enumerate(elements[:-1])]):
        choice = jnp.where(element < least, choice, number(each))
    # A remainder that changes nothing, but that XLA holds expensive: it does not compute choices for every place anew.
    return lax.rem(choice, number(np.iinfo(number).max)) if y.shape[-1] < FEW else choice
