"""Whole architectures."""

import jax.numpy as jnp

import jaxnets as jn
from tests.cases.case import Case
from tests.oracle import floats

IMAGES = floats(3, 28, 28, 1, scale=0.3)

CASES = [
    # Kinks are many in a whole network, so finite differences are taken of the smooth one.
    Case("models/lenet5", jn.models.lenet5, IMAGES, differentiable=False),
    Case("models/lenet5_smooth", lambda: jn.models.lenet5(4, activation=jnp.tanh, pool=jn.avg_pool), IMAGES),
]
