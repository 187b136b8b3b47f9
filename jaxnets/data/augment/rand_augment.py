"""RandAugment: a few operations of a list, drawn anew for each image, all of one strength."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, check_count, is_traced
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key
from jaxnets.data.augment.colors import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    blend,
    on_colors,
)
from jaxnets.data.augment.transforms import Augmentation

Operation = Callable[[jax.Array, jax.Array], jax.Array]


@labeled
def rand_augment(operations: int = 2, magnitude: int | jax.Array = 9, *, bins: int = 31) -> Augmentation:
    """Return a function that applies random operations of one strength, one after another.

    Each is drawn from 14 with equal probability: identity; shear, translate along x or y; rotate; brightness, color,
    contrast, sharpness; posterize, solarize; autocontrast, equalize. Those with a direction take a random one. A
    magnitude of `bins` - 1 shears by 0.3, translates by 150/331 of the image, rotates by 30 degrees, changes colors by
    a factor 1 ± 0.9, keeps 4 bits and inverts all pixels. The nearest pixel is taken, and 0 outside the image;
    posterize and equalize round to 8 bits.

    Args:
        operations: the number of operations, at least 1.
        magnitude: their strength, an integer from 0 to `bins` - 1. May be traced, to be swept.
        bins: the number of strengths, at least 2.

    Returns:
        A function of a key and an image `(height, width, channels)`, floating from 0 to 1, with 1 or 3 channels. Under
        `vmap` all 14 operations are computed for each image, and one is chosen.

    Raises:
        NetError: for a number out of range, an integer image, or one of another rank or number of channels.

    Cubuk and others, "RandAugment: Practical automated data augmentation with a reduced search space" (2020);
    torchvision's `RandAugment`, in operations, magnitudes and values.

    >>> import jax, jax.numpy as jnp
    >>> jax.jit(rand_augment())(jax.random.key(0), jnp.full((8, 8, 3), 0.5)).shape
    (8, 8, 3)
    """
    check_count("operations", operations)
    check_count("bins - 1", bins - 1)
    if not is_traced(magnitude) and not 0 <= magnitude < bins:
        raise NetError(f"expects magnitude from 0 to {bins - 1}, got {magnitude}; bins sets the number of strengths")

    def augment(key: Key, image: jax.Array) -> jax.Array:
        numbers, signs = jax.random.split(key)
        numbers = jax.random.randint(numbers, (operations,), 0, len(OPERATIONS))
        signs = jax.random.bernoulli(signs, shape=(operations,))
        for number, negative in zip(numbers, signs):
            image = operate(image, number, strengths(image.shape, bins)[number, magnitude], negative)
        return image

    return on_colors(augment)


def operate(image: jax.Array, number: jax.Array, strength: jax.Array, negative: jax.Array) -> jax.Array:
    """Apply an operation by its number in `OPERATIONS`; those with a direction take the negative one if asked."""
    signed = jnp.asarray([name in SIGNED for name in OPERATIONS])[number]
    strength = jnp.where(signed & negative, -strength, strength).astype(image.dtype)
    return jax.lax.switch(number, list(OPERATIONS.values()), image, strength)


def strengths(shape: tuple[int, ...], bins: int) -> jax.Array:
    """Return the strength of each operation for each magnitude, `(operations, bins)` float32."""
    height, width, _ = shape
    share = np.linspace(0.0, 1.0, bins)
    ends = {
        **{"shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331 * width, "translate_y": 150 / 331 * height},
        **{"rotate": 30.0, "brightness": 0.9, "color": 0.9, "contrast": 0.9, "sharpness": 0.9},
    }
    rows = {name: end * share for name, end in ends.items()}
    # The bits that are kept, and the value from which pixels are inverted.
    rows |= {"posterize": 8 - np.round(np.arange(bins) / ((bins - 1) / 4)), "solarize": 1 - share}
    return jnp.asarray(np.stack([rows.get(name, 0 * share) for name in OPERATIONS]), jnp.float32)


def _sample(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the nearest pixel at places `(height, width)` from the center, 0 outside the image."""
    height, width, _ = image.shape
    column = jnp.round(x + (width - 1) / 2).astype(jnp.int32)
    row = jnp.round(y + (height - 1) / 2).astype(jnp.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    found = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], found, 0)


def _places(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the coordinates of each pixel from the center, both `(height, width)`."""
    height, width, _ = image.shape
    x, y = (jnp.arange(length, dtype=image.dtype) - (length - 1) / 2 for length in (width, height))
    return jnp.broadcast_to(x[None], (height, width)), jnp.broadcast_to(y[:, None], (height, width))


def _shear_x(image: jax.Array, slope: jax.Array) -> jax.Array:
    x, y = _places(image)
    return _sample(image, x + slope * (y + image.shape[0] / 2), y)


def _shear_y(image: jax.Array, slope: jax.Array) -> jax.Array:
    x, y = _places(image)
    return _sample(image, x, y + slope * (x + image.shape[1] / 2))


def _translate_x(image: jax.Array, pixels: jax.Array) -> jax.Array:
    x, y = _places(image)
    return _sample(image, x - jnp.trunc(pixels), y)


def _translate_y(image: jax.Array, pixels: jax.Array) -> jax.Array:
    x, y = _places(image)
    return _sample(image, x, y - jnp.trunc(pixels))


def _rotate(image: jax.Array, degrees: jax.Array) -> jax.Array:
    (x, y), angle = _places(image), jnp.deg2rad(degrees)
    return _sample(image, jnp.cos(angle) * x - jnp.sin(angle) * y, jnp.sin(angle) * x + jnp.cos(angle) * y)


def _sharpness(image: jax.Array, change: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    if height <= 2 or width <= 2:
        return image
    # The mean of 3 × 3 pixels, in which the one in the middle counts five times; the border stays.
    windows = [image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    smooth = (sum(windows) + 4 * windows[4]) / 13
    return blend(image, image.at[1:-1, 1:-1].set(smooth), 1 + change)


def _posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    step = jnp.exp2(8 - bits)
    return jnp.floor(_bytes(image) / step) * step / 255


def _solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    return jnp.where(image >= threshold, 1 - image, image)


def _autocontrast(image: jax.Array, _: jax.Array) -> jax.Array:
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    stretched = jnp.clip((image - low) / jnp.where(high > low, high - low, 1), 0, 1)
    return jnp.where(high > low, stretched, image)


def _equalize(image: jax.Array, _: jax.Array) -> jax.Array:
    def channel(values: jax.Array) -> jax.Array:
        numbers = _bytes(values).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[numbers].add(1)
        # The pixels that are not of the highest value, in 255 equal steps.
        step = (numbers.size - counts[numbers.max()]) // 255
        table = (jnp.cumsum(counts) - counts + step // 2) // jnp.maximum(step, 1)
        return jnp.where(step == 0, numbers, jnp.clip(table, 0, 255)[numbers])

    return jax.vmap(channel, 2, 2)(image).astype(image.dtype) / 255


def _bytes(image: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(image * 255), 0, 255)


# In torchvision's order.
OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, _: image,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": lambda image, change: adjust_brightness(image, 1 + change),
    "color": lambda image, change: adjust_saturation(image, 1 + change),
    "contrast": lambda image, change: adjust_contrast(image, 1 + change),
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
SIGNED = [*OPERATIONS][1:10]
