"""Normalization of each example by itself: over a layer, over groups of channels, over neighboring channels."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import check_floating, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_positive, concrete
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.layers.affine import affine, channels_of, init_affine, laid_out, narrowed, values_of, zeroed
from jaxnets.ops.norm import normalize

Initializer = jax.nn.initializers.Initializer


@labeled
def layer_norm(
    *,
    axis: int | Sequence[int] = -1,
    epsilon: float | jax.Array = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: Initializer = jax.nn.initializers.ones,
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Normalize each example over some of its axes: y = scale · (x - mean) / √(var + ε) + bias.

    mean and var = Σ(x - mean)²/n are taken over `axis`, in float32 or better; so is the arithmetic, and `cast`
    leaves the parameters alone. Training and evaluation are the same.

    Args:
        axis: what to normalize over: any axes but that of the batch.
        epsilon: what keeps the divisor from zero, > 0.
        use_scale: whether there is a `scale`.
        use_bias: whether there is a `bias`.
        scale_init: how `scale` is made.
        bias_init: how `bias` is made.

    Returns:
        A network from `(batch, ...)` to the same shape and dtype, with parameters `scale` and `bias` of the
        lengths of the axes, in their order: `(features,)` for the last one. `Padded` sequences may be
        normalized over any axes behind time; padding comes out as zeros.

    Raises:
        NetError: for integer input, an axis that the input lacks or that is the batch's (or the time of `Padded`
            sequences), or parameters made for other lengths.

    Ba, Kiros and Hinton, "Layer Normalization" (2016), equation 4; values as `torch.nn.LayerNorm`.

    >>> import jax, jax.numpy as jnp
    >>> net = layer_norm()
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> print(net.apply(params, state, jnp.array([[1.0, 2.0, 3.0]]))[0].round(3))
    [[-1.225  0.     1.225]]
    """
    check_positive("epsilon", epsilon)

    def axes(x: Any) -> tuple[int, ...]:
        rank, first = values_of(x).ndim, 2 if isinstance(x, Padded) else 1
        given = (axis,) if isinstance(axis, int) else tuple(axis)
        places = {place + rank if place < 0 else place for place in given}
        if not places or len(places) < len(given) or not places <= set(range(first, rank)):
            kept = "batch and time are" if first == 2 else "the batch is"
            raise NetError(
                f"normalizes over axis {axis}, but {values_of(x).shape} has the axes {first} to {rank - 1} to choose "
                f"from: {kept} left out, and each is named once"
            )
        return tuple(sorted(places))

    def shape_of(x: Any) -> tuple[int, ...]:
        return tuple(values_of(x).shape[place] for place in axes(x))

    def over(params: Params, values: jax.Array, mask: jax.Array | None, x: Any) -> jax.Array:
        places = axes(x)
        laid = laid_out(params, [length if place in places else 1 for place, length in enumerate(values.shape)])
        return normalize(values, **laid, epsilon=epsilon, axes=places)[0]

    return _norm(affine(use_scale, scale_init, use_bias, bias_init), shape_of, over)


