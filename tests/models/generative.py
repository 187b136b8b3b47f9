"""Autoencoders and Boltzmann machines."""

import jax
import jax.numpy as jnp

import jaxnets as jn
from tests.models.row import Row, image

PIXELS = jax.ShapeDtypeStruct((1, 784), jnp.float32)

ROWS = [
    # Hinton and Salakhutdinov (2006): 784-1000-500-250-30 and back.
    Row(
        "autoencoder_2006",
        lambda: jn.models.autoencoder((28, 28, 1), (1000, 500, 250), 30, activation=jax.nn.sigmoid),
        image(28, 1),
        2_837_314,
        2_833_000,
    ),
    Row("conv_autoencoder_mnist", lambda: jn.models.conv_autoencoder((28, 28, 1)), image(28, 1), 241_441),
    Row("vae_mnist", lambda: jn.models.vae((28, 28, 1)), image(28, 1), 815_824, 814_000),
    Row("conv_vae_mnist", lambda: jn.models.conv_vae((28, 28, 1)), image(28, 1), 228_905),
    Row("rbm_mnist", lambda: jn.models.rbm(500), PIXELS, 393_284, 392_000),
    Row(
        "contrastive_divergence_mnist",
        lambda: jn.models.contrastive_divergence(500, steps=15, chains=100),
        PIXELS,
        393_284,
    ),
    # Hinton, Osindero and Teh (2006), "about 1.7 million weights", here with a classifier on top.
    Row("dbn_mnist", lambda: jn.models.dbn((500, 500, 2000), 10), PIXELS, 1_666_794, 1_662_000),
    # Salakhutdinov and Hinton (2009): "0.9 million" and "1.15 million parameters".
    Row("dbm_mnist_2", lambda: jn.models.dbm((500, 1000)), PIXELS, 894_284),
    Row("dbm_mnist_3", lambda: jn.models.mean_field_learning((500, 500, 1000)), PIXELS, 1_144_784),
]
