"""Random changes of an example that keep its label, as pure functions `(key, example) -> example`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_fraction, check_positive, is_traced
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key

Augmentation = Callable[[Key, Any], Any]
Angle = float | jax.Array


@labeled
def compose(*augmentations: Augmentation) -> Augmentation:
    """Return the function that applies augmentations one after another, each with its own key.

    Augmentation i gets `fold_in(key, i)`: their draws are independent, and appending one does not change those before
    it.

    Args:
        *augmentations: functions `(key, example) -> example`.

    Raises:
        NetError: if one is not callable.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> augment = compose(jn.data.random_crop(28, padding=2), jn.data.flip(), jn.data.cutout(8))
    >>> jax.jit(augment)(jax.random.key(0), jnp.ones((28, 28, 1))).shape
    (28, 28, 1)
    """
    for each in augmentations:
        if not callable(each):
            raise NetError(f"expects functions (key, example) -> example, got {type(each).__name__} {each!r}")

    def augment_fn(key: Key, example: Any) -> Any:
        for place, augment in enumerate(augmentations):
            example = augment(jax.random.fold_in(key, place), example)
        return example

    return augment_fn


@labeled
def noise(scale: float | jax.Array) -> Augmentation:
    """Return a function that adds Gaussian noise to each value: x + scale · ε, ε ~ N(0, 1).

    Args:
        scale: the standard deviation, ≥ 0, in the units of the example. May be traced.

    Returns:
        A function of a key and a floating array of any shape.

    Raises:
        NetError: for a negative scale, or an example that is not floating.

    Bishop, "Training with Noise is Equivalent to Tikhonov Regularization" (1995).

    >>> import jax, jax.numpy as jnp
    >>> x = noise(0.1)(jax.random.key(0), jnp.zeros(10_000))
    >>> bool(jnp.allclose(x.std(), 0.1, atol=0.003))
    True
    """
    check_positive("scale", scale, zero=True)

    def noise_fn(key: Key, example: Any) -> jax.Array:
        example = jnp.asarray(example)
        if not jnp.issubdtype(example.dtype, jnp.floating):
            raise NetError(f"expects a floating example, got {example.dtype}; convert it first")
        drawn = jax.random.normal(key, example.shape, param_dtype(example))
        return example + (jnp.asarray(scale, drawn.dtype) * drawn).astype(example.dtype)

    return noise_fn


@labeled
def random_crop(size: int | Sequence[int], *, padding: int = 0) -> Augmentation:
    """Return a function that crops a window out of an image, at a uniformly random position.

    Args:
        size: height and width of the window, or one number for both; at least 1.
        padding: zeros to add on each side first, ≥ 0. `random_crop(32, padding=4)` for 32 × 32 images is the usual
            augmentation for CIFAR, and equals `shift(4)`.

    Returns:
        A function of a key and an image `(height, width, channels)` to the window's size.

    Raises:
        NetError: for a size < 1, negative padding, an image of another rank, or one smaller than the window.

    >>> import jax, jax.numpy as jnp
    >>> jax.jit(random_crop((4, 3)))(jax.random.key(0), jnp.ones((6, 6, 1))).shape
    (4, 3, 1)
    """
    window = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(window) != 2:
        raise NetError(f"expects size as one number or (height, width), got {size!r}")
    for length in window:
        check_count("size", length)
    check_count("padding + 1", padding + 1)
    return on_image(lambda key, image: _crop(key, image, window, padding))


@labeled
def shift(pixels: int) -> Augmentation:
    """Return a function that moves an image by a random number of pixels along each axis, and fills with zeros.

    Along each axis, every displacement from -pixels to +pixels is equally likely.

    Args:
        pixels: the largest displacement, at least 1.

    Returns:
        A function of a key and an image `(height, width, channels)`; `jn.train.program(..., augment=shift(1))`
        draws again for each example and step.

    Raises:
        NetError: if `pixels` < 1, or for an image of another rank.

    >>> import jax, jax.numpy as jnp
    >>> jax.jit(shift(1))(jax.random.key(0), jnp.ones((4, 4, 1))).shape
    (4, 4, 1)
    """
    check_count("pixels", pixels)
    return on_image(lambda key, image: _crop(key, image, image.shape[:2], pixels))


@labeled
def flip(axis: int = 1, *, probability: float | jax.Array = 0.5) -> Augmentation:
    """Return a function that flips an image with some probability.

    Args:
        axis: 1 swaps left and right, 0 swaps top and bottom.
        probability: in [0, 1]; may be traced.

    Returns:
        A function of a key and an image `(height, width, channels)`.

    Raises:
        NetError: for another axis, a probability outside [0, 1], or an image of another rank.

    >>> import jax, jax.numpy as jnp
    >>> print(flip(probability=1.0)(jax.random.key(0), jnp.array([[[1], [2], [3]]]))[0, :, 0])
    [3 2 1]
    """
    if axis not in (0, 1):
        raise NetError(f"expects axis 0 (top and bottom) or 1 (left and right), got {axis!r}")
    check_fraction("probability", probability, one=True)
    return on_image(lambda key, image: jnp.where(happens(key, probability), jnp.flip(image, axis), image))


@labeled
def rotate(degrees: Angle | tuple[Angle, Angle]) -> Augmentation:
    """Return a function that rotates an image about its center by a random angle.

    The angle is uniform from -degrees to +degrees, counterclockwise if positive. The image is interpolated bilinearly;
    outside of it is 0.

    Args:
        degrees: the largest angle, ≥ 0, or a pair of the smallest and largest. May be traced.

    Returns:
        A function of a key and an image `(height, width, channels)` of any real dtype to the same shape and dtype;
        integers are interpolated in float32 and rounded.

    Raises:
        NetError: for a negative angle or a pair in the wrong order, or an image of another rank.

    >>> import jax, jax.numpy as jnp
    >>> quarter = jax.jit(rotate((90.0, 90.0)))
    >>> print(quarter(jax.random.key(0), jnp.array([[[1], [2]], [[3], [4]]]))[..., 0])
    [[2 4]
     [1 3]]
    """
    low, high = degrees if isinstance(degrees, tuple) else (-degrees, degrees)
    if not (is_traced(low) or is_traced(high)) and not low <= high:
        raise NetError(f"expects degrees ≥ 0, or a pair (smallest, largest), got {degrees}")

    def rotate_by_random_angle(key: Key, image: jax.Array) -> jax.Array:
        values = image.astype(param_dtype(image))
        ends = [jnp.asarray(end, values.dtype) for end in (low, high)]
        rotated = _rotate(values, jnp.deg2rad(jax.random.uniform(key, (), values.dtype, *ends)))
        exact = jnp.issubdtype(image.dtype, jnp.floating)
        return (rotated if exact else jnp.round(rotated)).astype(image.dtype)

    return on_image(rotate_by_random_angle)


@labeled
def cutout(size: int) -> Augmentation:
    """Return a function that sets a random square of an image to zero, in all channels.

    The center is any pixel with equal probability, so the square may be clipped at the edge. Zero is the mean of
    standardized images.

    Args:
        size: the side of the square in pixels, at least 1. Along each axis it covers c - ⌊size/2⌋ … c + ⌈size/2⌉ - 1,
            with the center at c.

    Returns:
        A function of a key and an image `(height, width, channels)`.

    Raises:
        NetError: for a size < 1, or an image of another rank.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout" (2017), section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> print(jax.jit(cutout(2))(jax.random.key(3), jnp.ones((4, 4, 1)))[..., 0])
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


