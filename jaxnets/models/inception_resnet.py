"""Inception-ResNet v2: Inception modules as residual branches, with timm's names."""

from functools import partial
from typing import Any

import jax

from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import branches, concatenate, serial
from jaxnets.core.net import Net
from jaxnets.layers import conv, dense, global_avg_pool
from jaxnets.layers import dropout as drop
from jaxnets.models.images import takes_images
from jaxnets.models.inception import HALVED, across, down, unit
from jaxnets.models.inception_v4 import AVERAGED, reduction_a


@takes_images
def inception_resnet_v2(num_classes: int = 1000, *, dropout: Any = 0.2) -> Net:
    """Return Inception-ResNet v2.

    The input is `(batch, height, width, channels)` of any floating dtype and at least 75 × 75, 299 × 299 in the paper;
    the output logits `(batch, num_classes)`. With 1000 classes and 3 channels there are 55,843,464 parameters and
    13,155,794,016 multiply-adds at 299 × 299. This is the network of the published weights, whose stem is that of
    Inception v3, with 10, 20 and 10 residual modules; in the paper's figures the stem is that of Inception v4, and
    there are 5, 10 and 5.

    Args:
        num_classes: the width of the output.
        dropout: the rate before the output, which the paper keeps with probability 0.8. May be traced.

    Raises:
        NetError: for an input that is too small, or without four axes; the message names the layer.

    Szegedy, Ioffe, Vanhoucke and Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
    Learning" (2016), figures 16 to 20 and section 3.3 for the scales; timm 1.0.

    >>> inception_resnet_v2()["repeat/0"].children["conv2d"]
    conv(320, 1)
    """
    return serial(
        # A pair of sizes restricts the input to images.
        conv2d_1a=unit(32, (3, 3), stride=2),  # (batch, 149, 149, 32)
        conv2d_2a=unit(32, 3),  # (batch, 147, 147, 32)
        conv2d_2b=unit(64, 3, padding=1),  # (batch, 147, 147, 64)
        maxpool_3a=HALVED,  # (batch, 73, 73, 64)
        conv2d_3b=unit(80, 1),  # (batch, 73, 73, 80)
        conv2d_4a=unit(192, 3),  # (batch, 71, 71, 192)
        maxpool_5a=HALVED,  # (batch, 35, 35, 192)
        mixed_5b=mixed_5b(),  # (batch, 35, 35, 320)
        repeat=serial(*[block_35() for _ in range(10)]),
        mixed_6a=reduction_a(256, 256, 384, 384),  # (batch, 17, 17, 1088)
        repeat_1=serial(*[block_17() for _ in range(20)]),
        mixed_7a=mixed_7a(),  # (batch, 8, 8, 2080)
        repeat_2=serial(*[block_8() for _ in range(9)]),
        block8=block_8(last=True),
        conv2d_7b=unit(1536, 1),  # (batch, 8, 8, 1536)
        avgpool=global_avg_pool,
        dropout=drop(dropout),
        classif=dense(num_classes),
    )


def mixed_5b() -> Net:
    """Return the module before the first residual one."""
    return branches(
        concatenate,
        branch0=unit(96, 1),
        branch1=serial(unit(48, 1), unit(64, 5, padding=2)),
        branch2=serial(unit(64, 1), unit(96, 3, padding=1), unit(96, 3, padding=1)),
        branch3=serial(AVERAGED, unit(64, 1)),
    )


def block_35() -> Net:
    """Return Inception-ResNet-A, figure 16."""
    third = serial(unit(32, 1), unit(48, 3, padding=1), unit(64, 3, padding=1))
    return block(320, 0.17, unit(32, 1), serial(unit(32, 1), unit(32, 3, padding=1)), third)


def block_17() -> Net:
    """Return Inception-ResNet-B, figure 17."""
    return block(1088, 0.1, unit(192, 1), serial(unit(128, 1), across(160, 7), down(192, 7)))


def mixed_7a() -> Net:
    """Return Reduction-B, figure 18."""
    return branches(
        concatenate,
        branch0=serial(unit(256, 1), unit(384, 3, stride=2)),
        branch1=serial(unit(256, 1), unit(288, 3, stride=2)),
        branch2=serial(unit(256, 1), unit(288, 3, padding=1), unit(320, 3, stride=2)),
        branch3=HALVED,
    )


def block_8(*, last: bool = False) -> Net:
    """Return Inception-ResNet-C, figure 19; the last one is not scaled and has no ReLU."""
    scale = 1.0 if last else 0.2
    return block(2080, scale, unit(192, 1), serial(unit(192, 1), across(224, 3), down(256, 3)), relu=not last)


def block(features: int, scale: float, *parts: Net, relu: bool = True) -> Net:
    """Return x + scale · y and a ReLU, for y a linear function of the branches' outputs."""
    nodes: dict[str, Any] = {f"branch{n}": (part, "input") for n, part in enumerate(parts)}
    nodes["join"] = (concatenate, *nodes)
    nodes["conv2d"] = conv(features, 1)
    nodes["sum"] = (partial(_scaled_sum, scale), "input", "conv2d")
    return graph(**nodes, **({"act": jax.nn.relu} if relu else {}))


def _scaled_sum(scale: float, pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Return x + scale · y."""
    return pair[0] + scale * pair[1]
