"""Convolutional networks after ResNet. Multiply-adds are those that PyTorch's counter finds in torchvision's."""

from functools import partial

from jaxnets import models
from tests.models.row import Row, image

ROWS = [
    Row("mobilenet_v2", models.mobilenet_v2, image(), 3_504_872, 300_774_272),
    Row("mobilenet_v2_1.4", partial(models.mobilenet_v2, width=1.4), image(), 6_108_776, 582_195_824),
    Row("efficientnet_b0", models.efficientnet_b0, image(), 5_288_548, 385_814_752),
    Row("densenet121", models.densenet121, image(), 7_978_856, 2_834_161_664),
    Row("convnext_tiny", models.convnext_tiny, image(), 28_589_128, 4_455_531_264),
]
