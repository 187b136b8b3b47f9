"""Inception v4, with timm's names."""

from typing import Any

from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import branches, concatenate, serial
from jaxnets.core.net import Net
from jaxnets.layers import avg_pool, dense, global_avg_pool, max_pool
from jaxnets.layers import dropout as drop
from jaxnets.models.images import takes_images
from jaxnets.models.inception import HALVED, across, down, unit

# The mean over the input alone, as in TensorFlow.
AVERAGED = avg_pool(3, stride=1, padding=1, count_include_pad=False)


@takes_images
def inception_v4(num_classes: int = 1000, *, dropout: Any = 0.2) -> Net:
    """Return Inception v4.

    The input is `(batch, height, width, channels)` of any floating dtype and at least 75 × 75, 299 × 299 in the paper;
    the output logits `(batch, num_classes)`. With 1000 classes and 3 channels there are 42,679,816 parameters and
    12,253,974,624 multiply-adds at 299 × 299.

    Args:
        num_classes: the width of the output.
        dropout: the rate before the output, which the paper keeps with probability 0.8. May be traced.

    Raises:
        NetError: for an input that is too small, or without four axes; the message names the layer.

    Szegedy, Ioffe, Vanhoucke and Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
    Learning" (2016), figures 3 to 9; timm 1.0.

    >>> inception_v4()["features/6/branch0"]
    serial
    ├─ conv: conv(96, 1, padding=0, use_bias=False)
    ├─ bn: batch_norm(epsilon=0.001)
    └─ relu: relu
    """
    features = serial(
        # A pair of sizes restricts the input to images.
        unit(32, (3, 3), stride=2),  # (batch, 149, 149, 32)
        unit(32, 3),  # (batch, 147, 147, 32)
        unit(64, 3, padding=1),  # (batch, 147, 147, 64)
        branches(concatenate, maxpool=HALVED, conv=unit(96, 3, stride=2)),  # (batch, 73, 73, 160)
        stem_4a(),  # (batch, 71, 71, 192)
        branches(concatenate, conv=unit(192, 3, stride=2), maxpool=HALVED),  # (batch, 35, 35, 384)
        *[module_a() for _ in range(4)],
        reduction_a(192, 224, 256, 384),  # (batch, 17, 17, 1024)
        *[module_b() for _ in range(7)],
        reduction_b(),  # (batch, 8, 8, 1536)
        *[module_c() for _ in range(3)],
    )
    return serial(features=features, avgpool=global_avg_pool, dropout=drop(dropout), last_linear=dense(num_classes))


def stem_4a() -> Net:
    """Return the second module of the stem, figure 3."""
    return branches(
        concatenate,
        branch0=serial(unit(64, 1), unit(96, 3)),
        branch1=serial(unit(64, 1), across(64, 7), down(64, 7), unit(96, 3)),
    )


def module_a() -> Net:
    """Return Inception-A, figure 4."""
    return branches(
        concatenate,
        branch0=unit(96, 1),
        branch1=serial(unit(64, 1), unit(96, 3, padding=1)),
        branch2=serial(unit(64, 1), unit(96, 3, padding=1), unit(96, 3, padding=1)),
        branch3=serial(AVERAGED, unit(96, 1)),
    )


def reduction_a(k: int, l: int, m: int, n: int) -> Net:
    """Return Reduction-A, figure 7, with the widths of table 1."""
    return branches(
        concatenate,
        branch0=unit(n, 3, stride=2),
        branch1=serial(unit(k, 1), unit(l, 3, padding=1), unit(m, 3, stride=2)),
        branch2=max_pool(3, stride=2),
    )


def module_b() -> Net:
    """Return Inception-B, figure 5."""
    return branches(
        concatenate,
        branch0=unit(384, 1),
        branch1=serial(unit(192, 1), across(224, 7), down(256, 7)),
        branch2=serial(unit(192, 1), down(192, 7), across(224, 7), down(224, 7), across(256, 7)),
        branch3=serial(AVERAGED, unit(128, 1)),
    )


def reduction_b() -> Net:
    """Return Reduction-B, figure 8."""
    return branches(
        concatenate,
        branch0=serial(unit(192, 1), unit(192, 3, stride=2)),
        branch1=serial(unit(256, 1), across(256, 7), down(320, 7), unit(320, 3, stride=2)),
        branch2=max_pool(3, stride=2),
    )


def module_c() -> Net:
    """Return Inception-C, figure 6."""
    return graph(
        branch0=unit(256, 1),
        branch1_0=(unit(384, 1), "input"),
        branch1_1a=across(256, 3),
        branch1_1b=(down(256, 3), "branch1_0"),
        branch2_0=(unit(384, 1), "input"),
        branch2_1=down(448, 3),
        branch2_2=across(512, 3),
        branch2_3a=across(256, 3),
        branch2_3b=(down(256, 3), "branch2_2"),
        branch3=(serial(AVERAGED, unit(256, 1)), "input"),
        join=(concatenate, "branch0", "branch1_1a", "branch1_1b", "branch2_3a", "branch2_3b", "branch3"),
    )
