"""ResNeXt and Wide ResNet: ResNet-50 and ResNet-101 with wider bottlenecks, in groups or not."""

from jaxnets.models.images import takes_images
from jaxnets.models.resnet import network
from jaxnets.net import Net


@takes_images
def resnext50_32x4d(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNeXt-50 (32×4d): the 3×3 convolutions of ResNet-50 twice as wide, in 32 groups.

    25,028,904 parameters and 4,230,479,872 multiply-adds at 224 × 224, about those of `resnet50`, whose input, output,
    options and names it has.

    Xie, Girshick, Dollár, Tu and He, "Aggregated Residual Transformations for Deep Neural Networks" (2016), table 1.

    >>> resnext50_32x4d()["layer1/0/conv2"]
    conv(128, 3, padding=1, groups=32, use_bias=False)
    """
    return network(50, num_classes, scan, zero_init_residual, groups=32, widen=2)


@takes_images
def resnext101_32x8d(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNeXt-101 (32×8d): the 3×3 convolutions of ResNet-101 four times as wide, in 32 groups.

    88,791,336 parameters and 16,414,015,488 multiply-adds at 224 × 224; input, output, options and names are those of
    `resnet50`.

    Xie et al. (2016); torchvision 0.28.

    >>> resnext101_32x8d()["layer1/0/conv2"]
    conv(256, 3, padding=1, groups=32, use_bias=False)
    """
    return network(101, num_classes, scan, zero_init_residual, groups=32, widen=4)


@takes_images
def resnext101_64x4d(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return ResNeXt-101 (64×4d): the 3×3 convolutions of ResNet-101 four times as wide, in 64 groups.

    83,455,272 parameters and 15,460,270,080 multiply-adds at 224 × 224; input, output, options and names are those of
    `resnet50`.

    Xie et al. (2016), table 4; torchvision 0.28.

    >>> resnext101_64x4d()["layer1/0/conv2"]
    conv(256, 3, padding=1, groups=64, use_bias=False)
    """
    return network(101, num_classes, scan, zero_init_residual, groups=64, widen=4)


@takes_images
def wide_resnet50_2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return Wide ResNet-50-2: ResNet-50 whose 3×3 convolutions are twice as wide.

    68,883,240 parameters and 11,398,021,120 multiply-adds at 224 × 224; input, output, options and names are those of
    `resnet50`.

    Zagoruyko and Komodakis, "Wide Residual Networks" (2016), section 3, on ImageNet.

    >>> wide_resnet50_2()["layer1/0/conv2"]
    conv(128, 3, padding=1, use_bias=False)
    """
    return network(50, num_classes, scan, zero_init_residual, widen=2)


@takes_images
def wide_resnet101_2(num_classes: int = 1000, *, scan: bool = False, zero_init_residual: bool = False) -> Net:
    """Return Wide ResNet-101-2: ResNet-101 whose 3×3 convolutions are twice as wide.

    126,886,696 parameters and 22,753,050,624 multiply-adds at 224 × 224; input, output, options and names are those of
    `resnet50`.

    Zagoruyko and Komodakis (2016); torchvision 0.28.

    >>> wide_resnet101_2()["layer1/0/conv2"]
    conv(128, 3, padding=1, use_bias=False)
    """
    return network(101, num_classes, scan, zero_init_residual, widen=2)
