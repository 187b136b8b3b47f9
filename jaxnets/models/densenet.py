"""DenseNet: each layer reads the outputs of all layers before it, with torchvision's names."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.nn import relu

from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import Layer, concatenate, serial
from jaxnets.core.errors import check_count
from jaxnets.core.net import Net
from jaxnets.layers import avg_pool, batch_norm, conv, dense, global_avg_pool, max_pool
from jaxnets.layers import dropout as drop
from jaxnets.models.images import takes_images

HE = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")


@takes_images
def densenet121(num_classes: int = 1000, *, dropout: Any = 0.0) -> Net:
    """Return DenseNet-121, the DenseNet-BC with growth rate 32 of the paper's table 1.

    In a dense block, each layer adds 32 channels to those of its input: y = [x, F(x)]. Transitions between blocks halve
    channels, height and width. The input is `(batch, height, width, channels)` of any floating dtype and at least
    29 × 29, 224 × 224 in the paper; the output logits `(batch, num_classes)`. With 3 channels and 1000 classes there
    are 7,978,856 parameters and 2,834,161,664 multiply-adds at 224 × 224. The names are torchvision's, so its weights
    fit; `net.upto("avgpool")` returns the features before the logits, `(batch, 1024)`.

    Args:
        num_classes: the width of the output.
        dropout: the rate after each 3×3 convolution of a dense block; the paper's is 0.2 where data are not augmented.
            May be traced.

    Raises:
        NetError: for settings out of range, or an input that is too small or not a batch of images.

    Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks" (2017), equation 2 and table
    1; initial values as in torchvision: He's by fan-in for convolutions, U(-1/√n, 1/√n) for the output of n inputs.

    >>> list(densenet121()["features/denseblock1/denselayer1"].children)
    ['norm1', 'relu1', 'conv1', 'norm2', 'relu2', 'conv2', 'dropout', 'join']
    """
    return _densenet((6, 12, 24, 16), 32, 64, num_classes, dropout)


def _densenet(blocks: Sequence[int], growth: int, stem: int, num_classes: int, dropout: Any) -> Net:
    check_count("num_classes", num_classes)
    features: dict[str, Layer] = {
        # A pair of sizes restricts the input to images.
        "conv0": conv(stem, (7, 7), stride=2, padding=3, use_bias=False, kernel_init=HE),
        "norm0": batch_norm(),
        "relu0": relu,
        "pool0": max_pool(3, stride=2, padding=1),
    }
    channels, layer = stem, _layer(growth, dropout)
    for place, count in enumerate(blocks, start=1):
        features[f"denseblock{place}"] = serial(**{f"denselayer{k + 1}": layer for k in range(count)})
        channels += count * growth
        if place < len(blocks):
            channels //= 2
            features[f"transition{place}"] = _transition(channels)
    uniform = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return serial(
        features=serial(**features, norm5=batch_norm()),
        relu=relu,
        avgpool=global_avg_pool,
        classifier=dense(num_classes, kernel_init=uniform),
    )


def _layer(growth: int, dropout: Any) -> Net:
    """Return a layer of a dense block, which puts `growth` channels behind those of its input."""
    return graph(
        norm1=batch_norm(),
        relu1=relu,
        conv1=conv(4 * growth, 1, use_bias=False, kernel_init=HE),
        norm2=batch_norm(),
        relu2=relu,
        conv2=conv(growth, 3, padding=1, use_bias=False, kernel_init=HE),
        dropout=drop(dropout),
        join=(concatenate, "input", "dropout"),
    )


def _transition(features: int) -> Net:
    return serial(
        norm=batch_norm(),
        relu=relu,
        conv=conv(features, 1, use_bias=False, kernel_init=HE),
        pool=avg_pool(2),
    )
