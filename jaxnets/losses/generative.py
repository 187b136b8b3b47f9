"""Losses of generative models, one value per example, in nats."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.core.checks import refuse
from jaxnets.core.errors import NetError, check_positive
from jaxnets.losses.checks import at_least_zero, binary_entropies, floating, named, option, same_shape


@named
def negative_elbo(
    outputs: Any,
    targets: Any,
    *,
    beta: Any = 1.0,
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
    variance: Any = 1.0,
) -> jax.Array:
    """Return the negative evidence lower bound of a variational autoencoder, −log p(t|z) + β KL(q(z|x) ‖ N(0, 1)).

    With β = 1 its mean over z is an upper bound of −log p(t). The likelihood of a target t given the reconstruction o
    is a product over all values: Bernoulli, −log p = −t log σ(o) − (1 − t) log σ(−o) with logits o; or Gaussian,
    −log p = (t − o)² / 2σ² + ½ log 2πσ².

    Args:
        outputs: a dict of `reconstruction` `(batch, ...)` and the `mean` and `log_variance` of `gaussian_kl`, as
            returned by `jn.models.vae`.
        targets: of the shape of the reconstruction, in [0, 1] for the Bernoulli likelihood.
        beta: β ≥ 0, the weight of the KL divergence of the code; may be traced.
        likelihood: "bernoulli" or "gaussian".
        variance: σ² > 0 of the Gaussian likelihood; may be traced.

    Returns:
        `(batch,)`, float32 or wider: *sums* over values and over the code.

    Raises:
        NetError: for other outputs, targets of another shape, or options out of range.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), equations 3 and 10; Higgins et al., "beta-VAE"
    (2017), for β.

    >>> import jax.numpy as jnp
    >>> code = {"mean": jnp.array([[1.0, 0.0]]), "log_variance": jnp.zeros((1, 2))}
    >>> print(negative_elbo({"reconstruction": jnp.zeros((1, 3)), **code}, jnp.ones((1, 3))).round(2))
    [2.58]
    """
    check_positive("beta", beta, zero=True)
    check_positive("variance", variance)
    kl = gaussian_kl(outputs, targets)
    if "reconstruction" not in outputs:
        raise NetError(f"expects outputs with a reconstruction, got {', '.join(outputs)}")
    o, t = same_shape(outputs["reconstruction"], targets)
    if likelihood == "bernoulli":
        hint = '; for other values use likelihood="gaussian"'
        refuse(t, lambda t: (t < 0) | (t > 1), f"expects targets from 0 to 1, got {{}}{hint}")
        values = binary_entropies(o, t)
    elif likelihood == "gaussian":
        sigma2 = option(variance, o)
        values = (jnp.square(o - t) / sigma2 + jnp.log(2 * math.pi * sigma2)) / 2
    else:
        raise NetError(f"expects likelihood 'bernoulli' or 'gaussian', got {likelihood!r}")
    return _total(values) + option(beta, kl) * kl


@named
def gaussian_kl(outputs: Any, targets: Any = None) -> jax.Array:
    """Return KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² − 1 − log σ²), the information in a code about its input.

    Args:
        outputs: a dict of `mean` μ and `log_variance` log σ², floating, both `(batch, ...)`.
        targets: ignored; accepted so that `jn.metrics.mean(jn.losses.gaussian_kl)` can report it.

    Returns:
        `(batch,)`, float32 or wider, ≥ 0: the sum over the code.

    Raises:
        NetError: for other outputs, or if μ and log σ² differ in shape.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix B.

    >>> import jax.numpy as jnp
    >>> print(gaussian_kl({"mean": jnp.array([[1.0, 2.0]]), "log_variance": jnp.zeros((1, 2))}))
    [2.5]
    """
    mean, log_variance = same_shape(_entry(outputs, "mean"), _entry(outputs, "log_variance"))
    # e^v − 1 − v ≥ 0 with v = log σ²; rounding could make it negative.
    return _total(jnp.square(mean) + at_least_zero(jnp.expm1(log_variance) - log_variance)) / 2


@named
def energy_gap(outputs: Any, targets: Any = None) -> jax.Array:
    """Return the energy of the data minus that of the model's own samples, whose gradient is the learning rule.

    The networks `jn.models.contrastive_divergence` and `jn.models.mean_field_learning` compute it in training, where
    they have the parameters and a key; this loss selects it from their outputs. It does not measure success: it is 0
    for a perfect model, may be negative, and says nothing about the likelihood of data. Report the reconstruction
    error too.

    Args:
        outputs: a dict of `energy_gap` `(batch,)`, floating.
        targets: ignored.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: for other outputs.

    Hinton, "Training Products of Experts by Minimizing Contrastive Divergence" (2002).

    >>> import jax.numpy as jnp
    >>> print(energy_gap({"energy_gap": jnp.array([0.5])}))
    [0.5]
    """
    return floating(_entry(outputs, "energy_gap"))


def _entry(outputs: Any, name: str) -> Any:
    """Return an output by name."""
    if not isinstance(outputs, Mapping) or name not in outputs:
        have = ", ".join(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
        raise NetError(f"expects a dict of outputs with {name!r}, got {have}")
    return outputs[name]


def _total(values: jax.Array) -> jax.Array:
    """Return the sum over all axes except the batch."""
    return values.sum(axis=tuple(range(1, values.ndim)))
