"""ResNet version 2: normalization and activation before each convolution, and nothing after the sum."""

from typing import Any

from jax.nn import relu

from jaxnets.combinators.serial import residual, serial
from jaxnets.core.net import Net
from jaxnets.layers import batch_norm, dense, global_avg_pool, max_pool
from jaxnets.models.blocks import residual_behind, same_conv, stages, stem
from jaxnets.models.images import takes_images
from jaxnets.models.resnet import BLOCKS


@takes_images
def resnet50_v2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNet-50 version 2: y = x + F(x), where F has its batch norms and ReLUs before its convolutions.

    In a block that changes the shape, the shortcut starts after the first ReLU, y = P(h) + F'(h) with
    h = relu(norm1(x)). The stride is on the 3×3 convolution. The input is `(batch, height, width, channels)` of any
    floating dtype, number of channels and size; the output logits `(batch, num_classes)`. With 3 channels and 1000
    classes there are 25,549,352 parameters.

    Names inside a block are timm's (`norm1`, `conv1`, …, `downsample/conv`), those outside of blocks are torchvision's:
    timm's `stem.conv` is `conv1`, `stages.0.blocks.0` is `layer1/0`, and `head.fc`, a 1×1 convolution there, is `fc`.

    Args:
        num_classes: the width of the output.
        scan: whether the equal blocks of a stage are one `repeat`, as in `resnet50`.
        zero_init_residual: whether the last convolution of each block starts at 0, so that blocks start as the
            identity.

    Raises:
        NetError: for an input that is not a batch of images or is empty; the message names the layer.

    He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks" (2016), figure 1 (b) and appendix.

    >>> list(resnet50_v2()["layer1/1"].children)
    ['norm1', 'relu1', 'conv1', 'norm2', 'relu2', 'conv2', 'norm3', 'relu3', 'conv3']
    """
    return _network(50, num_classes, scan, zero_init_residual)


@takes_images
def resnet18_v2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNet-18 version 2, with pairs of 3×3 convolutions; 11,687,720 parameters. See `resnet50_v2`.

    >>> len(resnet18_v2()["layer3"].children)
    2
    """
    return _network(18, num_classes, scan, zero_init_residual)


@takes_images
def resnet34_v2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNet-34 version 2, with pairs of 3×3 convolutions; 21,795,880 parameters. See `resnet50_v2`.

    >>> len(resnet34_v2()["layer3"].children)
    6
    """
    return _network(34, num_classes, scan, zero_init_residual)


@takes_images
def resnet101_v2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNet-101 version 2, with bottlenecks; 44,541,480 parameters. See `resnet50_v2`.

    >>> len(resnet101_v2()["layer3"].children)
    23
    """
    return _network(101, num_classes, scan, zero_init_residual)


@takes_images
def resnet152_v2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNet-152 version 2, with bottlenecks; 60,185,128 parameters. See `resnet50_v2`.

    >>> len(resnet152_v2()["layer3"].children)
    36
    """
    return _network(152, num_classes, scan, zero_init_residual)


def _network(depth: int, num_classes: int, scan: bool, zero: bool) -> Net:
    has_bottlenecks = depth >= 50

    def block(features: int, stride: int, first: bool) -> Net:
        # Features, kernel size and stride of each convolution.
        if has_bottlenecks:
            convolutions = [(features, 1, 1), (features, 3, stride), (4 * features, 1, 1)]
        else:
            convolutions = [(features, 3, stride), (features, 3, 1)]
        layers: dict[str, Any] = {}
        for number, (width, window, step) in enumerate(convolutions, start=1):
            layers |= {f"norm{number}": batch_norm(), f"relu{number}": relu}
            layers[f"conv{number}"] = same_conv(width, window, step, zero=zero and number == len(convolutions))
        # The shape is kept, and the shortcut is the identity.
        if stride == 1 and not (has_bottlenecks and first):
            return residual(serial(**layers))
        before = serial(norm1=layers.pop("norm1"), relu1=layers.pop("relu1"))
        return residual_behind(before, serial(**layers), serial(conv=same_conv(convolutions[-1][0], 1, stride)))

    return serial(
        conv1=stem(64, 7, stride=2),
        maxpool=max_pool(3, stride=2, padding=1),
        **stages(BLOCKS[depth], 64, block, scan=scan),
        norm=batch_norm(),
        relu=relu,
        avgpool=global_avg_pool,
        fc=dense(num_classes),
    )
