"""Images with a square missing."""

import jax
import jax.numpy as jnp

from jaxnets.data.augment import Augmentation, on_image
from jaxnets.data.labels import labelled_function
from jaxnets.errors import check_count
from jaxnets.net import Key


@labelled_function
def cutout(size: int) -> Augmentation:
    """Return a function that sets a random square of an image to zero, in all channels.

    The centre is any pixel with equal probability, so the square may reach over the edge, and less than its area is
    lost. Zero is the mean where the images are standardised.

    Args:
        size: the square's side in pixels, at least 1. Around the centre c it covers c - ⌊size/2⌋ … c + ⌈size/2⌉ - 1.

    Returns:
        A function of a key and an image `(height, width, channels)`.

    Raises:
        NetError: for a size < 1, or an image of another rank.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout" (2017), section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> print(cutout(2)(jax.random.key(3), jnp.ones((4, 4, 1)))[..., 0])
    [[1. 1. 1. 1.]
     [1. 1. 1. 1.]
     [1. 1. 0. 0.]
     [1. 1. 0. 0.]]
    """
    check_count("size", size)

    def cut(key: Key, image: jax.Array) -> jax.Array:
        lengths = image.shape[:2]
        first = jax.random.randint(key, (2,), 0, jnp.array(lengths)) - size // 2
        hole = box(lengths, first, first + size)
        return jnp.where(hole[..., None], jnp.zeros((), image.dtype), image)

    return on_image(cut)


def box(lengths: tuple[int, ...], first: jax.Array, end: jax.Array) -> jax.Array:
    """Tell which pixels `(height, width)` lie in a box from `first` up to, not including, `end`, both `(2,)`."""
    row, column = (jax.lax.broadcasted_iota(jnp.int32, lengths, axis) for axis in (0, 1))
    return (row >= first[0]) & (row < end[0]) & (column >= first[1]) & (column < end[1])
