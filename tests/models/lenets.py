"""LeNet-5."""

import jaxnets as jn
from tests.models.row import Row, image

ROWS = [
    Row("lenet5_mnist", jn.models.lenet5, image(28, 1), 61_706, 416_520),
]
