"""Normalization of each example: over a layer, groups of channels or neighboring channels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import check_params
from jaxnets.core.contract import check_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_positive, concrete
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.layers.inputs import channels_of, check_divides, like_input, refuse_packed, values_of, zero_padding
from jaxnets.ops.norm import normalize, normalize_rms

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

    mean and var = Σ(x - mean)²/n are computed over `axis`. All arithmetic is in float32 or wider, and `cast` does not
    change the parameters. Training and evaluation are the same.

    Args:
        axis: the axes to normalize over, any except the batch.
        epsilon: ε > 0, which keeps the divisor from zero.
        use_scale: whether to multiply by `scale`.
        use_bias: whether to add `bias`.
        scale_init: initializer of `scale`.
        bias_init: initializer of `bias`.

    Returns:
        A network from `(batch, ...)` to the same shape and dtype, with parameters `scale` and `bias` of the shape of
        the axes, in order: `(features,)` for the last one. `Padded` sequences may be normalized over any axes after
        time; padding becomes zeros.

    Raises:
        NetError: for integer input, an axis that the input lacks, the batch axis (or the time axis of `Padded`
            sequences), or parameters made for another shape.

    Ba, Kiros and Hinton, "Layer Normalization" (2016), equation 4; values as in `torch.nn.LayerNorm`.

    >>> import jax, jax.numpy as jnp
    >>> net = layer_norm()
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> print(net.apply(params, state, jnp.array([[1.0, 2.0, 3.0]]))[0].round(3))
    [[-1.225  0.     1.225]]
    """
    check_positive("epsilon", epsilon)

    def over(params: Params, values: jax.Array, mask: jax.Array | None, x: Any) -> jax.Array:
        axes = _feature_axes(axis, x)
        return normalize(values, **_affine_over(params, values, axes), epsilon=epsilon, axes=axes)[0]

    inits = affine_inits(use_scale, scale_init, use_bias, bias_init)
    return _norm(inits, lambda x: _shape_over(axis, x), over)


