"""Autoencoders: fully connected, convolutional and denoising; variational ones use the same encoders and decoders."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxnets.combinators.serial import Layer, serial
from jaxnets.core.errors import NetError, check_counts, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.layer import as_net
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.value import recorded
from jaxnets.layers import conv, conv_transpose, dense, flatten, unflatten
from jaxnets.models.images import of_images

_HE = jax.nn.initializers.he_normal()


@explained
def autoencoder(
    shape: Sequence[int], widths: Sequence[int] = (128,), code: int = 32, *, activation: Callable = jax.nn.relu
) -> Net:
    """Return a fully connected autoencoder: layers of `widths` to the code, and back in reverse order.

    The outputs are logits, for `jn.losses.binary_cross_entropy` with targets from 0 to 1, or real values, for
    `jn.losses.squared_error`. Code and output are linear. `net.upto("encoder")` returns the codes, and
    `net["decoder"].apply(params["decoder"], {}, codes)` decodes them. Children are numbered as in `nn.Sequential`.

    Args:
        shape: the shape of one example, such as `(28, 28, 1)`, without the batch axis.
        widths: the widths of the hidden layers, from input to code.
        code: the width of the code.
        activation: the function after each hidden layer.

    Returns:
        A network from `(batch, *shape)` to the same shape.

    Raises:
        NetError: when applied to examples of another shape.

    Hinton and Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks" (2006), which has the
    widths 1000, 500, 250, a code of 30 and logistic units.

    >>> import jax, jax.numpy as jnp
    >>> net = autoencoder((28, 28, 1), (1000, 500, 250), 30, activation=jax.nn.sigmoid)
    >>> params, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    2837314
    """
    encoder, decoder = dense_halves(shape, widths, dense(code), activation)
    return serial(encoder=encoder, decoder=decoder)


@explained
def conv_autoencoder(
    shape: Sequence[int], features: Sequence[int] = (32, 64), code: int = 32, *, activation: Callable = jax.nn.relu
) -> Net:
    """Return a convolutional autoencoder: each convolution halves the size, each transposed convolution doubles it.

    All kernels have size 3 and stride 2; an odd size n becomes (n + 1) / 2, and n again in the decoder. The code
    between encoder and decoder is linear. Outputs, `net.upto("encoder")` and `net["decoder"]` are as for `autoencoder`.

    Args:
        shape: the shape of one example, `(height, width, channels)` of any size, or with one or three spatial axes.
        features: the channels of the convolutions, from input to code.
        code: the width of the code.
        activation: the function after each layer except the code and the output.

    Returns:
        A network from `(batch, *shape)` to the same shape.

    Raises:
        NetError: when applied to examples of another shape.

    Masci, Meier, Cireşan and Schmidhuber, "Stacked Convolutional Auto-Encoders for Hierarchical Feature
    Extraction" (2011), with strides in place of their pooling.

    >>> import jax, jax.numpy as jnp
    >>> net, x = conv_autoencoder((9, 6, 1), (8, 16), 4), jnp.ones((2, 9, 6, 1))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> [jax.eval_shape(each.apply, params, state, x)[0].shape for each in (net.upto("encoder"), net)]
    [(2, 4), (2, 9, 6, 1)]
    """
    encoder, decoder = conv_halves(shape, features, dense(code), activation)
    return of_images(serial(encoder=encoder, decoder=decoder), "conv_autoencoder", len(shape) - 1)


@recorded
def denoising_autoencoder(net: Net, noise: Net) -> Net:
    """Return an autoencoder that gets a corrupted input in training, and is trained to return the clean one.

    It has the parameters of `net`, and equals it in evaluation. Train it with the clean input as target:
    `jn.train.program(denoising_autoencoder(net, noise), objective, optimizer, (x, x), ...)`.

    Args:
        net: an `autoencoder` or `conv_autoencoder`, or any serial network of `encoder` and `decoder`.
        noise: the corruption: `jn.masking_noise(rate)`, `jn.gaussian_noise(scale)` or `jn.salt_and_pepper(rate)`, whose
            arguments may be traced, or any network without parameters.

    Raises:
        NetError: if `net` is not a serial network of `encoder` and `decoder`.

    Vincent, Larochelle, Bengio and Manzagol, "Extracting and Composing Robust Features with Denoising
    Autoencoders" (2008).

    >>> import jaxnets as jn
    >>> denoising_autoencoder(autoencoder((4,), (), 2), jn.masking_noise(0.3))
    serial
    ├─ noise: masking_noise(0.3)
    ├─ encoder: serial
    │  ├─ 0: flatten
    │  └─ 1: dense(2)
    └─ decoder: serial
       ├─ 0: dense(4)
       └─ 1: unflatten((4,))
    """
    if net.kind != "serial" or list(net.children) != ["encoder", "decoder"]:
        names = ", ".join(net.children) or "none"
        raise NetError(
            f"expects a serial network of encoder and decoder, got {net.label} of {names}; "
            f"for another network write jn.serial(noise, net)",
            label="denoising_autoencoder",
        )
    return serial(noise=noise, **net.children)


def dense_halves(shape: Sequence[int], widths: Sequence[int], head: Net, activation: Callable) -> tuple[Net, Net]:
    """Return a fully connected encoder that ends in `head`, and the decoder from its output back to `shape`."""
    check_counts("shape", shape)
    check_counts("widths", widths)
    down = [layer for width in widths for layer in (dense(width, kernel_init=_HE), activation)]
    up = [layer for width in reversed(widths) for layer in (dense(width, kernel_init=_HE), activation)]
    encoder = serial(_only(shape, as_net(flatten)), *down, head)
    return encoder, serial(*up, dense(math.prod(shape)), unflatten(shape))


def conv_halves(shape: Sequence[int], features: Sequence[int], head: Net, activation: Callable) -> tuple[Net, Net]:
    """Return a convolutional encoder that ends in `head`, and the decoder from its output back to `shape`."""
    check_counts("shape", shape)
    check_counts("features", features)
    if not 2 <= len(shape) <= 4 or not features:
        raise NetError(
            f"expects a shape (*spatial, channels) and at least one number of features, got {tuple(shape)} and "
            f"{tuple(features)}",
            label="conv_autoencoder",
        )
    # The spatial sizes before the first convolution and after each.
    sizes = [tuple(shape[:-1])]
    down: list[Layer] = []
    for width in features:
        down += [conv(width, 3, stride=2, padding=1, kernel_init=_HE), activation]
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
    down[0] = _only(shape, as_net(down[0]))
    smallest = (*sizes[-1], features[-1])
    up: list[Layer] = [dense(math.prod(smallest), kernel_init=_HE), activation, unflatten(smallest)]
    # Back through the sizes and features in between, coarsest first.
    for size, width in zip(sizes[-2:0:-1], features[-2::-1]):
        up += [_double(width, size, kernel_init=_HE), activation]
    return serial(*down, flatten, head), serial(*up, _double(shape[-1], sizes[0]))


def _double(width: int, size: tuple[int, ...], **options: Any) -> Net:
    """Return the transposed convolution that doubles half of a size, rounded up, to that size."""
    return conv_transpose(width, 3, stride=2, padding=1, output_padding=tuple(1 - n % 2 for n in size), **options)


@recorded
def _only(shape: Sequence[int], layer: Net) -> Net:
    """Return a layer that only accepts examples of the given shape."""

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        with labeled_as(layer.label):
            if np.shape(x)[1:] != tuple(shape):
                expected = ", ".join(map(str, ("batch", *shape)))
                raise NetError(f"expects ({expected}), the shape this network was made for, got {np.shape(x)}")
        return layer.apply(params, state, x, key=key, train=train)

    return replace(layer, apply=apply)
