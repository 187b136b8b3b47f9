"""Dropout of single values, of values shared along axes, and of whole channels."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_train_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_fraction, concrete
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.core.paths import paths
from jaxnets.layers.affine import values_of
from jaxnets.ops.dropout_mask import survivors


@labeled
def dropout(rate: float | jax.Array, *, broadcast_axes: Sequence[int] = ()) -> Net:
    """Set each value to zero with probability `rate` in training, and scale the rest up: E[y] = x.

    y = x · m / (1 - rate) with m = 1 with probability 1 - rate, else 0; in evaluation y = x. The draws have 24
    bits: `rate` is rounded to a multiple of 2⁻²⁴, at most 1 - 2⁻²⁴, here as in the scale, so that E[y] = x is
    exact.

    Args:
        rate: probability of dropping a value, in [0, 1). May be traced. A known rate of 0 draws nothing and
            needs no key.
        broadcast_axes: axes along which all values are kept or dropped together.

    Returns:
        A network from floating values of any shape to the same shape and dtype, without parameters, that needs
        a key in training. `Padded` sequences pass through.

    Raises:
        NetError: for a rate outside [0, 1), integer input, an axis that the input lacks, or training without
            a key.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: A Simple Way to Prevent Neural
    Networks from Overfitting" (2014), section 10, in its scaled ("inverted") form.

    >>> import jax, jax.numpy as jnp
    >>> net, x = dropout(0.5), jnp.ones((1, 8))
    >>> print(net.apply({}, {}, x)[0])
    [[1. 1. 1. 1. 1. 1. 1. 1.]]
    >>> y, _ = net.apply({}, {}, x, key=jax.random.key(0), train=True)
    >>> sorted(set(y[0].tolist()))
    [0.0, 2.0]
    """

    def shared(shape: tuple[int, ...]) -> set[int]:
        rank = len(shape)
        if not all(isinstance(axis, int) and -rank <= axis < rank for axis in broadcast_axes):
            raise NetError(f"shares its mask along the axes {tuple(broadcast_axes)}, but the input is {shape}")
        return {axis % rank for axis in broadcast_axes}

    return _dropout(rate, shared)


@labeled
def spatial_dropout(rate: float | jax.Array) -> Net:
    """Set whole channels of an example to zero with probability `rate` in training, and scale the rest up.

    The same as `dropout(rate)` with one draw for all places of a channel: neighboring places of a feature map
    say nearly the same, so that dropping one of them takes away little.

    Args:
        rate: probability of dropping a channel, in [0, 1). May be traced.

    Returns:
        A network from `(batch, ..., channels)` with at least one axis of places, to the same shape and dtype,
        without parameters, that needs a key in training.

    Raises:
        NetError: for a rate outside [0, 1), integer input, input without an axis of places, or training without
            a key.

    Tompson, Goroshin, Jain, LeCun and Bregler, "Efficient Object Localization Using Convolutional Networks"
    (2015), section 3.2, there called SpatialDropout.

    >>> import jax, jax.numpy as jnp
    >>> net, x = spatial_dropout(0.5), jnp.ones((4, 3, 3, 2))
    >>> y, _ = net.apply({}, {}, x, key=jax.random.key(0), train=True)
    >>> bool((y == y[:, :1, :1]).all())
    True
    """

    def shared(shape: tuple[int, ...]) -> set[int]:
        if len(shape) < 3:
            raise NetError(f"expects (batch, ..., channels) with an axis of places, got {shape}; take jn.dropout")
        return set(range(1, len(shape) - 1))

    return _dropout(rate, shared)


def _dropout(rate: Any, shared: Callable[[tuple[int, ...]], set[int]]) -> Net:
    check_fraction("rate", rate)
    off = concrete(rate) == 0.0

    def init(key: Key, x: Any) -> tuple[Params, State]:
        shared(values_of(x).shape)
        return {}, {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        if params:
            raise NetError(f"has no parameters, got {', '.join(paths(params))}", names_differ=True)
        values = jnp.asarray(values_of(x))
        axes = shared(values.shape)
        if off or not train:
            return x, state
        check_train_key(key)
        y = _drop(key, values, rate, axes)  # type: ignore[arg-type]  # the key is there
        return Padded(y, x.lengths) if isinstance(x, Padded) else y, state

    return Net(init, apply)


def _drop(key: Key, x: jax.Array, rate: Any, axes: set[int]) -> jax.Array:
    drawn = tuple(1 if place in axes else length for place, length in enumerate(x.shape))
    keep, probability = survivors(key, rate, drawn)
    dtype = param_dtype(x)
    scaled = (x.astype(dtype) * (1 / probability.astype(dtype))).astype(x.dtype)
    return jnp.where(jnp.broadcast_to(keep, x.shape), scaled, jnp.zeros((), x.dtype))
