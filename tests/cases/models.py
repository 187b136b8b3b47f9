"""Whole architectures."""

import jax.numpy as jnp

import jaxnets as jn
from jaxnets.models.lenet import connected_conv, rbf, subsample
from tests.cases.case import Case
from tests.oracle import floats

IMAGES = floats(3, 28, 28, 1, scale=0.3)


def _lenet5_parts() -> jn.Net:
    codes = floats(2, 6)
    return jn.serial(connected_conv(((0, 1), (1,), (0,)), 2), subsample(2), jn.flatten, rbf(codes, trainable=True))


CASES = [
    # Kinks are many in a whole network, so finite differences are taken of the smooth one.
    Case("models/lenet5", jn.models.lenet5, IMAGES, differentiable=False),
    Case("models/lenet5_smooth", lambda: jn.models.lenet5(4, activation=jnp.tanh, pool=jn.avg_pool), IMAGES),
    Case("models/lenet5_parts", _lenet5_parts, floats(4, 5, 4, 2)),  # the whole of 1998: tests/models/test_lenet.py
    Case("models/linear", lambda: jn.models.linear(3), floats(4, 2, 3)),
    Case("models/perceptron", lambda: jn.models.perceptron(2), floats(4, 5), differentiable=False),
    Case(
        "models/mlp",
        lambda: jn.models.mlp((4,), 3, activation=jnp.tanh, norm="batch", dropout=0.5),
        floats(4, 6),
        random=True,
    ),
    Case(
        "models/cnn",
        lambda: jn.models.cnn((3,), 2, hidden=(4,), activation=jnp.tanh, dropout=0.3),
        floats(4, 5, 4, 2),
        random=True,
    ),
]
