"""GoogLeNet: nine modules of four parallel branches; as in torchvision, and as published."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnets.combinators.graph import auxiliary_heads
from jaxnets.combinators.serial import branches, concatenate, serial
from jaxnets.core.net import Net
from jaxnets.layers import (
    adaptive_avg_pool,
    avg_pool,
    batch_norm,
    conv,
    dense,
    flatten,
    global_avg_pool,
    local_response_norm,
    max_pool,
)
from jaxnets.layers import dropout as drop
from jaxnets.models.images import takes_images

Unit = Callable[..., Net]
HE = jax.nn.initializers.he_normal()
POOL = max_pool(3, stride=2, ceil_mode=True)

# Table 1 of the paper: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection.
BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


@takes_images
def googlenet(
    num_classes: int = 1000, *, auxiliary: bool = False, dropout: Any = 0.2, auxiliary_dropout: Any = 0.7
) -> Net:
    """Return GoogLeNet as in torchvision: with batch norm, and 3×3 kernels where the paper has 5×5.

    The input is `(batch, height, width, channels)` of any floating dtype and at least 15 × 15, 224 × 224 in the paper;
    the output logits `(batch, num_classes)`. With 1000 classes and 3 channels there are 6,624,904 parameters and
    1,498,376,192 multiply-adds at 224 × 224; the auxiliary heads add 6,379,984 parameters. torchvision's
    `transform_input`, which replaces one normalization of the images by another, belongs to the data here.

    Args:
        num_classes: the width of the output.
        auxiliary: whether to add heads after `inception4a` and `inception4d`, in training only. The output is then
            `{"logits": ..., "aux1": ..., "aux2": ...}`; train it with `jn.losses.auxiliary_loss`, weights 0.3.
        dropout: the rate before the output. May be traced.
        auxiliary_dropout: the rate after the hidden layer of the heads. May be traced.

    Raises:
        NetError: for an input that is too small, or without four axes; the message names the layer.

    Szegedy and others, "Going Deeper with Convolutions" (2015), table 1, and Ioffe and Szegedy, "Batch Normalization"
    (2015); torchvision 0.28.

    >>> googlenet()["inception3a/branch2"]
    serial
    ├─ 0: serial
    │  ├─ conv: conv(96, 1, use_bias=False)
    │  ├─ bn: batch_norm(epsilon=0.001)
    │  └─ relu: relu
    └─ 1: serial
       ├─ conv: conv(128, 3, padding=1, use_bias=False)
       ├─ bn: batch_norm(epsilon=0.001)
       └─ relu: relu
    """

    def unit(features: int, window: int | tuple[int, int], **options: Any) -> Net:
        layer = conv(features, window, use_bias=False, kernel_init=HE, **options)
        return serial(conv=layer, bn=batch_norm(epsilon=1e-3), relu=jax.nn.relu)

    body = _body(unit, 3, max_pool(2, ceil_mode=True), {}, dropout, num_classes)
    return _with_heads(body, unit, adaptive_avg_pool(4), auxiliary_dropout, num_classes) if auxiliary else body


@takes_images
def googlenet_2014(
    num_classes: int = 1000, *, auxiliary: bool = False, dropout: Any = 0.4, auxiliary_dropout: Any = 0.7
) -> Net:
    """Return GoogLeNet as published: biases, local response normalization, 5×5 kernels, no batch norm.

    Input and output are as for `googlenet`, with at least 31 × 31. With 1000 classes and 3 channels there are 6,998,552
    parameters and 1,582,671,872 multiply-adds at 224 × 224. The heads pool over windows of 5 with stride 3, so they
    need at least 79 × 79, and have the paper's 4 × 4 positions at 224 × 224.

    Args:
        num_classes: the width of the output.
        auxiliary: whether to add heads after `inception4a` and `inception4d`, in training only.
        dropout: the rate before the output. May be traced.
        auxiliary_dropout: the rate after the hidden layer of the heads. May be traced.

    Raises:
        NetError: for an input that is too small, or without four axes; the message names the layer.

    Szegedy and others, "Going Deeper with Convolutions" (2015), table 1, figure 3 for the normalization and section 5
    for the heads; the settings of the normalization are those of Caffe's model.

    >>> list(googlenet_2014().children)[:7]
    ['conv1', 'maxpool1', 'norm1', 'conv2', 'conv3', 'norm2', 'maxpool2']
    """

    def unit(features: int, window: int | tuple[int, int], **options: Any) -> Net:
        return serial(conv=conv(features, window, kernel_init=HE, **options), relu=jax.nn.relu)

    body = _body(unit, 5, POOL, {"norm": local_response_norm(5)}, dropout, num_classes)
    return _with_heads(body, unit, avg_pool(5, stride=3), auxiliary_dropout, num_classes) if auxiliary else body


def _body(unit: Unit, window: int, last_pool: Net, norm: dict[str, Net], dropout: Any, num_classes: int) -> Net:
    """Return the network without heads, built from `unit(features, window)`, with `norm` twice in its stem."""
    layers: dict[str, Any] = {
        # A pair of sizes restricts the input to images.
        "conv1": unit(64, (7, 7), stride=2, padding=3),  # (batch, 112, 112, 64)
        "maxpool1": POOL,  # (batch, 56, 56, 64)
        **{f"{name}1": layer for name, layer in norm.items()},
        "conv2": unit(64, 1),
        "conv3": unit(192, 3, padding=1),  # (batch, 56, 56, 192)
        **{f"{name}2": layer for name, layer in norm.items()},
        "maxpool2": POOL,  # (batch, 28, 28, 192)
    }
    for name, (ones, threes_in, threes, fives_in, fives, pooled) in BLOCKS.items():
        layers[name] = branches(
            concatenate,
            branch1=unit(ones, 1),
            branch2=serial(unit(threes_in, 1), unit(threes, 3, padding=1)),
            branch3=serial(unit(fives_in, 1), unit(fives, window, padding=window // 2)),
            branch4=serial(max_pool(3, stride=1, padding=1), unit(pooled, 1)),
        )
        if name == "inception3b":
            layers["maxpool3"] = POOL  # (batch, 14, 14, 480)
        elif name == "inception4e":
            layers["maxpool4"] = last_pool  # (batch, 7, 7, 832)
    return serial(**layers, avgpool=global_avg_pool, dropout=drop(dropout), fc=dense(num_classes))


def _with_heads(body: Net, unit: Unit, pool: Net, dropout: Any, num_classes: int) -> Net:
    """Return the network with two auxiliary heads, built from `unit(features, window)`."""
    head = serial(
        pool=pool,  # (batch, 4, 4, channels)
        conv=unit(128, 1),
        flatten=flatten,  # (batch, 2048)
        fc1=dense(1024, kernel_init=HE),
        relu=jax.nn.relu,
        dropout=drop(dropout),
        fc2=dense(num_classes),
    )
    return auxiliary_heads(body, aux1=(head, "inception4a"), aux2=(head, "inception4d"))
