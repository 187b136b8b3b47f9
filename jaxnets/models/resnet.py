"""ResNet for ImageNet, and its variants ResNeXt and Wide ResNet."""

from typing import Literal

from jax.nn import relu

from jaxnets.combinators.serial import residual, serial
from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.layers import batch_norm, dense, global_avg_pool, max_pool
from jaxnets.models.blocks import basic, bottleneck, projection, stages, stem
from jaxnets.models.images import takes_images

# The number of blocks in each stage, by depth.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
Version = Literal["1", "1.5"]


@takes_images
def resnet18(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNet-18: blocks of two 3×3 convolutions; 11,689,512 parameters. Its options are those of `resnet50`.

    >>> resnet18()["layer1/0"].kind
    'residual'
    """
    return _network(18, num_classes, scan, zero_init_residual)


@takes_images
def resnet34(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNet-34: blocks of two 3×3 convolutions; 21,797,672 parameters. Its options are those of `resnet50`.

    >>> len(resnet34()["layer3"].children)
    6
    """
    return _network(34, num_classes, scan, zero_init_residual)


@takes_images
def resnet50(
    num_classes: int = 1000, *, version: Version = "1.5", scan: bool = False, zero_init_residual: bool = False
) -> Net:
    """Return ResNet-50: blocks of 1×1, 3×3 and 1×1 convolutions, y = relu(F(x) + x).

    The input is `(batch, height, width, channels)` of any floating dtype, number of channels and size; the output
    logits `(batch, num_classes)`. The stages have strides 4, 8, 16 and 32; the paper's size is 224 × 224. With 3
    channels and 1000 classes there are 25,557,032 parameters. The names are torchvision's, so its weights fit;
    `net.upto("avgpool")` returns the features before the logits, `(batch, 2048)`.

    Args:
        num_classes: the width of the output.
        version: where the stride is in a block that halves the size: "1.5" on the 3×3 convolution, as in torchvision
            (4.089 G multiply-adds), "1" on the first 1×1, as in the paper (3.858 G). The parameters are the same.
            Version 2 is `resnet50_v2`.
        scan: whether the equal blocks of a stage are one `repeat`: a shorter program, whose steps may take longer on
            CPU. With 50 layers it compiles more slowly; docs/how-it-is-fast.md has times for 50, 101 and 152. The
            function is the same; `jn.to_unstacked(net, params)` and `jn.to_stacked` convert parameters. Initial values
            are drawn from other keys.
        zero_init_residual: whether the last scale of each block starts at 0, so that blocks start as the identity.

    Raises:
        NetError: for another version, or an input that is not a batch of images or is empty; the message names the
            layer.

    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2015), table 1; Goyal et al., "Accurate,
    Large Minibatch SGD" (2017), section 5.1, for version 1.5 and the zero scales.

    >>> import jax, jax.numpy as jnp
    >>> net = resnet50().upto("avgpool")
    >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (1, 2048)
    """
    return _network(50, num_classes, scan, zero_init_residual, version)


@takes_images
def resnet101(
    num_classes: int = 1000, *, version: Version = "1.5", scan: bool = False, zero_init_residual: bool = False
) -> Net:
    """Return ResNet-101, with 44,549,160 parameters; all else is as in `resnet50`.

    >>> resnet101(scan=True)["layer3"].children["1"].copies
    22
    """
    return _network(101, num_classes, scan, zero_init_residual, version)


@takes_images
def resnet152(
    num_classes: int = 1000, *, version: Version = "1.5", scan: bool = False, zero_init_residual: bool = False
) -> Net:
    """Return ResNet-152, with 60,192,808 parameters; all else is as in `resnet50`.

    >>> resnet152(scan=True)["layer3"].children["1"].copies
    35
    """
    return _network(152, num_classes, scan, zero_init_residual, version)


@takes_images
def resnext50_32x4d(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNeXt-50 (32×4d): the 3×3 convolutions of ResNet-50 twice as wide, in 32 groups.

    25,028,904 parameters and 4,230,479,872 multiply-adds at 224 × 224, about as many as `resnet50`. Input, output,
    options and names are those of `resnet50`.

    Xie, Girshick, Dollár, Tu and He, "Aggregated Residual Transformations for Deep Neural Networks" (2016), table 1.

    >>> resnext50_32x4d()["layer1/0/conv2"]
    conv(128, 3, padding=1, groups=32, use_bias=False)
    """
    return _network(50, num_classes, scan, zero_init_residual, groups=32, widen=2)


@takes_images
def resnext101_32x8d(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNeXt-101 (32×8d): the 3×3 convolutions of ResNet-101 four times as wide, in 32 groups.

    88,791,336 parameters and 16,414,015,488 multiply-adds at 224 × 224; input, output, options and names are those of
    `resnet50`.

    Xie et al. (2016); torchvision 0.28.

    >>> resnext101_32x8d()["layer1/0/conv2"]
    conv(256, 3, padding=1, groups=32, use_bias=False)
    """
    return _network(101, num_classes, scan, zero_init_residual, groups=32, widen=4)


@takes_images
def resnext101_64x4d(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNeXt-101 (64×4d): the 3×3 convolutions of ResNet-101 four times as wide, in 64 groups.

    83,455,272 parameters and 15,460,270,080 multiply-adds at 224 × 224; input, output, options and names are those of
    `resnet50`.

    Xie et al. (2016), table 4; torchvision 0.28.

    >>> resnext101_64x4d()["layer1/0/conv2"]
    conv(256, 3, padding=1, groups=64, use_bias=False)
    """
    return _network(101, num_classes, scan, zero_init_residual, groups=64, widen=4)


@takes_images
def wide_resnet50_2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return Wide ResNet-50-2: ResNet-50 whose 3×3 convolutions are twice as wide.

    68,883,240 parameters and 11,398,021,120 multiply-adds at 224 × 224; input, output, options and names are those of
    `resnet50`.

    Zagoruyko and Komodakis, "Wide Residual Networks" (2016), section 3, on ImageNet.

    >>> wide_resnet50_2()["layer1/0/conv2"]
    conv(128, 3, padding=1, use_bias=False)
    """
    return _network(50, num_classes, scan, zero_init_residual, widen=2)


@takes_images
def wide_resnet101_2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return Wide ResNet-101-2: ResNet-101 whose 3×3 convolutions are twice as wide.

    126,886,696 parameters and 22,753,050,624 multiply-adds at 224 × 224; input, output, options and names are those of
    `resnet50`.

    Zagoruyko and Komodakis (2016); torchvision 0.28.

    >>> wide_resnet101_2()["layer1/0/conv2"]
    conv(128, 3, padding=1, use_bias=False)
    """
    return _network(101, num_classes, scan, zero_init_residual, widen=2)


def _network(
    depth: int, num_classes: int, scan: bool, zero: bool, version: str = "1.5", *, groups: int = 1, widen: int = 1
) -> Net:
    """Return a ResNet; the 3×3 convolutions in its bottlenecks are `widen` times as wide, in `groups` groups."""
    if version not in ("1", "1.5"):
        hint = f"; take resnet{depth}_v2" if str(version).startswith("2") else ""
        raise NetError(f'expects version "1" or "1.5", got {version!r}{hint}', label=f"resnet{depth}")

    def block(features: int, stride: int, first: bool) -> Net:
        if depth < 50:
            # The first stage keeps both size and features, so its shortcuts are the identity.
            body, changes = basic(features, stride, zero=zero), stride > 1
        else:
            width, features, early = widen * features, 4 * features, version == "1"
            body, changes = bottleneck(features, stride, width=width, groups=groups, early=early, zero=zero), first
        return residual(body, projection(features, stride) if changes else None, relu)

    return serial(
        conv1=stem(64, 7, stride=2),
        bn1=batch_norm(),
        relu=relu,
        maxpool=max_pool(3, stride=2, padding=1),
        **stages(BLOCKS[depth], 64, block, scan=scan),
        avgpool=global_avg_pool,
        fc=dense(num_classes),
    )
