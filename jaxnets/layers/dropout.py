"""Layers that are random in training: dropout, and noise that corrupts an input."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_train_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_fraction, check_positive, concrete
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.core.paths import paths
from jaxnets.layers.inputs import values_of
from jaxnets.ops.dropout_mask import survivors

Shape = tuple[int, ...]


@labeled
def dropout(rate: float | jax.Array, *, broadcast_axes: Sequence[int] = ()) -> Net:
    """Set each value to zero with probability `rate` in training, and scale up the others, so that E[y] = x.

    In training y = x · m / (1 - rate), where m is 1 with probability 1 - rate, otherwise 0; in evaluation y = x. Draws
    have 24 bits: `rate` is rounded to a multiple of 2⁻²⁴, at most 1 - 2⁻²⁴, in both the mask and the scale, so
    E[y] = x is exact.

    Args:
        rate: probability of dropping a value, in [0, 1). May be traced. A known rate of 0 draws nothing and needs no
            key.
        broadcast_axes: axes along which all values are dropped together or not at all.

    Returns:
        A network from floating values of any shape to the same shape and dtype, without parameters, that needs a key in
        training. `Padded` sequences pass through.

    Raises:
        NetError: for a rate outside [0, 1), integer input, an axis that the input lacks, or training without a key.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting" (2014), section 10, in its scaled ("inverted") form.

    >>> import jax, jax.numpy as jnp
    >>> net, x = dropout(0.5), jnp.ones((1, 8))
    >>> print(net.apply({}, {}, x)[0])
    [[1. 1. 1. 1. 1. 1. 1. 1.]]
    >>> y, _ = jax.jit(net.apply, static_argnames="train")({}, {}, x, key=jax.random.key(0), train=True)
    >>> sorted(set(y[0].tolist()))
    [0.0, 2.0]
    """

    def shared(shape: Shape) -> set[int]:
        rank = len(shape)
        if not all(isinstance(axis, int) and -rank <= axis < rank for axis in broadcast_axes):
            raise NetError(f"expects input with the broadcast_axes {tuple(broadcast_axes)}, got {shape}")
        return {axis % rank for axis in broadcast_axes}

    return _dropout(rate, shared)


@labeled
def spatial_dropout(rate: float | jax.Array) -> Net:
    """Set whole channels of an example to zero with probability `rate` in training, and scale up the others.

    This is `dropout(rate)` with one draw for all positions of a channel: neighboring positions of a feature map are
    strongly correlated, so dropping single positions removes little information.

    Args:
        rate: probability of dropping a channel, in [0, 1). May be traced.

    Returns:
        A network from `(batch, ..., channels)` with at least one spatial axis, to the same shape and dtype, without
        parameters, that needs a key in training.

    Raises:
        NetError: for a rate outside [0, 1), integer input, input without a spatial axis, or training without a key.

    Tompson, Goroshin, Jain, LeCun and Bregler, "Efficient Object Localization Using Convolutional Networks" (2015),
    section 3.2, there called SpatialDropout.

    >>> import jax, jax.numpy as jnp
    >>> net, x = spatial_dropout(0.5), jnp.ones((4, 3, 3, 2))
    >>> y, _ = jax.jit(net.apply, static_argnames="train")({}, {}, x, key=jax.random.key(0), train=True)
    >>> bool((y == y[:, :1, :1]).all())
    True
    """

    def shared(shape: Shape) -> set[int]:
        if len(shape) < 3:
            raise NetError(f"expects (batch, ..., channels) with a spatial axis, got {shape}; use jn.dropout")
        return set(range(1, len(shape) - 1))

    return _dropout(rate, shared)


@labeled
def drop_path(rate: float | jax.Array) -> Net:
    """Set whole examples to zero with probability `rate` in training, and scale up the others: stochastic depth.

    This is `dropout(rate)` with one draw for all values of an example. At the end of a residual block's body, as in
    `residual(serial(..., drop_path(0.1)))`, it removes the block for the examples dropped, which pass by the shortcut.
    The paper's rate grows linearly with depth, from 0 to 0.5 at the last block. It scales by the probability of
    survival in evaluation; here the examples that survive are scaled up in training, as with dropout.

    Args:
        rate: probability of dropping an example, in [0, 1). May be traced.

    Returns:
        A network from floating values `(batch, ...)` to the same shape and dtype, without parameters, that needs a key
        in training. `Padded` sequences pass through, dropped as a whole.

    Raises:
        NetError: for a rate outside [0, 1), integer input, input without a batch axis, or training without a key.

    Huang, Sun, Liu, Sedra and Weinberger, "Deep Networks with Stochastic Depth" (2016), section 3; as
    `torchvision.ops.stochastic_depth` with mode "row".

    >>> import jax, jax.numpy as jnp
    >>> net, x = drop_path(0.5), jnp.ones((8, 3, 3, 2))
    >>> y, _ = jax.jit(net.apply, static_argnames="train")({}, {}, x, key=jax.random.key(0), train=True)
    >>> sorted(set(y.ravel().tolist())), bool((y == y[:, :1, :1, :1]).all())
    ([0.0, 2.0], True)
    """

    def shared(shape: Shape) -> set[int]:
        if not shape:
            raise NetError("expects (batch, ...), got a scalar; add a batch axis with x[None]")
        return set(range(1, len(shape)))

    return _dropout(rate, shared)


def _dropout(rate: Any, shared: Callable[[Shape], set[int]]) -> Net:
    """Make a dropout layer; `shared` returns the axes of a shape along which draws are shared."""
    check_fraction("rate", rate)

    def drop(key: Key, x: jax.Array) -> jax.Array:
        axes = shared(x.shape)
        # Axes along which draws are shared have length 1, and are broadcast.
        drawn = tuple(1 if axis in axes else length for axis, length in enumerate(x.shape))
        keep, probability = survivors(key, rate, drawn)
        dtype = param_dtype(x)
        scaled = (x.astype(dtype) * (1 / probability.astype(dtype))).astype(x.dtype)
        return jnp.where(jnp.broadcast_to(keep, x.shape), scaled, jnp.zeros((), x.dtype))

    return train_only(None if concrete(rate) == 0.0 else drop, shared)


@labeled
def masking_noise(rate: float | jax.Array) -> Net:
    """Set each value to zero with probability `rate` in training, and leave the others unchanged.

    Unlike `dropout`, it does not scale up the remaining values.

    Args:
        rate: probability of replacing a value, in [0, 1). May be traced.

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
        A network as in `masking_noise`.

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
        rate: probability of replacing a value, in [0, 1). May be traced.
        low: the lowest value, pepper. May be traced.
        high: the highest value, salt. May be traced.

    Returns:
        A network as in `masking_noise`.

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
    """Choose each value with probability `rate`: booleans of the shape of `x`."""
    return jax.random.bernoulli(key, jnp.asarray(rate, jnp.float32), x.shape)


def _noise(corrupt: Callable[[Key, jax.Array], jax.Array]) -> Net:
    """Make a noise layer that computes in float32 or wider."""
    return train_only(lambda key, x: corrupt(key, x.astype(param_dtype(x))).astype(x.dtype))


def train_only(
    change: Callable[[Key, jax.Array], jax.Array] | None, check: Callable[[Shape], Any] = lambda shape: None
) -> Net:
    """Make a layer without parameters that changes values at random in training only.

    Args:
        change: `(key, values) -> values` of the same shape and dtype; `None` for the identity, which needs no key.
        check: raises an error for shapes that the layer does not accept.
    """

    def init(key: Key, x: Any) -> tuple[Params, State]:
        check(values_of(x).shape)
        return {}, {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        if params:
            raise NetError(f"has no parameters, got {', '.join(paths(params))}", names_differ=True)
        values = jnp.asarray(values_of(x))
        check(values.shape)
        if change is None or not train:
            return x, state
        check_train_key(key)
        y = change(key, values)  # type: ignore[arg-type]  # the key has been checked
        return x.with_values(y) if isinstance(x, Padded) else y, state

    return Net(init, apply)
