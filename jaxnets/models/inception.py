"""Inception v3: modules of parallel branches at three sizes, with torchvision's names."""

from typing import Any

import jax

from jaxnets.combinators.graph import auxiliary_heads, graph
from jaxnets.combinators.serial import concatenate, serial
from jaxnets.core.net import Net
from jaxnets.layers import avg_pool, batch_norm, conv, dense, global_avg_pool, max_pool
from jaxnets.layers import dropout as drop
from jaxnets.layers.windows import Ints, Padding
from jaxnets.models.images import takes_images

HALVED = max_pool(3, stride=2)
AVERAGED = avg_pool(3, stride=1, padding=1)


@takes_images
def inception_v3(num_classes: int = 1000, *, auxiliary: bool = False, dropout: Any = 0.5) -> Net:
    """Return Inception v3 as in torchvision.

    The input is `(batch, height, width, channels)` of any floating dtype and at least 75 × 75, 299 × 299 in the paper;
    the output logits `(batch, num_classes)`. With 1000 classes and 3 channels there are 23,834,568 parameters, with the
    auxiliary head 27,161,264, and 5,713,216,096 multiply-adds at 299 × 299. torchvision's `transform_input`, which
    replaces one normalization of the images by another, belongs to the data here.

    Args:
        num_classes: the width of the output.
        auxiliary: whether to add a head after `Mixed_6e`, in training only. The output is then
            `{"logits": ..., "AuxLogits": ...}`; train it with `jn.losses.auxiliary_loss`. The head needs at least
            299 × 299.
        dropout: the rate before the output. May be traced.

    Raises:
        NetError: for an input that is too small, or without four axes; the message names the layer.

    Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture for Computer Vision" (2016),
    table 1 and figures 5 to 10; torchvision 0.28.

    >>> inception_v3()["Mixed_6b/branch7x7_2"]
    serial
    ├─ conv: conv(128, (1, 7), padding=(0, 3), use_bias=False)
    ├─ bn: batch_norm(epsilon=0.001)
    └─ relu: relu
    """
    body = serial(
        # A pair of sizes restricts the input to images.
        Conv2d_1a_3x3=unit(32, (3, 3), stride=2),  # (batch, 149, 149, 32)
        Conv2d_2a_3x3=unit(32, 3),  # (batch, 147, 147, 32)
        Conv2d_2b_3x3=unit(64, 3, padding=1),  # (batch, 147, 147, 64)
        maxpool1=HALVED,  # (batch, 73, 73, 64)
        Conv2d_3b_1x1=unit(80, 1),  # (batch, 73, 73, 80)
        Conv2d_4a_3x3=unit(192, 3),  # (batch, 71, 71, 192)
        maxpool2=HALVED,  # (batch, 35, 35, 192)
        Mixed_5b=mixed_5(32),  # (batch, 35, 35, 256)
        Mixed_5c=mixed_5(64),  # (batch, 35, 35, 288)
        Mixed_5d=mixed_5(64),  # (batch, 35, 35, 288)
        Mixed_6a=mixed_6a(),  # (batch, 17, 17, 768)
        Mixed_6b=mixed_6(128),  # (batch, 17, 17, 768)
        Mixed_6c=mixed_6(160),  # (batch, 17, 17, 768)
        Mixed_6d=mixed_6(160),  # (batch, 17, 17, 768)
        Mixed_6e=mixed_6(192),  # (batch, 17, 17, 768)
        Mixed_7a=mixed_7a(),  # (batch, 8, 8, 1280)
        Mixed_7b=mixed_7(),  # (batch, 8, 8, 2048)
        Mixed_7c=mixed_7(),  # (batch, 8, 8, 2048)
        avgpool=global_avg_pool,  # (batch, 2048)
        dropout=drop(dropout),
        fc=dense(num_classes),
    )
    head = serial(
        pool=avg_pool(5, stride=3),  # (batch, 5, 5, 768)
        conv0=unit(128, 1),
        conv1=unit(768, 5),  # (batch, 1, 1, 768)
        avgpool=global_avg_pool,
        fc=dense(num_classes),
    )
    return auxiliary_heads(body, AuxLogits=(head, "Mixed_6e")) if auxiliary else body


