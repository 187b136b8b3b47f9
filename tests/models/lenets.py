"""LeNet-5."""

from functools import partial

import jaxnets as jn
from tests.models.row import Row, image

# No source counts the multiply-adds of 1998: the paper counts connections.
ROWS = [
    Row("lenet5_mnist", jn.models.lenet5, image(28, 1), 61_706, 416_520),
    Row("lenet5_1998", jn.models.lenet5_1998, image(32, 1), 60_000),
    Row("lenet5_1998_padded", partial(jn.models.lenet5_1998, padding=2), image(28, 1), 60_000),
    Row("lenet5_1998_trainable", partial(jn.models.lenet5_1998, trainable_codes=True), image(32, 1), 60_840),
    Row("lenet5_1998_letters", partial(jn.models.lenet5_1998, 36), image(32, 3), 60_300),
]