@labeled
def group_norm(
    groups: int,
    *,
    epsilon: float | jax.Array = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: Initializer = jax.nn.initializers.ones,
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Normalize each example over groups of neighboring channels and all places.

    y = scale · (x - mean) / √(var + ε) + bias with mean and var = Σ(x - mean)²/n taken over one group of one
    example, in float32 or better; so is the arithmetic, and `cast` leaves the parameters alone. One group for
    each channel is instance normalization; one group for all is layer normalization over all axes, with a
    scale for each channel. Training and evaluation are the same.

    Args:
        groups: into how many groups the channels are cut; a divisor of their number.
        epsilon: what keeps the divisor from zero, > 0.
        use_scale: whether there is a `scale`.
        use_bias: whether there is a `bias`.
        scale_init: how `scale` is made.
        bias_init: how `bias` is made.

    Returns:
        A network from `(batch, ..., channels)` to the same shape and dtype, with parameters `scale` and `bias`
        `(channels,)`. Of `Padded` sequences `(batch, time, ..., channels)` only the real steps count; padding
        comes out as zeros.

    Raises:
        NetError: for channels that `groups` does not divide, integer input, or parameters made for another
            number of channels.

    Wu and He, "Group Normalization" (2018), equations 1 to 7; values as `torch.nn.GroupNorm`. Ulyanov, Vedaldi
    and Lempitsky, "Instance Normalization" (2016).

    >>> import jax, jax.numpy as jnp
    >>> net = group_norm(2)
    >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> print(net.apply(params, state, x)[0].round(3))
    [[-1.  1. -1.  1.]]
    """
    check_count("groups", groups)
    check_positive("epsilon", epsilon)

    def shape_of(x: Any) -> tuple[int, ...]:
        (channels,) = channels_of(x)
        if channels % groups:
            raise NetError(f"cuts channels into {groups} equal groups, got {channels} channels; take a divisor")
        return (channels,)

    def over(params: Params, values: jax.Array, mask: jax.Array | None, x: Any) -> jax.Array:
        cut = values.reshape(*values.shape[:-1], groups, values.shape[-1] // groups)  # (batch, ..., groups, channels)
        laid = laid_out(params, (1,) * (values.ndim - 1) + cut.shape[-2:])
        places = tuple(place for place in range(1, cut.ndim) if place != cut.ndim - 2)
        mask = None if mask is None else mask[..., None]
        return normalize(cut, **laid, epsilon=epsilon, axes=places, mask=mask)[0].reshape(values.shape)

    return _norm(affine(use_scale, scale_init, use_bias, bias_init), shape_of, over)


def _norm(
    inits: dict[str, Initializer],
    shape_of: Callable[[Any], tuple[int, ...]],
    normalized: Callable[[Params, jax.Array, jax.Array | None, Any], jax.Array],
) -> Net:
    """Make a stateless normalization from the shape of its parameters and a function of values and their mask."""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return init_affine(inits, key, shape_of(x), values_of(x)), {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        check_params(params, dict.fromkeys(inits, shape_of(x)), values_of(x))
        return narrowed(normalized(params, *zeroed(x), x), x), state

    return Net(init, apply, full_precision=True)


@labeled
def local_response_norm(
    size: int = 5,
    *,
    alpha: float | jax.Array = 1e-4,
    beta: float | jax.Array = 0.75,
    bias: float | jax.Array = 1.0,
) -> Net:
    """Divide by the activity of neighboring channels: y_c = x_c / (bias + alpha/size · Σ x_i²)^beta.

    The sum runs over the `size` channels from c - ⌊size/2⌋ to c + ⌈size/2⌉ - 1, as far as they exist. The
    arithmetic is in float32 or better.

    The AlexNet paper does not divide alpha by the size: its k = 2, n = 5, α = 1e-4, β = 0.75 are
    `local_response_norm(5, alpha=5e-4, beta=0.75, bias=2.0)` here.

    Args:
        size: number of neighboring channels n, the channel itself among them.
        alpha: weight of their mean square, ≥ 0. May be traced, as may the next two.
        beta: exponent.
        bias: k, > 0.

    Returns:
        A network without parameters from `(batch, ..., channels)` to the same shape and dtype.

    Raises:
        NetError: for `size` < 1, `alpha` < 0, `bias` ≤ 0, or integer input.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012),
    section 3.3; values as `torch.nn.LocalResponseNorm`.

    >>> import jax.numpy as jnp
    >>> net = local_response_norm(3, alpha=3.0, beta=1.0, bias=2.0)
    >>> print(net.apply({}, {}, jnp.ones((1, 3)))[0])
    [[0.25 0.2  0.25]]
    """
    check_count("size", size)
    check_positive("alpha", alpha, zero=True)
    check_positive("bias", bias)
    concrete(beta)

    def apply(_: Params, x: Any) -> jax.Array:
        check_floating(x)
        if len(x.shape) < 2:
            raise NetError(f"expects (batch, ..., channels), got {x.shape}; add a batch axis with x[None]")
        wide = zeroed(x)[0].astype(param_dtype(x))
        window, pad = (1,) * (wide.ndim - 1) + (size,), (size // 2, (size - 1) // 2)
        zero = np.zeros((), wide.dtype)  # no JAX array: JAX differentiates only a sum it sees to start at zero
        total = jax.lax.reduce_window(
            jnp.square(wide), zero, jax.lax.add, window, (1,) * wide.ndim, [(0, 0)] * (wide.ndim - 1) + [pad]
        )
        k, a, b = (jnp.asarray(value, wide.dtype) for value in (bias, alpha, beta))
        return narrowed(wide * (k + a / size * total) ** -b, x)

    return layer(None, apply)
