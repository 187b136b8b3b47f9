"""Inception v2: GoogLeNet with batch norm, and pairs of 3×3 convolutions in place of 5×5."""

from typing import Any

import jax

from jaxnets.combinators.serial import Layer, branches, concatenate, serial
from jaxnets.core.net import Net
from jaxnets.layers import avg_pool, batch_norm, conv, dense, global_avg_pool, max_pool
from jaxnets.layers import dropout as drop
from jaxnets.layers.windows import Ints
from jaxnets.models.images import takes_images

HALVED = max_pool(3, stride=2, ceil_mode=True)
AVERAGED = avg_pool(3, stride=1, padding=1)
SAME = max_pool(3, stride=1, padding=1)

# Figure 5 of the paper: 1×1, 3×3 reduce, 3×3, double 3×3 reduce, double 3×3, pool projection. Those without 1×1 and
# projection halve the size.
BLOCKS = {
    "inception3a": (64, 64, 64, 64, 96, 32),
    "inception3b": (64, 64, 96, 64, 96, 64),
    "inception3c": (0, 128, 160, 64, 96, 0),
    "inception4a": (224, 64, 96, 96, 128, 128),
    "inception4b": (192, 96, 128, 96, 128, 128),
    "inception4c": (160, 128, 160, 128, 160, 128),
    "inception4d": (96, 128, 192, 160, 192, 128),
    "inception4e": (0, 128, 192, 192, 256, 0),
    "inception5a": (352, 192, 320, 160, 224, 128),
    "inception5b": (352, 192, 320, 192, 224, 128),
}


@takes_images
def inception_v2(num_classes: int = 1000, *, dropout: Any = 0.0) -> Net:
    """Return Inception v2, the network of the paper on batch normalization, also called BN-Inception.

    The input is `(batch, height, width, channels)` of any floating dtype, 224 × 224 in the paper; the output logits
    `(batch, num_classes)`. With 1000 classes and 3 channels there are 11,285,224 parameters and 2,032,600,064
    multiply-adds at 224 × 224. Convolutions have no biases, which the batch norms after them would undo; ports of the
    authors' weights that keep them have 10,016 parameters more. The first convolution is an ordinary one.

    Args:
        num_classes: the width of the output.
        dropout: the rate before the output; the paper has none. May be traced.

    Raises:
        NetError: for an input that is too small, or without four axes; the message names the layer.

    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift"
    (2015), figure 5. Where its sizes contradict its widths (4c to 4e, 576 in place of 608 channels), the widths count,
    as in the published weights.

    >>> list(inception_v2().children)[5:9]
    ['inception3a', 'inception3b', 'inception3c', 'inception4a']
    """
    layers: dict[str, Layer] = {
        # A pair of sizes restricts the input to images.
        "conv1": unit(64, (7, 7), stride=2, padding=3),  # (batch, 112, 112, 64)
        "maxpool1": HALVED,  # (batch, 56, 56, 64)
        "conv2": unit(64, 1),
        "conv3": unit(192, 3, padding=1),  # (batch, 56, 56, 192)
        "maxpool2": HALVED,  # (batch, 28, 28, 192)
    }
    for name, (ones, reduced, threes, double_reduced, double, pooled) in BLOCKS.items():
        stride = 1 if ones else 2
        parts: dict[str, Layer] = {"branch1": unit(ones, 1)} if ones else {}
        parts["branch2"] = serial(unit(reduced, 1), unit(threes, 3, stride=stride, padding=1))
        last = unit(double, 3, stride=stride, padding=1)
        parts["branch3"] = serial(unit(double_reduced, 1), unit(double, 3, padding=1), last)
        pool = SAME if name == "inception5b" else AVERAGED
        parts["branch4"] = serial(pool, unit(pooled, 1)) if ones else HALVED
        layers[name] = branches(concatenate, **parts)
    # (batch, 7, 7, 1024)
    return serial(**layers, avgpool=global_avg_pool, dropout=drop(dropout), fc=dense(num_classes))


def unit(features: int, window: Ints, **options: Any) -> Net:
    """Return a convolution without a bias, a batch norm and a ReLU."""
    layer = conv(features, window, use_bias=False, kernel_init=jax.nn.initializers.he_normal(), **options)
    return serial(conv=layer, bn=batch_norm(), relu=jax.nn.relu)
