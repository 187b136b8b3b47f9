"""The kernel that interpolates."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError


def bilinear_kernel(key: Any, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
    """Return a kernel that interpolates each channel linearly: where a learned upsampling starts.

    It is an initializer for `conv_transpose`: `conv_transpose(c, 2 * s, stride=s, padding=s // 2,
    kernel_init=bilinear_kernel)` enlarges c channels s times for even s; for odd s the window is 2 s - 1 and the
    padding (s - 1) / 2. An axis of window w has the weights 1 - |i - (w - 1) / 2| / ⌈w / 2⌉. With `groups=c` too,
    channels keep to themselves.

    Args:
        key: not read; nothing is random.
        shape: `(*window, channels, features)` with as many features as channels, or `(*window, channels / groups,
            features)`.
        dtype: of the kernel.
        out_sharding: not read.

    Raises:
        NetError: for features that are no multiple of the channels.

    Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation" (2015), section 3.3.

    >>> bilinear_kernel(None, (4, 1, 1)).ravel().tolist()
    [0.25, 0.75, 0.75, 0.25]
    """
    *window, channels, features = shape
    if features % channels:
        raise NetError(f"expects as many features as channels, got {features} and {channels}", label="bilinear_kernel")
    kernel = jnp.tile(jnp.eye(channels, dtype=dtype), features // channels)
    for size in reversed(window):
        away = jnp.abs(jnp.arange(size, dtype=dtype) - (size - 1) / 2)
        weights = 1 - away / -(-size // 2)
        kernel = weights.reshape((-1,) + (1,) * kernel.ndim) * kernel[None]
    return kernel
