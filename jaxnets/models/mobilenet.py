"""MobileNetV2: inverted residual blocks of depthwise convolutions, with torchvision's names."""

from typing import Any

import jax
from jax.nn import relu6

from jaxnets.combinators.serial import Layer, residual, serial
from jaxnets.core.errors import check_count, check_positive
from jaxnets.core.net import Net
from jaxnets.layers import batch_norm, conv, dense, depthwise_conv, global_avg_pool
from jaxnets.layers import dropout as drop
from jaxnets.models.blocks import HE
from jaxnets.models.images import takes_images

# Table 2 of the paper: expansion t, channels c, blocks n, stride s of the first of them.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@takes_images
def mobilenet_v2(num_classes: int = 1000, *, width: float = 1.0, dropout: Any = 0.2) -> Net:
    """Return MobileNetV2: blocks that widen, filter each channel by a 3×3 kernel, and narrow again without activation.

    The input is `(batch, height, width, channels)` of any floating dtype and size, 224 × 224 in the paper; the output
    logits `(batch, num_classes)`. With 3 channels and 1000 classes there are 3,504,872 parameters and 300,774,272
    multiply-adds at 224 × 224. The names are torchvision's, so its weights fit; `net.upto("avgpool")` returns the
    features before the logits, `(batch, 1280)`.

    Args:
        num_classes: the width of the output.
        width: the paper's width multiplier, > 0: all numbers of channels are multiplied by it and rounded to a multiple
            of 8, down by at most 10 %. The features before the logits are at least 1280.
        dropout: the rate before the output. May be traced.

    Raises:
        NetError: for settings out of range, or an input that is not a batch of images.

    Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), tables 1
    and 2; initial values as in torchvision, He's by fan-out for convolutions and N(0, 0.01²) for the output.

    >>> mobilenet_v2()["features/2/conv/1/0"]
    depthwise_conv(3, stride=2, padding=1, use_bias=False)
    """
    check_count("num_classes", num_classes)
    check_positive("width", width)
    channels = divisible(32 * width)
    # A pair of sizes, in the first layer, restricts the input to images.
    features: list[Layer] = [_unit(conv(channels, (3, 3), stride=2, padding=1, use_bias=False, kernel_init=HE))]
    for expansion, base, count, stride in BLOCKS:
        out = divisible(base * width)
        for place in range(count):
            features.append(_block(channels, out, expansion, 1 if place else stride))
            channels = out
    features.append(_unit(_pointwise(divisible(1280 * max(1.0, width)))))
    return serial(
        features=serial(*features),
        avgpool=global_avg_pool,
        classifier=serial(drop(dropout), dense(num_classes, kernel_init=jax.nn.initializers.normal(0.01))),
    )


def divisible(channels: float, by: int = 8) -> int:
    """Return the multiple of `by` nearest to a number of channels, but at least `by`, and at least 90 % of it."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def _block(channels: int, out: int, expansion: int, stride: int) -> Net:
    """Return the block of table 1, with a shortcut where it keeps the shape."""
    hidden = channels * expansion
    wide = [_unit(_pointwise(hidden))] if expansion > 1 else []
    each = _unit(depthwise_conv(3, stride=stride, padding=1, use_bias=False, kernel_init=HE))
    body = serial(conv=serial(*wide, each, _pointwise(out), batch_norm()))
    return residual(body) if stride == 1 and channels == out else body


def _pointwise(features: int) -> Net:
    return conv(features, 1, use_bias=False, kernel_init=HE)


def _unit(layer: Net) -> Net:
    return serial(layer, batch_norm(), relu6)
