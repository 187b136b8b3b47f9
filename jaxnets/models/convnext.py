"""ConvNeXt: a convolutional network with the design of a vision transformer, with torchvision's names."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax

from jaxnets.combinators.serial import Layer, residual, serial
from jaxnets.core.errors import check_count
from jaxnets.core.net import Net
from jaxnets.layers import conv, dense, depthwise_conv, drop_path, flatten, global_avg_pool, layer_norm
from jaxnets.layers import layer_scale as scale_channels
from jaxnets.models.images import takes_images

GELU = partial(jax.nn.gelu, approximate=False)
norm: partial[Net] = partial(layer_norm, epsilon=1e-6)
NORMAL = jax.nn.initializers.normal(0.02)


@takes_images
def convnext_tiny(num_classes: int = 1000, *, stochastic_depth: Any = 0.1, layer_scale: Any = 1e-6) -> Net:
    """Return ConvNeXt-T: blocks of a 7×7 depthwise convolution and two dense layers, y = x + γ · F(x).

    The input is `(batch, height, width, channels)` of any floating dtype and at least 32 × 32, 224 × 224 in the paper;
    the output logits `(batch, num_classes)`. With 3 channels and 1000 classes there are 28,589,128 parameters and
    4,455,531,264 multiply-adds at 224 × 224. The names are torchvision's, so its weights fit; `net.upto("avgpool")`
    returns the features before the last norm and the logits, `(batch, 768)`.

    Args:
        num_classes: the width of the output.
        stochastic_depth: the rate p of `jn.drop_path`: block k of 18, counted from 0, is skipped with probability
            p k / 17. May be traced.
        layer_scale: the initial value of γ, one number for each channel of a block. May be traced.

    Raises:
        NetError: for settings out of range, or an input that is too small or not a batch of images.

    Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, "A ConvNet for the 2020s" (2022), figure 4 and table 9; initial values
    as in torchvision, N(0, 0.02²) for kernels.

    >>> convnext_tiny()["features/1/0"]
    residual
    ├─ block: serial
    │  ├─ 0: depthwise_conv(7, padding=3)
    │  ├─ 2: layer_norm(epsilon=1e-06)
    │  ├─ 3: dense(384)
    │  ├─ 4: gelu(approximate=False)
    │  └─ 5: dense(96)
    ├─ layer_scale: layer_scale()
    └─ stochastic_depth: drop_path(0.0)
    """
    return _convnext((96, 192, 384, 768), (3, 3, 9, 3), num_classes, stochastic_depth, layer_scale)


def _convnext(
    widths: Sequence[int], counts: Sequence[int], num_classes: int, rate: Any, scale: Any, *, epsilon: Any = 1e-6
) -> Net:
    """Return a ConvNeXt with stages of these features and numbers of blocks; ε is that of the last norm."""
    check_count("num_classes", num_classes)
    total, blocks = sum(counts), 0
    # A pair of sizes, in the first layer, restricts the input to images.
    features: list[Layer] = [serial(conv(widths[0], (4, 4), stride=4, kernel_init=NORMAL), norm())]
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
        if stage:
            features.append(serial(norm(), conv(width, 2, stride=2, kernel_init=NORMAL)))
        rates = [rate * ((blocks + k) / (total - 1)) for k in range(count)]
        features.append(serial(*(_block(width, each, scale) for each in rates)))
        blocks += count
    return serial(
        features=serial(*features),
        avgpool=global_avg_pool,
        classifier=serial(norm(epsilon=epsilon), flatten, dense(num_classes, kernel_init=NORMAL)),
    )


def _block(width: int, rate: Any, scale: Any) -> Net:
    # torchvision moves the channels to the end and back, which are its layers 1 and 6.
    block = {
        "0": depthwise_conv(7, padding=3, kernel_init=NORMAL),
        "2": norm(),
        "3": dense(4 * width, kernel_init=NORMAL),
        "4": GELU,
        "5": dense(width, kernel_init=NORMAL),
    }
    scaled = scale_channels(scale_init=jax.nn.initializers.constant(scale))
    return residual(serial(block=serial(**block), layer_scale=scaled, stochastic_depth=drop_path(rate)))
