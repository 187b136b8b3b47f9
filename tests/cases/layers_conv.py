"""Convolution and pooling layers."""

import jaxnets as jn
from tests.cases.case import Case
from tests.oracle import floats, integers

IMAGES = floats(3, 5, 4, 2)
APART = (floats(3, 5, 4, 2, seed=1, scale=0.01) + integers(3, 5, 4, 2, high=9)).astype("float32")
SEQUENCES = jn.Padded(floats(3, 4, 2), integers(3, low=1, high=5))

CASES = [
    Case("layers/conv_1d", lambda: jn.conv(3, 2), floats(3, 5, 2)),
    Case("layers/conv_2d", lambda: jn.conv(3, 3, stride=(2, 1), padding=((0, 1), (1, 1))), IMAGES),
    Case("layers/conv_3d", lambda: jn.conv(2, 2, padding=(0, 1, 0)), floats(3, 2, 2, 3, 1)),
    Case("layers/conv_1x1", lambda: jn.conv(3, 1, stride=2, use_bias=False), IMAGES),
    Case("layers/conv_grouped", lambda: jn.conv(4, 3, groups=2, dilation=2, padding="SAME"), IMAGES),
    Case("layers/conv_padded", lambda: jn.conv(3, 3, padding="SAME"), SEQUENCES),
    Case("layers/depthwise_conv", lambda: jn.depthwise_conv(3, 2, padding="SAME"), IMAGES),
    Case("layers/conv_transpose", lambda: jn.conv_transpose(3, 4, stride=2, padding=1), floats(3, 3, 2, 2)),
    Case("layers/conv_transpose_grouped", lambda: jn.conv_transpose(4, 3, groups=2), floats(3, 3, 2, 2)),
    Case("layers/max_pool", lambda: jn.max_pool(2), APART),
    Case("layers/max_pool_overlapping", lambda: jn.max_pool(3, stride=2, padding=1), APART),
    Case("layers/avg_pool", lambda: jn.avg_pool(2), IMAGES),
    Case("layers/avg_pool_ceil", lambda: jn.avg_pool(3, stride=2, padding=1, ceil_mode=True), IMAGES),
    Case("layers/adaptive_avg_pool", lambda: jn.adaptive_avg_pool((2, 3)), IMAGES),
    Case("layers/global_avg_pool", lambda: jn.as_net(jn.global_avg_pool), IMAGES),
    Case("layers/global_max_pool", lambda: jn.as_net(jn.global_max_pool), APART),
]
