"""Random boxes of an image: crops that are resized, and boxes that are erased. Each is a draw and what it does."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_fraction, check_positive, concrete
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key
from jaxnets.data.augment.transforms import Augmentation, box, happens, on_image

Range = tuple[Any, Any]
# How often a box is drawn until one fits, as in torchvision.
ATTEMPTS = 10


class Box(NamedTuple):
    """A box of pixels, from its top left corner; int32 scalars."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array


@labeled
def random_resized_crop(
    size: int | Sequence[int], *, scale: Range = (0.08, 1.0), ratio: Range = (3 / 4, 4 / 3)
) -> Augmentation:
    """Return a function that crops a random box out of an image and resizes it, the usual augmentation for ImageNet.

    The area of the box is uniform in `scale` of that of the image, and the logarithm of width/height in `ratio`; of ten
    draws the first that fits is taken, else the largest box in the center with an allowed ratio. It is interpolated
    bilinearly; where it is made smaller, each pixel averages over all that it covers (antialiasing).

    Args:
        size: height and width of the result, or one number for both; at least 1.
        scale: the smallest and largest share of the area, positive, at most 1. May be traced.
        ratio: the smallest and largest width/height, positive. May be traced.

    Returns:
        A function of a key and an image `(height, width, channels)` of any real dtype to `(*size, channels)` of that
        dtype; integers are interpolated in float32 and rounded.

    Raises:
        NetError: for a size < 1, a range out of order or out of bounds, or an image of another rank.

    Szegedy and others, "Going Deeper with Convolutions" (2015), section 6; torchvision's `RandomResizedCrop`.

    >>> import jax, jax.numpy as jnp
    >>> jax.jit(random_resized_crop(8))(jax.random.key(0), jnp.ones((20, 30, 3))).shape
    (8, 8, 3)
    """
    window = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(window) != 2:
        raise NetError(f"expects size as one number or (height, width), got {size!r}")
    for length in window:
        check_count("size", length)
    check_range("scale", scale, most=1.0)
    check_range("ratio", ratio)

    def crop(key: Key, image: jax.Array) -> jax.Array:
        return resized_crop(image, draw_crop(key, image.shape[:2], scale, ratio), window)

    return on_image(crop)


@labeled
def erase(
    probability: float | jax.Array = 0.5,
    *,
    scale: Range = (0.02, 0.33),
    ratio: Range = (0.3, 3.3),
    value: float | Sequence[float] | None = 0.0,
) -> Augmentation:
    """Return a function that erases a random box of an image with some probability.

    The area of the box is uniform in `scale` of that of the image, and the logarithm of height/width in `ratio`; of ten
    draws the first that is smaller than the image is taken; without one, nothing is erased.

    Args:
        probability: in [0, 1]; may be traced.
        scale: the smallest and largest share of the area, positive, at most 1. May be traced.
        ratio: the smallest and largest height/width, positive. May be traced.
        value: what the box is filled with: a number, one for each channel, or `None` for normal noise N(0, 1). Zero is
            the mean of standardized images.

    Returns:
        A function of a key and an image `(height, width, channels)`.

    Raises:
        NetError: for a probability outside [0, 1], a range out of order or out of bounds, values for another number of
            channels, noise for integers, or an image of another rank.

    Zhong and others, "Random Erasing Data Augmentation" (2020); torchvision's `RandomErasing`.

    >>> import jax, jax.numpy as jnp
    >>> erased = jax.jit(erase(1.0))(jax.random.key(0), jnp.ones((20, 20, 1)))
    >>> bool(0.02 * 400 < (erased == 0).sum() < 0.34 * 400)
    True
    """
    check_fraction("probability", probability, one=True)
    check_range("scale", scale, most=1.0)
    check_range("ratio", ratio)

    def erase_box(key: Key, image: jax.Array) -> jax.Array:
        whether, where, what = jax.random.split(key, 3)
        hole, fits = draw_hole(where, image.shape[:2], scale, ratio)
        if value is None:
            if not jnp.issubdtype(image.dtype, jnp.floating):
                raise NetError(f"expects a floating image for noise, got {image.dtype}; give a value, or convert it")
            filling = jax.random.normal(what, image.shape, param_dtype(image)).astype(image.dtype)
        else:
            filling = jnp.asarray(value).astype(image.dtype)
            if filling.shape not in ((), (1,), image.shape[2:]):
                raise NetError(f"expects one value, or {image.shape[2]} for the channels, got {filling.shape}")
            filling = jnp.broadcast_to(filling, image.shape[2:])[None, None]
        return jnp.where(happens(whether, probability) & fits, erased(image, hole, filling), image)

    return on_image(erase_box)


