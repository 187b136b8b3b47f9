"""The classic feed-forward networks: linear, perceptron, MLP, small CNN, AlexNet, VGG.

Counts of AlexNet and VGG at 224 × 224 are torchvision's, those of 2012 the paper's; the others follow by hand from the
layers' sizes.
"""

from functools import partial

import jaxnets as jn
from jaxnets import models
from tests.models.row import Row, image

DIGIT = image(28, 1)

ROWS = [
    Row("linear_mnist", models.linear, DIGIT, 7_850, 7_840),
    Row("linear_cifar", models.linear, image(32), 30_730, 30_720),
    Row("perceptron_unit", models.perceptron, DIGIT, 785, 784),
    Row("perceptron_mnist", partial(models.perceptron, 10), DIGIT, 7_850, 7_840),
    Row("mlp_300", partial(models.mlp, (300,)), DIGIT, 238_510, 238_200),
    Row("mlp_300_100", partial(models.mlp, (300, 100), dropout=0.5), DIGIT, 266_610, 266_200),
    Row("mlp_batch_norm", partial(models.mlp, (300, 100), dropout=0.5, norm="batch"), DIGIT, 267_410, 266_200),
    Row("mlp_layer_norm", partial(models.mlp, (300, 100), norm="layer"), DIGIT, 267_410, 266_200),
    Row(
        "mlp_regression",
        partial(models.mlp, (64,), 1, activation=jn.activations.scaled_tanh),
        image(4, 2),
        2_177,
        2_112,
    ),
    Row("cnn_mnist", models.cnn, DIGIT, 421_642, 4_241_152),
    Row("cnn_batch_norm", partial(models.cnn, batch_norm=True, dropout=0.5), DIGIT, 421_738, 4_241_152),
    Row("cnn_pairs", partial(models.cnn, (16, 32), kernel_size=5, convs=2, hidden=()), image(32), 66_586, 17_633_280),
    Row("alexnet", models.alexnet, image(), 61_100_840, 714_188_480),
    Row("alexnet_gray", partial(models.alexnet, 10), image(224, 1), 57_029_322, 663_282_240),
    Row("alexnet_2012", models.alexnet_2012, image(227), 60_965_224, 724_406_816),
    Row("vgg11", models.vgg11, image(), 132_863_336, 7_609_090_048),
    Row("vgg11_bn", partial(models.vgg11, batch_norm=True), image(), 132_868_840, 7_609_090_048),
    Row("vgg11_cifar", partial(models.vgg11, 10), image(32), 128_807_306, 272_343_040),
    Row("vgg13", models.vgg13, image(), 133_047_848, 11_308_466_176),
    Row("vgg13_bn", partial(models.vgg13, batch_norm=True), image(), 133_053_736, 11_308_466_176),
    Row("vgg16", models.vgg16, image(), 138_357_544, 15_470_264_320),
    Row("vgg16_bn", partial(models.vgg16, batch_norm=True), image(), 138_365_992, 15_470_264_320),
    Row("vgg19", models.vgg19, image(), 143_667_240, 19_632_062_464),
    Row("vgg19_bn", partial(models.vgg19, batch_norm=True), image(), 143_678_248, 19_632_062_464),
]
