"""Random changes of color, as in torchvision: images are floating, from 0 to 1, of one channel or red, green, blue."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_positive, concrete
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key
from jaxnets.data.augment.transforms import Augmentation, on_image

Strength = float | jax.Array | tuple[Any, Any]
Change = Callable[[jax.Array, jax.Array], jax.Array]


def on_colors(change: Callable[[Key, jax.Array], jax.Array]) -> Augmentation:
    """Return `change` as an augmentation that requires a floating image of 1 or 3 channels; it works in float32."""

    def changed(key: Key, image: jax.Array) -> jax.Array:
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise NetError(f"expects a floating image from 0 to 1, got {image.dtype}; divide bytes by 255 first")
        if image.shape[2] not in (1, 3):
            raise NetError(f"expects an image of 1 or 3 channels, got {image.shape}")
        return change(key, image.astype(param_dtype(image))).astype(image.dtype)

    return on_image(changed)


def blend(image: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
    """Return factor · image + (1 - factor) · other, cut to [0, 1]."""
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def gray(image: jax.Array) -> jax.Array:
    """Return the brightness of each pixel, `(height, width, 1)`."""
    if image.shape[2] == 1:
        return image
    return (image * jnp.array([[[0.2989, 0.587, 0.114]]], image.dtype)).sum(-1, keepdims=True)


def adjust_brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend an image with black."""
    return blend(image, jnp.zeros_like(image), factor)


def adjust_contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend an image with its mean brightness."""
    return blend(image, jnp.full_like(image, gray(image).mean()), factor)


def adjust_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend an image with its gray version; a gray image stays as it is."""
    return image if image.shape[2] == 1 else blend(image, gray(image), factor)


def adjust_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
    """Turn the hue of an image, in full turns of the color circle; a gray image stays as it is."""
    if image.shape[2] == 1:
        return image
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value, low = image.max(-1), image.min(-1)
    span = jnp.where(value == low, 1, value - low)
    saturation = (value - low) / jnp.where(value == low, 1, value)
    # Distances from the brightest channel.
    r, g, b = ((value - each) / span for each in (red, green, blue))
    hue = jnp.where(value == red, b - g, jnp.where(value == green, 2 + r - b, 4 + g - r))
    hue = jnp.mod(jnp.mod(hue / 6 + 1, 1) + turn, 1)
    # Each channel falls and rises along the circle; red at 0, green at 1/3, blue at 2/3.
    sixth = jnp.floor(hue * 6)
    rest = hue * 6 - sixth
    p, q, t = (jnp.clip(value * (1 - saturation * part), 0, 1) for part in (jnp.ones_like(rest), rest, 1 - rest))
    place = sixth.astype(jnp.int32) % 6
    channels = ([value, q, p, p, t, value], [t, value, value, q, p, p], [p, p, t, value, value, q])
    return jnp.stack([jnp.choose(place, each, mode="clip") for each in channels], -1)


# In torchvision's order.
ADJUSTMENTS: dict[str, Change] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


@labeled
def color_jitter(
    brightness: Strength = 0.0, contrast: Strength = 0.0, saturation: Strength = 0.0, hue: Strength = 0.0
) -> Augmentation:
    """Return a function that changes brightness, contrast, saturation and hue by random amounts, in random order.

    With a factor f the image x becomes f · x + (1 - f) · z, cut to [0, 1], where z is black for brightness, the mean
    brightness for contrast, and the gray image for saturation. f is uniform in [max(0, 1 - strength), 1 + strength],
    the turn of the hue in [-hue, hue].

    Args:
        brightness: ≥ 0, or a pair of the smallest and largest factor. May be traced.
        contrast: likewise.
        saturation: likewise; gray images stay as they are.
        hue: in [0, 0.5], or a pair from -0.5 to 0.5: the largest turn, in full turns of the color circle.

    Returns:
        A function of a key and an image `(height, width, channels)`, floating from 0 to 1, with 1 or 3 channels.

    Raises:
        NetError: for a strength out of bounds, an integer image, or one of another rank or number of channels.

    torchvision's `ColorJitter`.

    >>> import jax, jax.numpy as jnp
    >>> augment = color_jitter(0.4, 0.4, 0.4, hue=0.1)
    >>> jax.jit(augment)(jax.random.key(0), jnp.full((4, 4, 3), 0.5)).shape
    (4, 4, 3)
    """
    given = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    ranges = {name: _ends(name, strength) for name, strength in given.items()}
    # Those known to change nothing are left out.
    chosen = {name: ends for name, ends in ranges.items() if ends is not None}

    def jitter(key: Key, image: jax.Array) -> jax.Array:
        if not chosen:
            return image
        order, drawn = jax.random.split(key)
        ends = jnp.asarray([[jnp.asarray(end, image.dtype) for end in ends] for ends in chosen.values()])
        factors = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * jax.random.uniform(drawn, (len(chosen),), image.dtype)
        return adjusted(image, tuple(chosen), jax.random.permutation(order, len(chosen)), factors)

    return on_colors(jitter)


def adjusted(image: jax.Array, names: tuple[str, ...], order: jax.Array, factors: jax.Array) -> jax.Array:
    """Apply adjustments one after another: `order[i]` is the place in `names` and `factors` of the i-th."""
    changes = [ADJUSTMENTS[name] for name in names]
    for place in order:
        image = jax.lax.switch(place, changes, image, factors[place])
    return image


def _ends(name: str, strength: Strength) -> tuple[Any, Any] | None:
    """Return the smallest and largest factor, `None` if it is known to change nothing."""
    neutral = 0.0 if name == "hue" else 1.0
    if isinstance(strength, tuple | list):
        if len(strength) != 2:
            raise NetError(f"expects {name} as one number or (smallest, largest), got {strength!r}")
        low, high = strength
    else:
        check_positive(name, strength, zero=True)
        known = concrete(strength, name)
        low, high = neutral - strength, neutral + strength
        if name != "hue":
            low = jnp.maximum(low, 0) if known is None else max(0.0, low)  # pyright: ignore
    first, last = concrete(low, name), concrete(high, name)
    if first is None or last is None:
        return low, high
    least, most = (-0.5, 0.5) if name == "hue" else (0.0, float("inf"))
    if not least <= first <= last <= most:
        bounds = "from -0.5 to 0.5" if name == "hue" else "≥ 0"
        raise NetError(f"expects {name} {bounds}, the smallest first, got {strength}")
    return None if first == last == neutral else (low, high)