def draw_crop(key: Key, lengths: tuple[int, ...], scale: Range, ratio: Range) -> Box:
    """Draw the box of `random_resized_crop` for an image of a height and width."""
    height, width = lengths
    sizes, corner = jax.random.split(key)
    low, high = (jnp.asarray(end, jnp.float32) for end in ratio)
    # width/height
    tall, wide = _draw_sizes(sizes, lengths, scale, (1 / high, 1 / low))
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    # The largest box in the center, where none of the draws fits.
    own = width / height
    whole_tall = jnp.where(own < low, jnp.round(width / low), height)
    whole_wide = jnp.where(own > high, jnp.round(height * high), width)
    first = jnp.argmax(fits)
    tall = jnp.where(fits.any(), tall[first], whole_tall.astype(jnp.int32))
    wide = jnp.where(fits.any(), wide[first], whole_wide.astype(jnp.int32))
    free = jnp.stack([height - tall, width - wide])
    top, left = jnp.where(fits.any(), jax.random.randint(corner, (2,), 0, free + 1), free // 2)
    return Box(top, left, tall, wide)


def draw_hole(key: Key, lengths: tuple[int, ...], scale: Range, ratio: Range) -> tuple[Box, jax.Array]:
    """Draw the box of `erase` for an image of a height and width, and whether one fits."""
    height, width = lengths
    sizes, corner = jax.random.split(key)
    tall, wide = _draw_sizes(sizes, lengths, scale, ratio)
    fits = (tall < height) & (wide < width)
    first = jnp.argmax(fits)
    free = jnp.maximum(jnp.stack([height - tall[first], width - wide[first]]), 0)
    top, left = jax.random.randint(corner, (2,), 0, free + 1)
    return Box(top, left, tall[first], wide[first]), fits.any()


def _draw_sizes(key: Key, lengths: tuple[int, ...], scale: Range, ratio: Range) -> tuple[jax.Array, jax.Array]:
    """Draw heights and widths `(ATTEMPTS,)` by their share of the area and height/width."""
    low, high = (jnp.asarray(end, jnp.float32) for end in scale)
    flat, tall = (jnp.log(jnp.asarray(end, jnp.float32)) for end in ratio)
    area, shape = jax.random.uniform(key, (2, ATTEMPTS))
    area = (low + (high - low) * area) * (lengths[0] * lengths[1])
    ratios = jnp.exp(flat + (tall - flat) * shape)
    return jnp.round(jnp.sqrt(area * ratios)).astype(jnp.int32), jnp.round(jnp.sqrt(area / ratios)).astype(jnp.int32)


def resized_crop(image: jax.Array, crop: Box, size: tuple[int, ...]) -> jax.Array:
    """Return a box of an image at another size: bilinear, antialiased, by weights of the pixels of the box alone."""
    values = image.astype(param_dtype(image))
    rows = _weights(image.shape[0], crop.top, crop.height, size[0], values.dtype)
    columns = _weights(image.shape[1], crop.left, crop.width, size[1], values.dtype)
    exact = jax.lax.Precision.HIGHEST
    resized = jnp.einsum("ih,hwc,jw->ijc", rows, values, columns, precision=exact)
    floating = jnp.issubdtype(image.dtype, jnp.floating)
    return (resized if floating else jnp.round(resized)).astype(image.dtype)


def _weights(length: int, first: jax.Array, count: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Return how much each of `length` pixels counts in each of `size` new ones, `(size, length)`."""
    # The width of a new pixel in old ones, at least 1 for interpolation.
    step = count.astype(dtype) / size
    support = jnp.maximum(step, 1)
    center = (jnp.arange(size, dtype=dtype)[:, None] + 0.5) * step
    place = (jnp.arange(length, dtype=jnp.int32) - first)[None]
    weights = jnp.maximum(1 - jnp.abs(place.astype(dtype) + 0.5 - center) / support, 0)
    weights = jnp.where((place >= 0) & (place < count), weights, 0)
    return weights / weights.sum(1, keepdims=True)


def erased(image: jax.Array, hole: Box, filling: jax.Array) -> jax.Array:
    """Return an image with a box of `filling`, which has one value for each pixel or channel."""
    first = jnp.stack([hole.top, hole.left])
    mask = box(image.shape[:2], first, first + jnp.stack([hole.height, hole.width]))
    return jnp.where(mask[..., None], filling, image)


def check_range(name: str, ends: Any, *, most: float | None = None) -> None:
    """Check that a range is a pair of positive numbers in order.

    Raises:
        NetError: if it is not.
    """
    if not isinstance(ends, tuple | list) or len(ends) != 2:
        raise NetError(f"expects {name} as (smallest, largest), got {ends!r}")
    for end in ends:
        check_positive(name, end)
    low, high = (concrete(end, name) for end in ends)
    if (low is not None and high is not None and low > high) or (most is not None and (high or 0.0) > most):
        raise NetError(
            f"expects {name} as (smallest, largest)" + (f" up to {most:g}" if most else "") + f", got {ends}"
        )
