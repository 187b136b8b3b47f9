"""Autoencoders, Boltzmann machines and the network of a flow."""

import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from jaxnets import models
from tests.cases.case import Case
from tests.oracle import floats, integers

BITS = integers(4, 5, high=2).astype(np.float32)


def _denoising() -> jn.Net:
    net = models.autoencoder((3, 2), (4,), 2, activation=jnp.tanh)
    return models.denoising_autoencoder(net, jn.masking_noise(0.3))


CASES = [
    Case("models/denoising_autoencoder", _denoising, floats(4, 3, 2), random=True),
    Case("models/vae", lambda: models.vae((3, 2), (4,), 2), floats(4, 3, 2), random=True),
    Case(
        "models/conditional_unet",
        lambda: models.conditional_unet(1, (2, 4), num_classes=3, groups=2),
        (floats(3, 4, 3, 1), floats(3), integers(3, high=4)),
    ),
    Case("models/rbm", lambda: models.rbm(3), BITS),
    # The samples are held constant, so its gradient is no derivative of its value; energies are float32.
    Case(
        "models/contrastive_divergence",
        lambda: models.contrastive_divergence(3, steps=2, chains=6),
        BITS,
        random=True,
        differentiable=False,
        half=False,
    ),
]
