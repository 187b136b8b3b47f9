"""Noise that corrupts an input in training: values set to zero, Gaussian noise added, values driven to the ends."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_train_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_fraction, check_positive, concrete
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.core.paths import paths
from jaxnets.layers.affine import values_of


@labeled
def masking_noise(rate: float | jax.Array) -> Net:
    """Set each value to zero with probability `rate` in training, and leave the rest as it is.

    Unlike `dropout` it does not scale the rest up: what is left is a true part of the input.

    Args:
        rate: probability of losing a value, in [0, 1). May be traced.

    Returns:
        A network from floating values of any shape, or `Padded` sequences, to the same shape and dtype, without
        parameters, that needs a key in training.

    Raises:
        NetError: for a rate outside [0, 1), integer input, or training without a key.

    Vincent, Larochelle, Bengio and Manzagol, "Extracting and Composing Robust Features with Denoising
    Autoencoders" (2008).

    >>> import jax, jax.numpy as jnp
    >>> y, _ = masking_noise(0.5).apply({}, {}, jnp.ones((1, 8)), key=jax.random.key(0), train=True)
    >>> sorted(set(y[0].tolist()))
    [0.0, 1.0]
    """
    check_fraction("rate", rate)
    return _noise(lambda key, x: jnp.where(_chosen(key, rate, x), jnp.zeros((), x.dtype), x))


@labeled
def gaussian_noise(scale: float | jax.Array) -> Net:
    """Add Gaussian noise of a standard deviation to each value in training: y = x + scale · ε, ε ~ N(0, 1).

    Args:
        scale: the standard deviation, ≥ 0. May be traced.

    Returns:
        A network as that of `masking_noise`.

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
    """Set each value to the lowest or the highest there is in training, each with probability `rate` / 2.

    Args:
        rate: probability of losing a value, in [0, 1). May be traced.
        low: pepper. May be traced.
        high: salt. May be traced.

    Returns:
        A network as that of `masking_noise`.

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
        ends = jnp.where(
            jax.random.bernoulli(which, shape=x.shape), jnp.asarray(high, x.dtype), jnp.asarray(low, x.dtype)
        )
        return jnp.where(_chosen(where, rate, x), ends, x)

    return _noise(corrupt)


def _chosen(key: Key, rate: float | jax.Array, x: jax.Array) -> jax.Array:
    return jax.random.bernoulli(key, jnp.asarray(rate, jnp.float32), x.shape)


def _noise(corrupt: Callable[[Key, jax.Array], jax.Array]) -> Net:
    def init(key: Key, x: jax.Array) -> tuple[Params, State]:
        values_of(x)
        return {}, {}

    def apply(
        params: Params, state: State, x: jax.Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[jax.Array | Padded, State]:
        if params:
            raise NetError(f"has no parameters, got {', '.join(paths(params))}", names_differ=True)
        values = jnp.asarray(values_of(x))
        if not train:
            return x, state
        check_train_key(key)
        y = corrupt(key, values.astype(param_dtype(values))).astype(values.dtype)  # type: ignore[arg-type]  # it is there
        return Padded(y, x.lengths) if isinstance(x, Padded) else y, state

    return Net(init, apply)
