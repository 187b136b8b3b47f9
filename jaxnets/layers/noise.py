"""Noise that corrupts an input in training: values set to zero, Gaussian noise, and salt and pepper."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import check_fraction, check_positive, concrete
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net
from jaxnets.layers.dropout import train_only


@labeled
def masking_noise(rate: float | jax.Array) -> Net:
    """Set each value to zero with probability `rate` in training, and leave the others unchanged.

    Unlike `dropout` it does not scale up: what is left is a true part of the input.

    Args:
        rate: probability of losing a value, in [0, 1). May be traced.

    Returns:
        A network from floating values of any shape, or `Padded` sequences, to the same shape and dtype, without
        parameters, that needs a key in training.

    Raises:
        NetError: for a rate outside [0, 1), integer input, or training without a key.

    Vincent, Larochelle, Bengio and Manzagol, "Extracting and Composing Robust Features with Denoising Autoencoders"
    (2008).

    >>> import jax, jax.numpy as jnp
    >>> y, _ = masking_noise(0.5).apply({}, {}, jnp.ones((1, 8)), key=jax.random.key(0), train=True)
    >>> sorted(set(y[0].tolist()))
    [0.0, 1.0]
    """
    check_fraction("rate", rate)
    return _noise(lambda key, x: jnp.where(_chosen(key, rate, x), jnp.zeros((), x.dtype), x))


@labeled
def gaussian_noise(scale: float | jax.Array) -> Net:
    """Add Gaussian noise to each value in training: y = x + scale · ε with ε ~ N(0, 1).

    Args:
        scale: the standard deviation, ≥ 0. May be traced.

    Returns:
        A network as `masking_noise` returns.

    Raises:
        NetError: for a negative scale, integer input, or training without a key.

    Bishop, "Training with Noise is Equivalent to Tikhonov Regularization" (1995).

    >>> import jax, jax.numpy as jnp
    >>> y, _ = gaussian_noise(0.1).apply({}, {}, jnp.ones((1, 1000)), key=jax.random.key(0), train=True)
    >>> bool(jnp.allclose(y.std(), 0.1, atol=0.01))
    True
    """
    check_positive("scale", scale, zero=True)
    return _noise(lambda key, x: x + jnp.asarray(scale, x.dtype) * jax.random.normal(key, x.shape, x.dtype))


@labeled
def salt_and_pepper(rate: float | jax.Array, *, low: float | jax.Array = 0.0, high: float | jax.Array = 1.0) -> Net:
    """Set each value to the lowest or the highest value in training, each with probability `rate` / 2.

    Args:
        rate: probability of losing a value, in [0, 1). May be traced.
        low: the lowest value, pepper. May be traced.
        high: the highest value, salt. May be traced.

    Returns:
        A network as `masking_noise` returns.

    Raises:
        NetError: for a rate outside [0, 1), integer input, or training without a key.

    Vincent, Larochelle, Lajoie, Bengio and Manzagol, "Stacked Denoising Autoencoders" (2010).

    >>> import jax, jax.numpy as jnp
    >>> y, _ = salt_and_pepper(0.5).apply({}, {}, jnp.full((1, 20), 0.5), key=jax.random.key(0), train=True)
    >>> sorted(set(y[0].tolist()))
    [0.0, 0.5, 1.0]
    """
    check_fraction("rate", rate)
    concrete(low, "low")
    concrete(high, "high")

    def corrupt(key: Key, x: jax.Array) -> jax.Array:
        where, which = jax.random.split(key)
        salt = jax.random.bernoulli(which, shape=x.shape)
        ends = jnp.where(salt, jnp.asarray(high, x.dtype), jnp.asarray(low, x.dtype))
        return jnp.where(_chosen(where, rate, x), ends, x)

    return _noise(corrupt)


def _chosen(key: Key, rate: float | jax.Array, x: jax.Array) -> jax.Array:
    """Choose values at a rate: booleans of the shape of `x`."""
    return jax.random.bernoulli(key, jnp.asarray(rate, jnp.float32), x.shape)


def _noise(corrupt: Callable[[Key, jax.Array], jax.Array]) -> Net:
    """Make a noise layer that computes in float32 or wider."""
    return train_only(lambda key, x: corrupt(key, x.astype(param_dtype(x))).astype(x.dtype))
