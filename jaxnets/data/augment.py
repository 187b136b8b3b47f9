"""Random changes to an example that leave its label as it is: pure functions `(key, example) -> example`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnets.errors import NetError, check_count
from jaxnets.net import Key


def shift(pixels: int) -> Callable[[Key, jax.Array], jax.Array]:
    """Return a function that moves an image by up to some pixels along each axis, filling in zeros.

    Every displacement from -pixels to +pixels along each axis is equally likely.

    Args:
        pixels: the largest displacement, at least 1.

    Returns:
        A function of a key and an image `(height, width, channels)`; `jn.train.program(..., augment=shift(1))`
        draws anew for each example and step.

    Raises:
        NetError: if `pixels` < 1, or for an image of another rank.

    >>> import jax, jax.numpy as jnp
    >>> shift(1)(jax.random.key(0), jnp.ones((4, 4, 1))).shape
    (4, 4, 1)
    """
    check_count("pixels", pixels)

    def shift_fn(key: Key, image: jax.Array) -> jax.Array:
        if image.ndim != 3:
            raise NetError(f"expects an image (height, width, channels), got {image.shape}", label=f"shift({pixels})")
        framed = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
        row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        return jax.lax.dynamic_slice(framed, (row, column, 0), image.shape)

    return shift_fn
