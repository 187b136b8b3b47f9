"""Upsampling by rearrangement: channels become positions."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net
from jaxnets.layers.windows import check_spatial, refuse_padded


@labeled
def pixel_shuffle(factor: int) -> Net:
    """Spread groups of r² channels over squares of r × r positions: y[r i + a, r j + b, c] = x[i, j, r² c + r a + b].

    After a `conv` with r² times the channels wanted, it is a learned upsampling by r without the overlaps of
    `conv_transpose`.

    Args:
        factor: r, at least 1, by which height and width grow.

    Returns:
        A network without parameters from `(batch, height, width, channels)` to
        `(batch, r · height, r · width, channels / r²)`, of the same floating dtype.

    Raises:
        NetError: for `factor` < 1, channels that r² does not divide, integer input, or input of another rank.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network" (2016), section 3.2; the order of channels is that of `torch.nn.PixelShuffle`.

    >>> import jax.numpy as jnp
    >>> print(pixel_shuffle(2).apply({}, {}, jnp.arange(4.0).reshape(1, 1, 1, 4))[0][0, :, :, 0])
    [[0. 1.]
     [2. 3.]]
    """
    check_count("factor", factor)

    def apply(_: Any, x: Any) -> jax.Array:
        check_spatial(x, 2)
        batch, height, width, channels = x.shape
        if channels % factor**2:
            raise NetError(
                f"expects channels divisible by factor² = {factor**2}, got {channels} in {x.shape}; give the layer "
                f"before it {factor**2} times the channels wanted"
            )
        # (batch, height, width, channels / r², r, r)
        y = jnp.asarray(x).reshape(batch, height, width, channels // factor**2, factor, factor)
        # (batch, height, r, width, r, channels / r²)
        y = y.transpose(0, 1, 4, 2, 5, 3)
        return y.reshape(batch, height * factor, width * factor, channels // factor**2)

    return refuse_padded(layer(None, apply))
