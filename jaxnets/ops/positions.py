"""Positions in attention: rotations of queries and keys, and slopes by which scores fall with distance."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count


def rotate(x: jax.Array, positions: Any, *, period: Any = 10000.0, interleaved: bool = False) -> jax.Array:
    """Rotate pairs of features by angles that grow with the position.

    Pair j of `width` features turns by the angle position · period^(-2j / width). The product of a query and a key
    rotated in this way depends only on the distance between their positions.

    Args:
        x: queries or keys, `(batch, time, heads, width)`, floating, of even width.
        positions: integers or floats `(time,)` or `(batch, time)`.
        period: of the slowest pair, about, > 0. May be traced.
        interleaved: whether features 2j and 2j + 1 are a pair, as in the paper; otherwise j and j + width / 2 are, as
            in Llama and GPT-NeoX.

    Returns:
        The shape and dtype of `x`; angles and rotation are in float32 or wider.

    Raises:
        NetError: for an odd width.

    Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021), equation 15.

    >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)
    >>> print(rotate(x, jnp.array([jnp.pi / 2])).ravel().round(6))
    [-0.  1.]
    """
    width = x.shape[-1]
    if width % 2:
        raise NetError(f"expects heads of even width to rotate, got {width}")
    dtype = param_dtype(x)
    speeds = jnp.asarray(period, dtype) ** (-jnp.arange(0, width, 2, dtype) / width)
    # (batch or 1, time, 1, width / 2)
    angles = jnp.atleast_2d(jnp.asarray(positions, dtype))[..., None, None] * speeds[None, None, None]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    wide = x.astype(dtype)
    if interleaved:
        a, b = wide[..., ::2], wide[..., 1::2]
    else:
        a, b = jnp.split(wide, 2, -1)
    turned = [a * cosine - b * sine, a * sine + b * cosine]
    y = jnp.stack(turned, -1).reshape(x.shape) if interleaved else jnp.concatenate(turned, -1)
    return y.astype(x.dtype)


def distance_slopes(heads: int) -> jax.Array:
    """Return the slope of each head by which scores fall with distance ("ALiBi"), a geometric sequence.

    The slopes of n heads are 2^(-8/n), 2^(-16/n), …, 2^(-8) if n is a power of two. Otherwise they are those of the
    next lower power of two, and then every other one of the next higher.

    Args:
        heads: the number of heads.

    Returns:
        `(heads,)`, float32, for `jn.ops.attention(..., slopes=)`.

    Press, Smith and Lewis, "Train Short, Test Long" (2022), section 3; slopes for other numbers of heads as in their
    code.

    >>> print(distance_slopes(2))
    [0.0625     0.00390625]
    """
    check_count("heads", heads)
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * n / power) for n in range(1, power + 1)]
    slopes += [2 ** (-4 * n / power) for n in range(1, 2 * (heads - power), 2)]
    return jnp.asarray(slopes, jnp.float32)
