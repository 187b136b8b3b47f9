"""Losses of generative models, one value per example, in nats."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.core.checks import refuse
from jaxnets.core.errors import NetError, check_positive
from jaxnets.losses.checks import at_least_zero, binary_entropies, floating, named, option, over_batch, same_shape


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


GanKind = Literal["non_saturating", "hinge", "least_squares", "wasserstein"]


@named
def gan_discriminator(outputs: Any, targets: Any = None, *, kind: GanKind = "non_saturating") -> jax.Array:
    """Return the discriminator's loss, of its outputs r for real and f for generated examples.

    | kind | loss | source |
    | --- | --- | --- |
    | non_saturating | −log σ(r) − log σ(−f) | Goodfellow et al. (2014), equation 1 |
    | hinge | max(0, 1 − r) + max(0, 1 + f) | Lim and Ye (2017); Miyato et al. (2018), equation 16 |
    | least_squares | ½ (r − 1)² + ½ f² | Mao et al. (2017), equation 9 |
    | wasserstein | f − r | Arjovsky et al. (2017), equation 2, which also bounds the discriminator's slope |

    Args:
        outputs: a dict of `real` r and `fake` f, as `jn.models.gan` returns it, floating, `(batch, ...)`.
        targets: ignored.
        kind: which loss.

    Returns:
        `(batch,)`, float32 or wider: means over the other axes.

    Raises:
        NetError: for other outputs, or another kind.

    >>> import jax.numpy as jnp
    >>> print(gan_discriminator({"real": jnp.array([2.0, 0.0]), "fake": jnp.array([-3.0, 0.0])}, kind="hinge"))
    [0. 2.]
    """
    real, fake = same_shape(_entry(outputs, "real"), _entry(outputs, "fake"))
    return over_batch(_gan_kind(kind)[0](real, fake))


@named
def gan_generator(outputs: Any, targets: Any = None, *, kind: GanKind = "non_saturating") -> jax.Array:
    """Return the generator's loss, of the discriminator's outputs f for generated examples.

    | kind | loss |
    | --- | --- |
    | non_saturating | −log σ(f) |
    | hinge | −f |
    | least_squares | ½ (f − 1)² |
    | wasserstein | −f |

    Args:
        outputs: a dict of `fake` f, floating, `(batch, ...)`.
        targets: ignored.
        kind: which loss; sources are those of `gan_discriminator`.

    Returns:
        `(batch,)`, float32 or wider: means over the other axes.

    Raises:
        NetError: for other outputs, or another kind.

    >>> import jax.numpy as jnp
    >>> print(gan_generator({"fake": jnp.array([0.0, 3.0])}, kind="least_squares"))
    [0.5 2. ]
    """
    return over_batch(_gan_kind(kind)[1](floating(_entry(outputs, "fake"))))


# The losses of discriminator and generator.
_GAN: dict[str, tuple[Callable[..., jax.Array], Callable[..., jax.Array]]] = {
    "non_saturating": (lambda r, f: jax.nn.softplus(-r) + jax.nn.softplus(f), lambda f: jax.nn.softplus(-f)),
    "hinge": (lambda r, f: jax.nn.relu(1 - r) + jax.nn.relu(1 + f), jnp.negative),
    "least_squares": (lambda r, f: (jnp.square(r - 1) + jnp.square(f)) / 2, lambda f: jnp.square(f - 1) / 2),
    "wasserstein": (lambda r, f: f - r, jnp.negative),
}


def _gan_kind(kind: str) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    if kind not in _GAN:
        raise NetError(f"expects kind to be one of {', '.join(_GAN)}, got {kind!r}")
    return _GAN[kind]


@named
def velocity_error(outputs: Any, targets: Any = None) -> jax.Array:
    """Return the squared error of a predicted velocity, the mean over all values of an example.

    Args:
        outputs: a dict of `velocity` and `target`, as `jn.models.flow_matching` returns it, floating, `(batch, ...)`.
        targets: ignored.

    Returns:
        `(batch,)`, float32 or wider, ≥ 0. Its least mean is not 0 but the variance of targets that pass one point.

    Raises:
        NetError: for other outputs.

    Lipman et al., "Flow Matching for Generative Modeling" (2023), equation 9.

    >>> import jax.numpy as jnp
    >>> print(velocity_error({"velocity": jnp.array([[1.0, 3.0]]), "target": jnp.array([[1.0, 1.0]])}))
    [2.]
    """
    velocity, target = same_shape(_entry(outputs, "velocity"), _entry(outputs, "target"))
    return over_batch(jnp.square(velocity - target))


def _entry(outputs: Any, name: str) -> Any:
    """Return an output by name."""
    if not isinstance(outputs, Mapping) or name not in outputs:
        have = ", ".join(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
        raise NetError(f"expects a dict of outputs with {name!r}, got {have}")
    return outputs[name]


def _total(values: jax.Array) -> jax.Array:
    """Return the sum over all axes except the batch."""
    return values.sum(axis=tuple(range(1, values.ndim)))
