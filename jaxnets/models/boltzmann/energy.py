"""The energy of a restricted Boltzmann machine, and its Markov chain: pure functions of an `rbm`'s parameters."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last, check_floating
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.errors import NetError
from jaxnets.core.net import Key, Params

Visible = Literal["bernoulli", "gaussian"]


def free_energy(params: Params, v: jax.Array, *, visible: Visible = "bernoulli") -> jax.Array:
    """Return F(v) = −log Σ_h e^−E(v, h), so that p(v) = e^−F(v) / Z: the lower, the likelier.

    F = −a v − Σ_j log(1 + e^(v W + b)_j) for binary v; ½ ‖v − a‖² stands for −a v where v is real.

    Args:
        params: of an `rbm`.
        v: `(batch, features)`.
        visible: what the visible units are, as for `rbm`.

    Returns:
        `(batch,)`.

    Hinton, "A Practical Guide to Training Restricted Boltzmann Machines" (2010), section 16.1.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3), "visible_bias": jnp.array([1.0, -1.0])}
    >>> print(free_energy(params, jnp.array([[1.0, 0.0]])).round(2))
    [-3.08]
    """
    check_visible(visible)
    bias = along_last(params["visible_bias"], v)
    own = -(v * bias).sum(-1) if visible == "bernoulli" else jnp.square(v - bias).sum(-1) / 2
    return own - jax.nn.softplus(hidden_field(params, v)).sum(-1)


def gibbs_step(key: Key, params: Params, v: jax.Array, *, visible: Visible = "bernoulli") -> jax.Array:
    """Draw h from p(h|v), then v from p(v|h): one step of a Markov chain whose stationary distribution is p(v).

    Probabilities and draws are in float32 for narrower input.

    Args:
        key: of the draws.
        params: of an `rbm`.
        v: `(batch, features)`, a chain a row.
        visible: what the visible units are, as for `rbm`.

    Returns:
        The next v, of the same shape and dtype.

    >>> import jax, jax.numpy as jnp
    >>> params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3), "visible_bias": jnp.array([99.0, -99.0])}
    >>> print(gibbs_step(jax.random.key(0), params, jnp.zeros((1, 2))))
    [[1. 0.]]
    """
    check_visible(visible)
    first, second = jax.random.split(key)
    wide = param_dtype(v)  # JAX draws bfloat16 in steps of 1/128, and σ rounds to them
    params = to_dtype(params, wide)
    h = jax.random.bernoulli(first, jax.nn.sigmoid(hidden_field(params, v.astype(wide)))).astype(wide)
    mean = visible_mean(params, h, visible)
    if visible == "gaussian":
        return (mean + jax.random.normal(second, v.shape, wide)).astype(v.dtype)
    return jax.random.bernoulli(second, mean).astype(v.dtype)


def reconstruct(params: Params, v: jax.Array, *, visible: Visible = "bernoulli") -> jax.Array:
    """Return the mean of p(v|h) with h at its probabilities given v: what the machine makes of an example.

    Args:
        params: of an `rbm`.
        v: `(batch, features)`.
        visible: what the visible units are, as for `rbm`.

    Returns:
        Of the shape of `v`: probabilities for binary units.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3), "visible_bias": jnp.zeros(2)}
    >>> print(reconstruct(params, jnp.ones((1, 2))))
    [[0.5 0.5]]
    """
    check_visible(visible)
    return visible_mean(params, jax.nn.sigmoid(hidden_field(params, v)), visible)


def hidden_field(params: Params, v: jax.Array) -> jax.Array:
    """Return the logits of the hidden units given the visible ones, v W + b."""
    field = jnp.matmul(v, params["kernel"])
    return field + along_last(params["bias"], field)


def visible_mean(params: Params, h: jax.Array, visible: Visible) -> jax.Array:
    """Return the mean of the visible units given the hidden ones."""
    field = jnp.matmul(h, params["kernel"].T)
    field = field + along_last(params["visible_bias"], field)
    return jax.nn.sigmoid(field) if visible == "bernoulli" else field


def check_visible(visible: Any) -> None:
    """Check that visible units are of a kind there is.

    Raises:
        NetError: if not.
    """
    if visible not in get_args(Visible):
        raise NetError(f"expects visible 'bernoulli' or 'gaussian', got {visible!r}")


def check_rows(x: Any) -> None:
    """Check that an input is floating `(batch, features)`.

    Raises:
        NetError: if it is not.
    """
    check_floating(x)
    if len(x.shape) != 2:
        raise NetError(f"expects (batch, features), got {x.shape}; flatten images first, x.reshape(len(x), -1)")
