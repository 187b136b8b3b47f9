"""VGG: deep networks of 3 × 3 convolutions."""

from collections.abc import Sequence

import jax

from jaxnets.combinators.serial import Layer, serial
from jaxnets.core.net import Net
from jaxnets.layers import adaptive_avg_pool, conv, dense, flatten, max_pool
from jaxnets.layers import batch_norm as normalize
from jaxnets.layers import dropout as drop
from jaxnets.models.images import takes_images

# The channels of the five stages; a pool follows each.
WIDTHS = (64, 128, 256, 512, 512)


@takes_images
def vgg11(
    num_classes: int = 1000, *, batch_norm: bool = False, hidden: int = 4096, dropout: float | jax.Array = 0.5
) -> Net:
    """Return VGG-11, column A of the paper, with torchvision's names.

    The input is `(batch, height, width, channels)` of at least 32 × 32, the output logits `(batch, num_classes)`. The
    parameters fit any input size, because the features are pooled to 7 × 7. With 224 × 224 × 3 and 1,000 classes:

    | network | parameters | with batch norm | multiply-adds |
    | --- | --- | --- | --- |
    | `vgg11` | 132,863,336 | 132,868,840 | 7,609,090,048 |
    | `vgg13` | 133,047,848 | 133,053,736 | 11,308,466,176 |
    | `vgg16` | 138,357,544 | 138,365,992 | 15,470,264,320 |
    | `vgg19` | 143,667,240 | 143,678,248 | 19,632,062,464 |

    Args:
        num_classes: the width of the output.
        batch_norm: whether a batch norm follows each convolution, as in torchvision's `vgg11_bn`. It is newer than the
            paper; with it the deep networks train from scratch, where the paper started from shallower ones.
        hidden: the width of the two dense layers before the output.
        dropout: the rate after each of them, in [0, 1); may be traced.

    Raises:
        NetError: for settings out of range, or an input that is too small; the message names the layer.

    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014), table 1;
    initial values as in torchvision, He's by fan-out for convolutions and N(0, 0.01²) for dense layers.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> params, state = jax.eval_shape(vgg11().init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    132863336
    """
    return _vgg((1, 1, 2, 2, 2), num_classes, batch_norm, hidden, dropout)


@takes_images
def vgg13(
    num_classes: int = 1000, *, batch_norm: bool = False, hidden: int = 4096, dropout: float | jax.Array = 0.5
) -> Net:
    """Return VGG-13, column B of the paper; arguments, shapes and source are those of `vgg11`.

    >>> list(vgg13()["features"].children)[-1]
    '24'
    """
    return _vgg((2, 2, 2, 2, 2), num_classes, batch_norm, hidden, dropout)


@takes_images
def vgg16(
    num_classes: int = 1000, *, batch_norm: bool = False, hidden: int = 4096, dropout: float | jax.Array = 0.5
) -> Net:
    """Return VGG-16, column D of the paper; arguments, shapes and source are those of `vgg11`.

    >>> list(vgg16()["features"].children)[-1]
    '30'
    """
    return _vgg((2, 2, 3, 3, 3), num_classes, batch_norm, hidden, dropout)


@takes_images
def vgg19(
    num_classes: int = 1000, *, batch_norm: bool = False, hidden: int = 4096, dropout: float | jax.Array = 0.5
) -> Net:
    """Return VGG-19, column E of the paper; arguments, shapes and source are those of `vgg11`.

    >>> list(vgg19(batch_norm=True)["features"].children)[-1]
    '52'
    """
    return _vgg((2, 2, 4, 4, 4), num_classes, batch_norm, hidden, dropout)


def _vgg(convs: Sequence[int], num_classes: int, normalized: bool, hidden: int, rate: float | jax.Array) -> Net:
    """Return the network with the given number of convolutions in each stage."""
    relu, normal = jax.nn.relu, jax.nn.initializers.normal(0.01)
    he = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    features: list[Layer] = []
    for width, count in zip(WIDTHS, convs, strict=True):
        for _ in range(count):
            # A pair of sizes, in the first layer, restricts the input to images.
            kernel_size = 3 if features else (3, 3)
            features += [
                conv(width, kernel_size, padding=1, kernel_init=he),
                *([normalize()] if normalized else []),
                relu,
            ]
        features.append(max_pool(2))
    classifier = serial(
        dense(hidden, kernel_init=normal),
        relu,
        drop(rate),
        dense(hidden, kernel_init=normal),
        relu,
        drop(rate),
        dense(num_classes, kernel_init=normal),
    )
    return serial(features=serial(*features), avgpool=adaptive_avg_pool(7), flatten=flatten, classifier=classifier)
