"""Initializers that `jax.nn.initializers` lacks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError


def bilinear_kernel(key: Any, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
    """Return a kernel that interpolates each channel linearly, to initialize a learned upsampling.

    This is an initializer for `conv_transpose`: `conv_transpose(c, 2 * s, stride=s, padding=s // 2,
    kernel_init=bilinear_kernel)` enlarges c channels s times for even s; for odd s the kernel size is 2 s - 1 and the
    padding (s - 1) / 2. An axis of kernel size k has the weights 1 - |i - (k - 1) / 2| / ⌈k / 2⌉. Channels do not mix,
    with or without `groups=c`.

    Args:
        key: ignored, as nothing is random.
        shape: `(*kernel_size, channels, features)` with as many features as channels, or `(*kernel_size,
            channels / groups, features)`.
        dtype: dtype of the kernel.
        out_sharding: ignored.

    Raises:
        NetError: for features that are not a multiple of the channels.

    Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation" (2015), section 3.3.

    >>> bilinear_kernel(None, (4, 1, 1)).ravel().tolist()
    [0.25, 0.75, 0.75, 0.25]
    """
    *kernel_size, channels, features = shape
    if features % channels:
        raise NetError(f"expects as many features as channels, got {features} and {channels}", label="bilinear_kernel")
    kernel = jnp.tile(jnp.eye(channels, dtype=dtype), features // channels)
    # One axis at a time, from the last to the first.
    for size in reversed(kernel_size):
        distance = jnp.abs(jnp.arange(size, dtype=dtype) - (size - 1) / 2)  # from the center
        weights = 1 - distance / -(-size // 2)
        kernel = weights.reshape((-1,) + (1,) * kernel.ndim) * kernel[None]
    return kernel