def on_image(change: Callable[[Key, jax.Array], jax.Array]) -> Augmentation:
    """Return `change` as an augmentation that requires an image `(height, width, channels)`."""

    def augment_fn(key: Key, image: Any) -> jax.Array:
        image = jnp.asarray(image)
        if image.ndim != 3:
            hint = "; map it over a batch with jax.vmap, a key for each" if image.ndim == 4 else ""
            raise NetError(f"expects an image (height, width, channels), got {image.shape}{hint}")
        return change(key, image)

    return augment_fn


def _crop(key: Key, image: jax.Array, size: tuple[int, ...], padding: int) -> jax.Array:
    """Pad an image with zeros, and cut a window of the given size out of it at a random position."""
    framed = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    (height, width), (rows, columns) = size, framed.shape[:2]
    if height > rows or width > columns:
        raise NetError(f"expects an image of at least {height} × {width} with its padding, got {rows} × {columns}")
    places = jnp.array([rows - height + 1, columns - width + 1])
    row, column = jax.random.randint(key, (2,), 0, places)
    return jax.lax.dynamic_slice(framed, (row, column, 0), (height, width, image.shape[2]))


def _rotate(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotate an image counterclockwise by an angle in radians."""
    height, width, _ = image.shape
    # Coordinates from the center: (height, 1) and (1, width).
    down = (jnp.arange(height, dtype=image.dtype) - (height - 1) / 2)[:, None]
    right = (jnp.arange(width, dtype=image.dtype) - (width - 1) / 2)[None, :]
    # The source of each pixel, (height, width), in the image with a frame of zeros one pixel wide.
    row = jnp.clip(jnp.cos(angle) * down + jnp.sin(angle) * right + (height + 1) / 2, 0, height + 1)
    column = jnp.clip(jnp.cos(angle) * right - jnp.sin(angle) * down + (width + 1) / 2, 0, width + 1)
    framed = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    # The four pixels around each source, weighted by their distances below and beside it.
    top = jnp.minimum(jnp.floor(row).astype(jnp.int32), height)
    left = jnp.minimum(jnp.floor(column).astype(jnp.int32), width)
    below, beside = (row - top.astype(row.dtype))[..., None], (column - left.astype(row.dtype))[..., None]
    upper = framed[top, left] * (1 - beside) + framed[top, left + 1] * beside
    lower = framed[top + 1, left] * (1 - beside) + framed[top + 1, left + 1] * beside
    return upper * (1 - below) + lower * below


def box(lengths: tuple[int, ...], first: jax.Array, end: jax.Array) -> jax.Array:
    """Return the mask `(height, width)` of the pixels in a box from `first` to `end`, exclusive; both are `(2,)`."""
    row, column = (jax.lax.broadcasted_iota(jnp.int32, lengths, axis) for axis in (0, 1))
    return (row >= first[0]) & (row < end[0]) & (column >= first[1]) & (column < end[1])


def happens(key: Key, probability: Any) -> jax.Array:
    """Draw True with a probability, traced or not."""
    return jax.random.bernoulli(key, jnp.asarray(probability, jnp.float32))
