"""The restricted Boltzmann machine, with its hidden units as features."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.errors import check_count
from jaxnets.layers.checks import check_params, param_dtype
from jaxnets.leaf import labelled, layer
from jaxnets.models.energy import Visible, check_rows, check_visible, hidden_field
from jaxnets.net import Key, Net, Params

Initializer = jax.nn.initializers.Initializer


@labelled
def rbm(
    hidden: int, *, visible: Visible = "bernoulli", kernel_init: Initializer = jax.nn.initializers.normal(0.01)
) -> Net:
    """Return a restricted Boltzmann machine, which gives the probabilities of its hidden units: σ(v W + b).

    It is a distribution over visible units v and binary hidden units h, p(v, h) ∝ e^−E(v, h), with energy
    E = −v W h − a v − b h for binary v, and E = ½ ‖v − a‖² − v W h − b h for real v (of variance 1 given h). As a
    layer it computes what `dense(hidden)` and a sigmoid compute from the same `kernel` and `bias`.
    `contrastive_divergence` learns the parameters.

    Args:
        hidden: how many hidden units.
        visible: "bernoulli" for v of 0 and 1, or probabilities between; "gaussian" for standardised real v.
        kernel_init: how `kernel` is drawn.

    Returns:
        A network from `(batch, features)` to `(batch, hidden)`, with parameters `kernel` W `(features, hidden)`,
        `bias` b `(hidden,)` and `visible_bias` a `(features,)`.

    Raises:
        NetError: for `hidden` < 1, another kind of visible units, or input that is not floating `(batch, features)`.

    Hinton, "Training Products of Experts by Minimizing Contrastive Divergence" (2002); Hinton, "A Practical Guide to
    Training Restricted Boltzmann Machines" (2010), sections 8 and 13.2, for first weights and Gaussian units.

    >>> import jax, jax.numpy as jnp
    >>> net = rbm(3)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> net.apply(params, state, jnp.ones((2, 4)))[0].shape, params["visible_bias"].shape
    ((2, 3), (4,))
    """
    check_count("hidden", hidden)
    check_visible(visible)

    def init(key: Key, x: Any) -> Params:
        check_rows(x)
        (_, features), dtype = x.shape, param_dtype(x)
        kernel = kernel_init(key, (features, hidden), dtype)
        return {"kernel": kernel, "bias": jnp.zeros(hidden, dtype), "visible_bias": jnp.zeros(features, dtype)}

    def apply(params: Params, x: Any) -> Any:
        check_rows(x)
        features = x.shape[1]
        check_params(params, {"kernel": (features, hidden), "bias": (hidden,), "visible_bias": (features,)}, x)
        return jax.nn.sigmoid(hidden_field(params, x))

    return layer(init, apply)
