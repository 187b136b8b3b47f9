"""Random changes to an example that leave its label as it is: pure functions `(key, example) -> example`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.data.labels import labelled_function
from jaxnets.errors import NetError, check_positive, concrete
from jaxnets.layers.checks import param_dtype
from jaxnets.net import Key

Augmentation = Callable[[Key, Any], Any]


@labelled_function
def compose(*augmentations: Augmentation) -> Augmentation:
    """Return the function that applies augmentations one after another, each with a key of its own.

    The key of the augmentation at place i is `fold_in(key, i)`: what one draws tells nothing about what another
    draws, and one appended at the end leaves all before it as they were.

    Args:
        *augmentations: functions `(key, example) -> example`.

    Raises:
        NetError: if one can't be called.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> augment = compose(jn.data.random_crop(28, padding=2), jn.data.flip(), jn.data.cutout(8))
    >>> augment(jax.random.key(0), jnp.ones((28, 28, 1))).shape
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


@labelled_function
def noise(scale: float | jax.Array) -> Augmentation:
    """Return a function that adds Gaussian noise: x + scale · ε, ε ~ N(0, 1), drawn for each value.

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


def on_image(change: Callable[[Key, jax.Array], jax.Array]) -> Augmentation:
    """Return an augmentation that asks for an image."""

    def augment_fn(key: Key, image: Any) -> jax.Array:
        image = jnp.asarray(image)
        if image.ndim != 3:
            mend = "; map it over a batch with jax.vmap, a key for each" if image.ndim == 4 else ""
            raise NetError(f"expects an image (height, width, channels), got {image.shape}{mend}")
        return change(key, image)

    return augment_fn


def check_probability(value: Any) -> None:
    """Check that a probability lies in [0, 1] where its value is known.

    Raises:
        NetError: if it lies outside.
    """
    known = concrete(value)
    if known is not None and not 0.0 <= known <= 1.0:
        raise NetError(f"expects probability in [0, 1], got {known:g}")


def happens(key: Key, probability: Any) -> jax.Array:
    """Draw whether something of a probability, traced or not, happens."""
    return jax.random.bernoulli(key, jnp.asarray(probability, jnp.float32))
