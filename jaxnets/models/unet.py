"""U-Net: an encoder that halves the size level by level, a decoder that doubles it, and a bridge at each level."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import Layer, concatenate, serial
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import batch_norm as normalize
from jaxnets.layers import conv, conv_transpose, max_pool
from jaxnets.layers import dropout as drop
from jaxnets.models.images import of_images


@explained
def unet(
    num_classes: int = 2,
    *,
    widths: Sequence[int] = (64, 128, 256, 512, 1024),
    padding: Literal["SAME", "VALID"] = "SAME",
    batch_norm: bool = True,
    dropout: Any = 0.0,
    spatial_axes: int = 2,
) -> Net:
    """Return U-Net, which classifies each pixel of an image.

    Each level has two 3×3 convolutions. The encoder, `encoder1`, `encoder2`, …, halves the size by pooling; the
    decoder, …, `decoder2`, `decoder1`, doubles it by transposed convolutions, whose output is concatenated with the
    encoder's of the same size. With the default widths there are 31,036,546 parameters for one channel and two classes;
    without batch norm 31,030,658, the paper's network with `padding="VALID"`, `batch_norm=False`.

    Args:
        num_classes: the number of channels of the output.
        widths: the features at each level, the coarsest last, at least two.
        padding: "SAME" keeps the size; where an odd size was halved and doubled, zeros are appended. "VALID" is the
            paper's: only pixels that do not depend on padding are kept, 388 of 572, and the bridges are cropped to
            their center.
        batch_norm: whether a batch norm follows each convolution, which then has no bias.
        dropout: the rate at the coarsest level. May be traced.
        spatial_axes: 2 for images, 1 for sequences `(batch, length, channels)`, 3 for volumes.

    Returns:
        A network from `(batch, height, width, channels)` of any floating dtype to logits
        `(batch, height, width, num_classes)`, smaller with "VALID". `jn.losses.cross_entropy` takes them with labels
        `(batch, height, width)`.

    Raises:
        NetError: for fewer than two widths or another padding; for an input with another number of axes, or with axes
            shorter than 2^(len(widths) - 1) or, with "VALID", than the convolutions need.

    Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), figure 1.

    >>> import jax, jax.numpy as jnp
    >>> net, x = unet(2), jax.ShapeDtypeStruct((3, 100, 75, 1), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (3, 100, 75, 2)
    """
    with labeled_as("unet"):
        if len(widths) < 2:
            raise NetError(f"expects at least two widths, got {tuple(widths)!r}")
        if padding not in ("SAME", "VALID"):
            raise NetError(f"expects padding 'SAME' or 'VALID', got {padding!r}")
    he = jax.nn.initializers.he_normal()
    nodes: dict[str, Any] = {}

    def pair(features: int) -> Net:
        layers: dict[str, Layer] = {}
        for number in (1, 2):
            layers[f"conv{number}"] = conv(features, 3, padding=padding, use_bias=not batch_norm, kernel_init=he)
            layers |= {f"bn{number}": normalize()} if batch_norm else {}
            layers[f"relu{number}"] = jax.nn.relu
        return serial(**layers)

    for level, width in enumerate(widths[:-1], start=1):
        nodes[f"encoder{level}"] = pair(width)
        nodes[f"pool{level}"] = max_pool(2)
    nodes["bottleneck"] = pair(widths[-1])
    nodes["dropout"] = drop(dropout)
    for level, width in reversed(list(enumerate(widths[:-1], start=1))):
        nodes[f"upconv{level}"] = conv_transpose(width, 2, stride=2, kernel_init=he)
        nodes[f"bridge{level}"] = (bridge, f"encoder{level}", f"upconv{level}")
        nodes[f"decoder{level}"] = pair(width)
    return of_images(graph(**nodes, conv=conv(num_classes, 1)), "unet", spatial_axes)


def bridge(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Concatenate the features of an encoder and those from the level below, both `(batch, *spatial, channels)`.

    Where the encoder is longer by one, zeros are appended to the other; where it is longer by more, it is cropped to
    its center.

    >>> import jax.numpy as jnp
    >>> bridge((jnp.ones((1, 7, 9, 2)), jnp.ones((1, 6, 4, 3)))).shape
    (1, 7, 4, 5)
    """
    encoder, below = pair
    for axis in range(1, encoder.ndim - 1):
        excess = encoder.shape[axis] - below.shape[axis]
        if excess == 1:
            # An odd size, halved and doubled.
            below = jnp.pad(below, [(0, int(each == axis)) for each in range(below.ndim)])
        elif excess:
            # "VALID" convolutions below.
            start = excess // 2
            encoder = jax.lax.slice_in_dim(encoder, start, start + below.shape[axis], axis=axis)
    return concatenate((encoder, below))
