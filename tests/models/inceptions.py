"""GoogLeNet and the Inceptions. Multiply-adds are those in evaluation, which leaves out the heads."""

import jaxnets as jn
from tests.models.row import Row, image

models = jn.models

ROWS = [
    Row("googlenet", models.googlenet, image(), 6_624_904, 1_498_376_192),
    Row("googlenet_heads", lambda: models.googlenet(auxiliary=True), image(), 13_004_888, 1_498_376_192),
    Row("googlenet_2014", models.googlenet_2014, image(), 6_998_552, 1_582_671_872),
    # A head of the paper's has the biases of its convolution, torchvision's the scales and biases of a norm: 128 more.
    Row(
        "googlenet_2014_heads",
        lambda: models.googlenet_2014(auxiliary=True),
        image(),
        6_998_552 + 13_004_888 - 6_624_904 - 2 * 128,
        1_582_671_872,
    ),
    # torchvision's documentation has 5.713 G; this is its definition counted layer by layer with PyTorch's hooks.
    Row("inception_v3", models.inception_v3, image(299), 23_834_568, 5_713_216_096),
    Row("inception_v3_heads", lambda: models.inception_v3(auxiliary=True), image(299), 27_161_264, 5_713_216_096),
    # 11,295,240 in the port of the authors' weights to PyTorch (Cadene's bninception), with a bias for each of 10,016
    # features of convolutions. Multiply-adds are of figure 5, summed by hand in `test_inception.py`.
    Row("inception_v2", models.inception_v2, image(), 11_295_240 - 10_016, 2_032_600_064),
    # Parameters and multiply-adds of timm 1.0.31, counted layer by layer with PyTorch's hooks.
    Row("inception_v4", models.inception_v4, image(299), 42_679_816, 12_253_974_624),
    Row("inception_resnet_v2", models.inception_resnet_v2, image(299), 55_843_464, 13_155_794_016),
]
