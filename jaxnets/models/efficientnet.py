"""EfficientNet-B0: inverted residual blocks that weigh their channels, with torchvision's names."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import Layer, residual, serial
from jaxnets.core.errors import check_count
from jaxnets.core.net import Net
from jaxnets.layers import adaptive_avg_pool, batch_norm, conv, dense, depthwise_conv, drop_path, global_avg_pool
from jaxnets.layers import dropout as drop
from jaxnets.models.blocks import HE
from jaxnets.models.images import takes_images

Stage = tuple[int, int, int, int, int]

# Table 1 of the paper: expansion, kernel size, stride of the first block, channels, blocks.
STAGES: tuple[Stage, ...] = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


@takes_images
def efficientnet_b0(num_classes: int = 1000, *, dropout: Any = 0.2, stochastic_depth: Any = 0.2) -> Net:
    """Return EfficientNet-B0: blocks as in `mobilenet_v2`, with SiLU, 5×5 kernels and squeeze-and-excitation.

    The input is `(batch, height, width, channels)` of any floating dtype and size, 224 × 224 in the paper; the output
    logits `(batch, num_classes)`. With 3 channels and 1000 classes there are 5,288,548 parameters and 385,814,752
    multiply-adds at 224 × 224. The names are torchvision's, so its weights fit; `net.upto("avgpool")` returns the
    features before the logits, `(batch, 1280)`.

    Args:
        num_classes: the width of the output.
        dropout: the rate before the output. May be traced.
        stochastic_depth: the rate p of `jn.drop_path`: block k of 16, counted from 0, is skipped with probability
            p k / 16 if it has a shortcut. May be traced.

    Raises:
        NetError: for settings out of range, or an input that is not a batch of images.

    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), table 1; Hu, Shen and
    Sun, "Squeeze-and-Excitation Networks" (2018), equations 2 to 4; Huang et al., "Deep Networks with Stochastic Depth"
    (2016). Initial values as in torchvision: He's by fan-out for convolutions, U(-1/√c, 1/√c) for the output with c
    classes.

    >>> list(efficientnet_b0()["features/2/0/block/2"].children)
    ['avgpool', 'fc1', 'activation', 'fc2', 'scale_activation', 'product']
    """
    return _efficientnet(STAGES, 32, num_classes, dropout, stochastic_depth)


def _efficientnet(stages: Sequence[Stage], stem: int, num_classes: int, dropout: Any, stochastic_depth: Any) -> Net:
    check_count("num_classes", num_classes)
    # A pair of sizes, in the first layer, restricts the input to images.
    features: list[Layer] = [_unit(conv(stem, (3, 3), stride=2, padding=1, use_bias=False, kernel_init=HE))]
    channels, blocks, total = stem, 0, sum(stage[-1] for stage in stages)
    for expansion, window, stride, out, count in stages:
        stage = []
        for place in range(count):
            rate = stochastic_depth * (blocks / total)
            stage.append(_block(channels, out, expansion, window, 1 if place else stride, rate))
            channels, blocks = out, blocks + 1
        features.append(serial(*stage))
    uniform = jax.nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
    return serial(
        features=serial(*features, _unit(_pointwise(4 * channels))),
        avgpool=global_avg_pool,
        classifier=serial(drop(dropout), dense(num_classes, kernel_init=uniform)),
    )


def _block(channels: int, out: int, expansion: int, window: int, stride: int, rate: Any) -> Net:
    """Return a block, with a shortcut and stochastic depth where it keeps the shape."""
    hidden = channels * expansion
    each = depthwise_conv(window, stride=stride, padding=window // 2, use_bias=False, kernel_init=HE)
    block = serial(
        *([_unit(_pointwise(hidden))] if expansion > 1 else []),
        _unit(each),
        squeeze_excitation(hidden, max(1, channels // 4)),
        serial(_pointwise(out), batch_norm()),
    )
    if stride > 1 or channels != out:
        return serial(block=block)
    return residual(serial(block=block, stochastic_depth=drop_path(rate)))


def squeeze_excitation(channels: int, squeezed: int) -> Net:
    """Return a network that scales each channel by a number in (0, 1) that depends on the means of all channels."""
    return graph(
        avgpool=adaptive_avg_pool(1),
        fc1=conv(squeezed, 1, kernel_init=HE),
        activation=jax.nn.silu,
        fc2=conv(channels, 1, kernel_init=HE),
        scale_activation=jax.nn.sigmoid,
        product=(_product, "scale_activation", "input"),
    )


def _product(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    return pair[0] * pair[1]


def _pointwise(features: int) -> Net:
    return conv(features, 1, use_bias=False, kernel_init=HE)


def _unit(layer: Net) -> Net:
    return serial(layer, batch_norm(), jax.nn.silu)
