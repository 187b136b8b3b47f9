"""Losses `(outputs, targets) -> (batch,)`, one value per example.

Options are keyword arguments, which `functools.partial` sets. Losses are computed in float32 or wider, whatever the
dtype of the outputs.
"""

from jaxnets.losses.classification import (
    binary_cross_entropy,
    cross_entropy,
    focal,
    kl_divergence,
    maximum_a_posteriori,
    negative_log_likelihood,
    softmax_focal,
)
from jaxnets.losses.ctc import ctc
from jaxnets.losses.detection import fcos, giou
from jaxnets.losses.generative import (
    energy_gap,
    gan_discriminator,
    gan_generator,
    gaussian_kl,
    negative_elbo,
    velocity_error,
)
from jaxnets.losses.labels import takes_labels
from jaxnets.losses.margins import crammer_singer_hinge, exponential, hinge, multiclass_hinge, perceptron, squared_hinge
from jaxnets.losses.regression import (
    absolute_error,
    absolute_percentage_error,
    cosine,
    half_squared_error,
    huber,
    log_cosh,
    smooth_l1,
    squared_error,
    squared_log_error,
)
from jaxnets.losses.wrappers import auxiliary_loss, ignoring, sequence, weighted

__all__ = [
    "absolute_error",
    "absolute_percentage_error",
    "auxiliary_loss",
    "binary_cross_entropy",
    "cosine",
    "crammer_singer_hinge",
    "cross_entropy",
    "ctc",
    "energy_gap",
    "exponential",
    "fcos",
    "focal",
    "gan_discriminator",
    "gan_generator",
    "gaussian_kl",
    "giou",
    "half_squared_error",
    "hinge",
    "huber",
    "ignoring",
    "kl_divergence",
    "log_cosh",
    "maximum_a_posteriori",
    "multiclass_hinge",
    "negative_elbo",
    "negative_log_likelihood",
    "perceptron",
    "sequence",
    "smooth_l1",
    "softmax_focal",
    "squared_error",
    "squared_hinge",
    "squared_log_error",
    "takes_labels",
    "velocity_error",
    "weighted",
]
