"""Resizing of feature maps by interpolation."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_positive, concrete
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net
from jaxnets.layers.windows import AXES, Ints, check_ints, check_spatial, common_rank, refuse_padded, spread

Method = Literal["nearest", "linear", "bilinear", "trilinear", "cubic", "bicubic", "tricubic", "lanczos3", "lanczos5"]


def _linear(t: np.ndarray) -> np.ndarray:
    return np.maximum(1 - t, 0)


def _cubic(t: np.ndarray) -> np.ndarray:
    inner, outer = (1.5 * t - 2.5) * t**2 + 1, ((2.5 - 0.5 * t) * t - 4) * t + 2
    return np.where(t < 1, inner, np.where(t < 2, outer, 0))


def _lanczos(radius: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: np.where(t < radius, np.sinc(t) * np.sinc(t / radius), 0)


# The kernels of a distance t ≥ 0.
KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **dict.fromkeys(("linear", "bilinear", "trilinear"), _linear),
    **dict.fromkeys(("cubic", "bicubic", "tricubic"), _cubic),
    **{f"lanczos{radius}": _lanczos(radius) for radius in (3, 5)},
}


@labeled
def resize(
    size: Ints | None = None,
    *,
    scale: float | Sequence[float] | None = None,
    method: Method = "nearest",
    antialias: bool = True,
) -> Net:
    """Resize each feature map to another number of positions by interpolation.

    Positions are areas: n of them cover the same extent as m after resizing, so the center of output i is at
    (i + ½) n / m − ½ of the input. There the output is Σ_j w_j x_j over the inputs j near it, with weights from the
    method's kernel; at the edges, where some of the inputs are missing, the other weights are scaled up to Σ w_j = 1.
    "nearest" takes the input whose area contains the center. Sums are in float32 or wider.

    Args:
        size: the number of positions of the output, an integer for all spatial axes or a tuple with one for each.
        scale: instead of `size`, the factors by which sizes grow or shrink: m = ⌊scale · n⌋.
        method: "nearest"; "linear", the kernel 1 - |t| for |t| < 1; "cubic", Keys' kernel with a = -½; "lanczos3" or
            "lanczos5", a windowed sinc. "bilinear", "trilinear", "bicubic" and "tricubic" are "linear" and "cubic".
        antialias: whether the kernel is widened by n / m where the map shrinks, so that every input counts. It changes
            nothing where the map grows, and nothing of "nearest".

    Returns:
        A network without parameters from `(batch, *spatial, channels)` with one to three spatial axes to
        `(batch, *size, channels)`, of the same floating dtype.

    Raises:
        NetError: for neither or both of `size` and `scale`, sizes < 1, an unknown method, integer input, input of
            another rank, or `Padded` sequences.

    Values are those of `jax.image.resize`. PyTorch's `interpolate` agrees for "nearest-exact", for "linear", "bilinear"
    and "trilinear" with the same `antialias` (False there by default), and for "bicubic" with `antialias=True`. Its
    "nearest" takes the input at ⌊i n / m⌋, which is the same where sizes grow by whole factors. Its "bicubic" without
    `antialias` has a = -¾ and repeats the edge. Its `scale_factor` also scales the positions, which differs where
    scale · n is not whole, and `align_corners=True` has no counterpart. Keys, "Cubic Convolution Interpolation for
    Digital Image Processing" (1981), for the cubic kernel.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([0.0, 4.0]).reshape(1, 2, 1)
    >>> for method in ("nearest", "linear"):
    ...     print(resize(scale=2, method=method).apply({}, {}, x)[0].ravel())
    [0. 0. 4. 4.]
    [0. 1. 3. 4.]
    """
    if (size is None) == (scale is None):
        given = "neither" if size is None else f"size {size!r} and scale {scale!r}"
        raise NetError(f"expects size or scale, got {given}")
    if size is not None:
        check_ints("size", size)
    for each in spread(scale, 1) if scale is not None else ():
        check_positive("scale", each)
        if concrete(each) is None:
            raise NetError("expects a known scale, as it determines shapes, got a traced one")
    if method not in get_args(Method):
        hint = '; "nearest" is exact here' if method == "nearest-exact" else ""
        hint = "; for means over areas use jn.adaptive_avg_pool" if method == "area" else hint
        raise NetError(f"expects method as one of {', '.join(get_args(Method))}, got {method!r}{hint}")
    rank = common_rank(size=size, scale=scale)

    def size_of(spatial: tuple[int, ...]) -> tuple[int, ...]:
        if size is not None:
            return spread(size, len(spatial))
        out = tuple(math.floor(n * each) for n, each in zip(spatial, spread(scale, len(spatial))))
        for axis, n in enumerate(out):
            if n < 1:
                raise NetError(
                    f"expects an output of at least 1, got {AXES[len(out)][axis]} {n} from {spatial[axis]} by scale "
                    f"{scale!r}; use a larger scale or size"
                )
        return out

    def apply(_: Any, x: Any) -> jax.Array:
        check_spatial(x, rank)
        y = jnp.asarray(x, param_dtype(x))
        for axis, m in enumerate(size_of(x.shape[1:-1]), start=1):
            n = x.shape[axis]
            if method == "nearest":
                # ⌊(i + ½) n / m⌋
                y = jnp.take(y, (2 * np.arange(m) + 1) * n // (2 * m), axis, mode="clip")
            elif n != m:
                # (m, ..., channels), then the new axis in the place of the old
                y = jnp.tensordot(weights(n, m, y.dtype), y, ((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
                y = jnp.moveaxis(y, 0, axis)
        return y.astype(x.dtype)

    def weights(n: int, m: int, dtype: Any) -> jax.Array:
        """Return the weight of each input in each output, `(m, n)`."""
        center = (np.arange(m) + 0.5) * n / m - 0.5
        width = max(n / m, 1) if antialias else 1
        found = KERNELS[method](np.abs(np.arange(n) - center[:, None]) / width)
        return jnp.asarray(found / found.sum(1, keepdims=True), dtype)

    return refuse_padded(layer(None, apply))
