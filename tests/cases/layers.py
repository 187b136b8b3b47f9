"""Leaf layers."""

import jaxnets as jn
from tests.cases.case import Case
from tests.oracle import floats

CASES = [
    Case("layers/dense", lambda: jn.dense(3), floats(4, 5)),
    Case("layers/dense_no_bias", lambda: jn.dense(3, use_bias=False), floats(4, 2, 5)),
    Case("layers/flatten", lambda: jn.as_net(jn.flatten), floats(4, 2, 3)),
]
