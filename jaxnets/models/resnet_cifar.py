"""ResNets for small images such as CIFAR's, with three kinds of shortcuts, and the same networks without them."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.nn import relu

from jaxnets.combinators.serial import residual, serial
from jaxnets.core.errors import NetError
from jaxnets.core.layer import layer
from jaxnets.core.net import Net
from jaxnets.layers import batch_norm, dense, global_avg_pool
from jaxnets.models.blocks import basic, projection, stages, stem
from jaxnets.models.images import takes_images

Shortcut = Literal["A", "B", "C"]


@takes_images
def resnet_cifar(
    depth: int, num_classes: int = 10, *, shortcut: Shortcut = "A", scan: bool = False, zero_init_residual: bool = False
) -> Net:
    """Return the ResNet of `depth` = 6 n + 2 layers for small images: three stages of n blocks, 16, 32, 64 features.

    The input is `(batch, height, width, channels)` of any floating dtype, number of channels and size, 32 × 32 in the
    paper; the output logits `(batch, num_classes)`. `net.upto("avgpool")` returns 64 features.

    Args:
        depth: 6 n + 2 with n ≥ 1; the paper has 20, 32, 44, 56, 110 and 1202.
        num_classes: the width of the output.
        shortcut: "A", the paper's choice for CIFAR, takes every second position and appends channels of zeros, without
            parameters; "B" projects by a 1×1 convolution and a batch norm where the shape changes; "C" projects in
            every block.
        scan: whether the equal blocks of a stage are one `repeat`, as in `resnet50`.
        zero_init_residual: whether the last scale of each block starts at 0, so that blocks start as the identity.

    Raises:
        NetError: for another depth or shortcut, or an input that is not a batch of images or is empty; the message
            names the layer.

    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2015), section 4.2; 3.3 for the shortcuts.

    >>> resnet_cifar(20, shortcut="B")["layer2/0/downsample"]
    serial
    ├─ 0: conv(32, 1, stride=2, padding=0, use_bias=False)
    └─ 1: batch_norm()
    """
    if shortcut not in ("A", "B", "C"):
        hint = "; the network without shortcuts is plain_cifar" if not shortcut else ""
        raise NetError(f'expects shortcut "A", "B" or "C", got {shortcut!r}{hint}', label="resnet_cifar")

    def block(features: int, stride: int, first: bool) -> Net:
        change = None
        if shortcut == "C" or (shortcut == "B" and stride > 1):
            change = projection(features, stride)
        elif stride > 1:
            change = layer(None, lambda _, x: subsample(x, features, stride), label="subsample")
        return residual(basic(features, stride, zero=zero_init_residual), change, relu)

    return _stem_and_head("resnet_cifar", depth, block, num_classes, scan)


@takes_images
def plain_cifar(depth: int, num_classes: int = 10, *, scan: bool = False) -> Net:
    """Return the plain network of `depth` = 6 n + 2 layers: `resnet_cifar` without shortcuts.

    This baseline shows the benefit of shortcuts: deep plain networks are hard to train. Input, output and the other
    names are those of `resnet_cifar`, and the parameters are those with shortcut "A".

    Raises:
        NetError: for another depth, or an input that is not a batch of images or is empty; the message names the layer.

    He et al. (2015), section 4.2 and figure 6, left.

    >>> list(plain_cifar(20)["layer1/0"].children)
    ['conv1', 'bn1', 'relu1', 'conv2', 'bn2', 'relu2']
    """

    def block(features: int, stride: int, first: bool) -> Net:
        return serial(**basic(features, stride).children, relu2=relu)

    return _stem_and_head("plain_cifar", depth, block, num_classes, scan)


def subsample(x: jax.Array, features: int, stride: int) -> jax.Array:
    """Return every `stride`-th position, with channels of zeros appended up to `features`: shortcut A."""
    x = x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


def _stem_and_head(label: str, depth: int, block: Callable[[int, int, bool], Net], num_classes: int, scan: bool) -> Net:
    if not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
        raise NetError(f"expects a depth of 6 n + 2 with n ≥ 1, such as 20, 56 or 110, got {depth!r}", label=label)
    return serial(
        conv1=stem(16, 3),
        bn1=batch_norm(),
        relu=relu,
        **stages([(depth - 2) // 6] * 3, 16, block, scan=scan),
        avgpool=global_avg_pool,
        fc=dense(num_classes),
    )