def unit(features: int, window: Ints, *, stride: int = 1, padding: Padding = 0) -> Net:
    """Return a convolution without a bias, a batch norm with ε = 0.001 and a ReLU."""
    he = jax.nn.initializers.he_normal()
    layer = conv(features, window, stride=stride, padding=padding, use_bias=False, kernel_init=he)
    return serial(conv=layer, bn=batch_norm(epsilon=1e-3), relu=jax.nn.relu)


def across(features: int, length: int) -> Net:
    """Return a unit with a kernel one row high."""
    return unit(features, (1, length), padding=(0, length // 2))


def down(features: int, length: int) -> Net:
    """Return a unit with a kernel one column wide."""
    return unit(features, (length, 1), padding=(length // 2, 0))


def mixed_5(pool_features: int) -> Net:
    """Return the module of figure 5, with one 5×5 convolution, and two 3×3 ones in place of another."""
    return graph(
        branch1x1=unit(64, 1),
        branch5x5_1=(unit(48, 1), "input"),
        branch5x5_2=unit(64, 5, padding=2),
        branch3x3dbl_1=(unit(64, 1), "input"),
        branch3x3dbl_2=unit(96, 3, padding=1),
        branch3x3dbl_3=unit(96, 3, padding=1),
        pool=(AVERAGED, "input"),
        branch_pool=unit(pool_features, 1),
        join=(concatenate, "branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool"),
    )


def mixed_6a() -> Net:
    """Return the module of figure 10, which halves the size by strided convolutions and pooling in parallel."""
    return graph(
        branch3x3=unit(384, 3, stride=2),
        branch3x3dbl_1=(unit(64, 1), "input"),
        branch3x3dbl_2=unit(96, 3, padding=1),
        branch3x3dbl_3=unit(96, 3, stride=2),
        pool=(HALVED, "input"),
        join=(concatenate, "branch3x3", "branch3x3dbl_3", "pool"),
    )


def mixed_6(width: int) -> Net:
    """Return the module of figure 6: 7×7 convolutions factorized into 1×7 and 7×1."""
    return graph(
        branch1x1=unit(192, 1),
        branch7x7_1=(unit(width, 1), "input"),
        branch7x7_2=across(width, 7),
        branch7x7_3=down(192, 7),
        branch7x7dbl_1=(unit(width, 1), "input"),
        branch7x7dbl_2=down(width, 7),
        branch7x7dbl_3=across(width, 7),
        branch7x7dbl_4=down(width, 7),
        branch7x7dbl_5=across(192, 7),
        pool=(AVERAGED, "input"),
        branch_pool=unit(192, 1),
        join=(concatenate, "branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool"),
    )


def mixed_7a() -> Net:
    """Return the module that halves the size again, with a factorized 7×7 convolution before the stride."""
    return graph(
        branch3x3_1=unit(192, 1),
        branch3x3_2=unit(320, 3, stride=2),
        branch7x7x3_1=(unit(192, 1), "input"),
        branch7x7x3_2=across(192, 7),
        branch7x7x3_3=down(192, 7),
        branch7x7x3_4=unit(192, 3, stride=2),
        pool=(HALVED, "input"),
        join=(concatenate, "branch3x3_2", "branch7x7x3_4", "pool"),
    )


def mixed_7() -> Net:
    """Return the module of figure 7: 3×3 convolutions as parallel 1×3 and 3×1, for many features at few positions."""
    return graph(
        branch1x1=unit(320, 1),
        branch3x3_1=(unit(384, 1), "input"),
        branch3x3_2a=across(384, 3),
        branch3x3_2b=(down(384, 3), "branch3x3_1"),
        branch3x3dbl_1=(unit(448, 1), "input"),
        branch3x3dbl_2=unit(384, 3, padding=1),
        branch3x3dbl_3a=across(384, 3),
        branch3x3dbl_3b=(down(384, 3), "branch3x3dbl_2"),
        pool=(AVERAGED, "input"),
        branch_pool=unit(192, 1),
        join=(
            concatenate,
            *("branch1x1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"),
        ),
    )
