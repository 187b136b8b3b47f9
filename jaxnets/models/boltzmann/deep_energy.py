"""Energy, mean field and Markov chain of a deep Boltzmann machine, as pure functions of the parameters of a `dbm`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.net import Key, Params

# The visible units, then each hidden layer: (batch, units)
Layers = Sequence[jax.Array]


def mean_field(params: Params, v: jax.Array, *, steps: int = 10) -> list[jax.Array]:
    """Return a factorial distribution over the hidden layers that approximates p(h|v): Πᵢ Bernoulli(μᵢ).

    It starts bottom-up, with the input of every layer but the top doubled in place of the layer above, and sweeps
    upward `steps` times: μ^l ← σ(μ^(l−1) W^(l−1) + W^l μ^(l+1) + b^l). No sweep lowers the `variational_bound`.

    Args:
        params: the parameters of a `dbm`.
        v: `(batch, features)`.
        steps: the number of sweeps.

    Returns:
        The means μ `(batch, width)` of each hidden layer.

    Salakhutdinov and Hinton, "Deep Boltzmann Machines" (2009), section 2.2, and 3.1 for the start.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> params, _ = jn.models.dbm((3, 2)).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> [mean.shape for mean in jax.jit(mean_field)(params, jnp.ones((5, 4)))]
    [(5, 3), (5, 2)]
    """
    top = len(params)
    layers = [v]
    for place, factor in enumerate([2] * (top - 1) + [1], start=1):
        layers.append(jax.nn.sigmoid(factor * _from_below(params, layers, place) + _bias(params, place, v)))

    def sweep(means: list[jax.Array], _: None) -> tuple[list[jax.Array], None]:
        layers = [v, *means]
        for place in range(1, top + 1):
            layers[place] = jax.nn.sigmoid(field(params, layers, place))
        return layers[1:], None

    return jax.lax.scan(sweep, layers[1:], length=steps)[0]


def variational_bound(params: Params, v: jax.Array, means: Layers) -> jax.Array:
    """Return a lower bound on log p(v) + log Z: −E(v, μ) plus the entropy of the factorial distribution μ.

    The bound is off by KL(μ ‖ p(h|v)). At a fixed point of `mean_field` its derivative by μ is 0: hold the means
    constant when differentiating by the parameters.

    Args:
        params: the parameters of a `dbm`.
        v: `(batch, features)`.
        means: the means from `mean_field`, or any others in [0, 1].

    Returns:
        `(batch,)`, in nats.

    Salakhutdinov and Hinton, "Deep Boltzmann Machines" (2009), section 2.2.

    >>> import jax, jax.numpy as jnp
    >>> params = {"0": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3), "visible_bias": jnp.zeros(4)}}
    >>> print(variational_bound(params, jnp.ones((1, 4)), [jnp.full((1, 3), 0.5)]).round(4))  # 3 log 2
    [2.0794]
    """
    entropy = sum((jax.scipy.special.entr(m) + jax.scipy.special.entr(1 - m)).sum(-1) for m in means)
    return entropy - energy(params, [v, *means])


def dbm_gibbs_step(key: Key, params: Params, layers: Sequence[jax.Array]) -> list[jax.Array]:
    """Draw the odd layers given the even ones, then the even given the odd: one step of a Markov chain.

    Its stationary distribution is p(v, h¹, …, h^L). Probabilities and draws are in float32 for narrower layers.

    Args:
        key: the random key.
        params: the parameters of a `dbm`.
        layers: the visible units and each hidden layer, `(batch, units)`, one chain per row.

    Returns:
        The next layers, in the same shapes and dtypes.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> params, _ = jn.models.dbm((3, 2)).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> layers = jax.eval_shape(dbm_gibbs_step, jax.random.key(1), params, [jnp.zeros((5, n)) for n in (4, 3, 2)])
    >>> [units.shape for units in layers]
    [(5, 4), (5, 3), (5, 2)]
    """
    keys, dtypes, wide = jax.random.split(key, len(layers)), [units.dtype for units in layers], param_dtype(layers[0])
    params, layers = to_dtype(params, wide), [units.astype(wide) for units in layers]
    # Layers of one parity are independent given the others.
    for place in (*range(1, len(layers), 2), *range(0, len(layers), 2)):
        p = jax.nn.sigmoid(field(params, layers, place))
        layers[place] = jax.random.bernoulli(keys[place], p).astype(wide)
    return [units.astype(dtype) for units, dtype in zip(layers, dtypes, strict=True)]


def energy(params: Params, layers: Layers) -> jax.Array:
    """Return the energy E of all layers, `(batch,)`; each connection counts once, with the layer above it."""
    total = jnp.zeros(len(layers[0]), layers[0].dtype)
    for place, units in enumerate(layers):
        total -= (units * (_from_below(params, layers, place) + _bias(params, place, units))).sum(-1)
    return total


def field(params: Params, layers: Layers, place: int) -> jax.Array:
    """Return the logits of one layer given its neighbors, `(batch, units)`."""
    total = _from_below(params, layers, place) + _bias(params, place, layers[0])
    return total + jnp.matmul(layers[place + 1], params[str(place)]["kernel"].T) if str(place) in params else total


def _from_below(params: Params, layers: Layers, place: int) -> jax.Array:
    if place:
        return jnp.matmul(layers[place - 1], params[str(place - 1)]["kernel"])
    return jnp.zeros_like(layers[0])


def _bias(params: Params, place: int, like: jax.Array) -> jax.Array:
    bias = params[str(place - 1)]["bias"] if place else params["0"]["visible_bias"]
    return along_last(bias, like)
