"""The halves of every autoencoder: an encoder from examples of one shape, and a decoder back to that shape."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators import Layer, serial
from jaxnets.errors import NetError, check_counts, labelled_as
from jaxnets.layers import conv, conv_transpose, dense, flatten, unflatten
from jaxnets.leaf import lift
from jaxnets.net import Key, Net, Params, State
from jaxnets.recorded import recorded

_HE = jax.nn.initializers.he_normal()


def dense_halves(shape: Sequence[int], widths: Sequence[int], head: Net, activation: Callable) -> tuple[Net, Net]:
    """Return a fully connected encoder that ends in `head`, and the decoder from there to `shape`."""
    check_counts("shape", shape)
    check_counts("widths", widths)
    inward = [layer for width in widths for layer in (dense(width, kernel_init=_HE), activation)]
    outward = [layer for width in reversed(widths) for layer in (dense(width, kernel_init=_HE), activation)]
    encoder = serial(_only(shape, lift(flatten)), *inward, head)
    return encoder, serial(*outward, dense(math.prod(shape)), unflatten(shape))


def conv_halves(shape: Sequence[int], features: Sequence[int], head: Net, activation: Callable) -> tuple[Net, Net]:
    """Return a convolutional encoder that ends in `head`, and the decoder from there to `shape`."""
    check_counts("shape", shape)
    check_counts("features", features)
    if not 2 <= len(shape) <= 4 or not features:
        raise NetError(
            f"expects a shape (*spatial, channels) and at least one number of features, got {tuple(shape)} and "
            f"{tuple(features)}",
            label="conv_autoencoder",
        )
    sizes = [tuple(shape[:-1])]  # after each convolution
    inward: list[Layer] = []
    for width in features:
        inward += [conv(width, 3, stride=2, padding=1, kernel_init=_HE), activation]
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
    inward[0] = _only(shape, lift(inward[0]))
    small = (*sizes[-1], features[-1])
    outward: list[Layer] = [dense(math.prod(small), kernel_init=_HE), activation, unflatten(small)]
    for size, width in zip(sizes[-2:0:-1], features[-2::-1]):
        outward += [_double(width, size, kernel_init=_HE), activation]
    return serial(*inward, flatten, head), serial(*outward, _double(shape[-1], sizes[0]))


def _double(width: int, size: tuple[int, ...], **options: Any) -> Net:
    """Return the transposed convolution whose output has a size, where its input has the half, rounded up."""
    return conv_transpose(width, 3, stride=2, padding=1, output_padding=tuple(1 - n % 2 for n in size), **options)


@recorded
def _only(shape: Sequence[int], layer: Net) -> Net:
    """Return a layer that takes examples of one shape alone."""

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        with labelled_as(layer.label):
            if jnp.shape(x)[1:] != tuple(shape):
                wanted = ", ".join(map(str, ("batch", *shape)))
                raise NetError(f"expects ({wanted}), the shape this network was made for, got {jnp.shape(x)}")
        return layer.apply(params, state, x, key=key, train=train)

    return replace(layer, apply=apply)