@labeled
def rms_norm(
    *,
    axis: int | Sequence[int] = -1,
    epsilon: float | jax.Array = 1e-6,
    use_scale: bool = True,
    scale_init: Initializer = jax.nn.initializers.ones,
) -> Net:
    """Divide each example by its root mean square over some of its axes: y = scale · x / √(mean(x²) + ε).

    This is `layer_norm` without the mean and the bias. All arithmetic is in float32 or wider, and `cast` does not
    change the parameters. No square overflows, however large x is. Training and evaluation are the same.

    Args:
        axis: the axes to take the mean over, any except the batch.
        epsilon: ε > 0, which keeps the divisor from zero. May be traced.
        use_scale: whether to multiply by `scale`.
        scale_init: initializer of `scale`.

    Returns:
        A network from `(batch, ...)` to the same shape and dtype, with the parameter `scale` of the shape of the axes,
        in order: `(features,)` for the last one. `Padded` sequences may be normalized over any axes after time; padding
        becomes zeros.

    Raises:
        NetError: as in `layer_norm`.

    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4; values as in `torch.nn.RMSNorm` with
    the same ε, which is 1.2e-7 there by default.

    >>> import jax, jax.numpy as jnp
    >>> net = rms_norm()
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> print(net.apply(params, state, jnp.array([[0.0, 0.0, 3.0, 0.0]]))[0].round(3))
    [[0. 0. 2. 0.]]
    """
    check_positive("epsilon", epsilon)

    def over(params: Params, values: jax.Array, mask: jax.Array | None, x: Any) -> jax.Array:
        axes = _feature_axes(axis, x)
        return normalize_rms(values, _affine_over(params, values, axes)["scale"], epsilon, axes)

    inits = affine_inits(use_scale, scale_init, False, jax.nn.initializers.zeros)
    return _norm(inits, lambda x: _shape_over(axis, x), over)


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
    """Normalize each example over groups of neighboring channels and all positions.

    y = scale · (x - mean) / √(var + ε) + bias, with mean and var = Σ(x - mean)²/n over one group of one example. All
    arithmetic is in float32 or wider, and `cast` does not change the parameters. One group per channel is instance
    normalization; one group of all channels is layer normalization over all axes, with a scale per channel. Training
    and evaluation are the same.

    Args:
        groups: the number of groups, a divisor of the number of channels.
        epsilon: ε > 0, which keeps the divisor from zero.
        use_scale: whether to multiply by `scale`.
        use_bias: whether to add `bias`.
        scale_init: initializer of `scale`.
        bias_init: initializer of `bias`.

    Returns:
        A network from `(batch, ..., channels)` to the same shape and dtype, with parameters `scale` and `bias`
        `(channels,)`. In `Padded` sequences `(batch, time, ..., channels)` only the real steps count; padding becomes
        zeros.

    Raises:
        NetError: for channels that `groups` does not divide, integer input, or parameters made for another
            number of channels.

    Wu and He, "Group Normalization" (2018), equations 1 to 7; values as in `torch.nn.GroupNorm`. Ulyanov, Vedaldi
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
        refuse_packed(x, "each group is normalized over all steps of a row")
        (channels,) = channels_of(x)
        check_divides("channels", channels, groups)
        return (channels,)

    def over(params: Params, values: jax.Array, mask: jax.Array | None, x: Any) -> jax.Array:
        # (batch, ..., groups, channels / groups)
        grouped = values.reshape(*values.shape[:-1], groups, values.shape[-1] // groups)
        # (1, …, groups, channels / groups)
        affine = reshape_affine(params, (1,) * (values.ndim - 1) + grouped.shape[-2:])
        # All axes except the batch and the groups.
        axes = tuple(axis for axis in range(1, grouped.ndim) if axis != grouped.ndim - 2)
        # One more axis, as channels now have two.
        mask = None if mask is None else mask[..., None]
        return normalize(grouped, **affine, epsilon=epsilon, axes=axes, mask=mask)[0].reshape(values.shape)

    return _norm(affine_inits(use_scale, scale_init, use_bias, bias_init), shape_of, over)


def _norm(
    inits: dict[str, Initializer],
    shape_of: Callable[[Any], tuple[int, ...]],
    normalized: Callable[[Params, jax.Array, jax.Array | None, Any], jax.Array],
) -> Net:
    """Make a stateless normalization of `normalized(params, values, mask, x)`, with parameters of `shape_of(x)`."""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return init_affine(inits, key, shape_of(x), values_of(x)), {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        check_params(params, dict.fromkeys(inits, shape_of(x)), values_of(x))
        return like_input(normalized(params, *zero_padding(x), x), x), state

    return Net(init, apply, full_precision=True)


def _feature_axes(axis: int | Sequence[int], x: Any) -> tuple[int, ...]:
    """Return the axes to normalize over as numbers from 1, in order.

    Raises:
        NetError: if the input lacks one, or one is the batch axis or the time axis of `Padded` sequences.
    """
    # The first axis that may be normalized over.
    rank, first = values_of(x).ndim, 2 if isinstance(x, Padded) else 1
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    chosen = {each + rank if each < 0 else each for each in given}
    if not chosen or len(chosen) < len(given) or not chosen <= set(range(first, rank)):
        excluded = "batch and time" if first == 2 else "the batch"
        raise NetError(
            f"expects different axes from {first} to {rank - 1} of {values_of(x).shape}, without {excluded}, "
            f"got axis {axis}"
        )
    return tuple(sorted(chosen))


def _shape_over(axis: int | Sequence[int], x: Any) -> tuple[int, ...]:
    """Return the shape of the axes to normalize over."""
    return tuple(values_of(x).shape[each] for each in _feature_axes(axis, x))


def _affine_over(params: Params, values: jax.Array, axes: Sequence[int]) -> dict[str, jax.Array | None]:
    """Return the scale and the bias, `None` for a missing one, to broadcast over the axes not normalized over."""
    # (1, …, length, …)
    return reshape_affine(params, [length if axis in axes else 1 for axis, length in enumerate(values.shape)])


def affine_inits(
    use_scale: bool, scale_init: Initializer, use_bias: bool, bias_init: Initializer
) -> dict[str, Initializer]:
    """Return the initializers of the parameters in use, by name."""
    return ({"scale": scale_init} if use_scale else {}) | ({"bias": bias_init} if use_bias else {})


def init_affine(inits: Mapping[str, Initializer], key: jax.Array, shape: tuple[int, ...], x: Any) -> Params:
    """Initialize the scale and the bias for an input, in float32 or float64."""
    check_key(key)
    keys = jax.random.split(key, 2)
    # The keys go to the parameters in use, in order.
    return {name: init(each, shape, param_dtype(x)) for (name, init), each in zip(inits.items(), keys, strict=False)}


def reshape_affine(params: Params, shape: Sequence[int]) -> dict[str, jax.Array | None]:
    """Return the scale and the bias in `shape`, `None` for a missing one."""
    return {name: params[name].reshape(shape) if name in params else None for name in ("scale", "bias")}


@labeled
def local_response_norm(
    size: int = 5,
    *,
    alpha: float | jax.Array = 1e-4,
    beta: float | jax.Array = 0.75,
    bias: float | jax.Array = 1.0,
) -> Net:
    """Divide by the activity of neighboring channels: y_c = x_c / (bias + alpha/size · Σ x_i²)^beta.

    The sum is over the `size` channels from c - ⌊size/2⌋ to c + ⌈size/2⌉ - 1, as far as they exist. All arithmetic is
    in float32 or wider.

    The AlexNet paper does not divide alpha by the size: its k = 2, n = 5, α = 1e-4, β = 0.75 are
    `local_response_norm(5, alpha=5e-4, beta=0.75, bias=2.0)` here.

    Args:
        size: n, the number of neighboring channels, including the channel itself.
        alpha: α ≥ 0, the weight of their mean square. May be traced.
        beta: the exponent β. May be traced.
        bias: k > 0. May be traced.

    Returns:
        A network without parameters from `(batch, ..., channels)` to the same shape and dtype.

    Raises:
        NetError: for `size` < 1, `alpha` < 0, `bias` ≤ 0, or integer input.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012),
    section 3.3; values as in `torch.nn.LocalResponseNorm`.

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
        channels_of(x)
        wide = jnp.asarray(x).astype(param_dtype(x))
        window, pad = (1,) * (wide.ndim - 1) + (size,), (size // 2, (size - 1) // 2)
        # A NumPy zero: JAX differentiates `reduce_window` only if it can see that the sum starts at zero.
        zero = np.zeros((), wide.dtype)
        # The sum of squares over neighboring channels, of the shape of x.
        total = jax.lax.reduce_window(
            jnp.square(wide), zero, jax.lax.add, window, (1,) * wide.ndim, [(0, 0)] * (wide.ndim - 1) + [pad]
        )
        k, a, b = (jnp.asarray(value, wide.dtype) for value in (bias, alpha, beta))
        return (wide * (k + a / size * total) ** -b).astype(x.dtype)

    return layer(None, apply)
