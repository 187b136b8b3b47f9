"""Normalization: over the batch, and of each example over a layer, groups of channels or neighboring channels."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import along_last, check_params, check_state
from jaxnets.core.contract import check_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_fraction, check_positive, concrete, is_traced
from jaxnets.core.example_weights import weights_of
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.layers.inputs import channels_of, check_divides, like_input, values_of, zero_padding
from jaxnets.ops.norm import normalize, normalize_rms

Initializer = jax.nn.initializers.Initializer


@labeled
def batch_norm(
    *,
    decay: float | jax.Array = 0.9,
    epsilon: float | jax.Array = 1e-5,
    unbiased: bool = True,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: Initializer = jax.nn.initializers.ones,
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Normalize each channel over the batch and all positions: y = scale · (x - mean) / √(var + ε) + bias.

    In training, mean and var are those of the batch; var is the biased variance Σ(x - mean)²/n. Each training call also
    moves the running averages towards them, with the unbiased variance as in PyTorch:

        mean ← decay · mean + (1 - decay) · batch mean
        var  ← decay · var  + (1 - decay) · Σ(x - batch mean)²/(n - 1)    (n with `unbiased=False`)

    In evaluation, mean and var are the running averages, and the state does not change. Statistics and all arithmetic
    are in float32, or in float64 for float64 input; `cast` does not change the parameters.

    In a training step, and wherever else `jn.example_weights` sets weights w, the statistics are weighted:
    mean = Σ w x / Σ w, var = Σ w (x - mean)² / Σ w, and n = (Σ w)² / Σ w², which is the number of examples if all
    weights are 0 or 1. A common factor of all weights has no effect. Examples of weight 0, such as the rows that fill
    up an epoch's last batch, do not count. If fewer than two values count, var is 0, y is the bias, and the running
    averages do not change.

    Args:
        decay: the fraction of the running average that is kept, in [0, 1]; PyTorch's momentum is 1 - decay. With 1 the
            averages never change. May be traced.
        epsilon: ε > 0, which keeps the divisor from zero.
        unbiased: whether the running variance divides by n - 1; Flax and Keras divide by n.
        use_scale: whether to multiply by `scale`.
        use_bias: whether to add `bias`.
        scale_init: initializer of `scale`; with `zeros` in its last layer, a residual block starts as the identity.
        bias_init: initializer of `bias`.

    Returns:
        A network from `(batch, ..., channels)` to the same shape and dtype, with parameters `scale` and `bias`
        and state `mean` and `var`, all `(channels,)`. In `Padded` sequences `(batch, time, ..., channels)` only the
        real steps count; padding becomes zeros.

    Raises:
        NetError: for `decay` outside [0, 1], integer input, one value per channel in training, or parameters or state
            made for another number of channels. (If traced lengths of `Padded` sequences leave fewer than two values,
            the running averages do not change.)

    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift" (2015), algorithms 1 and 2.

    >>> import jax, jax.numpy as jnp
    >>> net = batch_norm()
    >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> y, state = net.apply(params, state, x, train=True)
    >>> print(y.round(2), state["var"].round(1))
    [[-1. -1.]
     [ 1.  1.]] [ 1.1 20.9]
    """
    check_fraction("decay", decay, one=True)
    check_positive("epsilon", epsilon)
    inits = _affine_inits(use_scale, scale_init, use_bias, bias_init)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        shape, dtype = channels_of(x), param_dtype(values_of(x))
        state = {"mean": jnp.zeros(shape, dtype), "var": jnp.ones(shape, dtype)}
        return _init_affine(inits, key, shape, values_of(x)), state

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        shape = channels_of(x)
        check_params(params, dict.fromkeys(inits, shape), values_of(x))
        check_state(state, {"mean": shape, "var": shape}, values_of(x))
        values, mask = zero_padding(x)
        affine = _reshape_affine(params, (1,) * (values.ndim - 1) + shape)
        if train:
            # The mask is boolean (padding), or the weight of each position.
            if (weights := weights_of(values)) is not None:
                values, mask = _apply_weights(values, mask, weights)
            count = _count(values.shape, mask)
            y, mean, variance = normalize(
                values, **affine, epsilon=epsilon, axes=tuple(range(values.ndim - 1)), mask=mask
            )
            state = _update_averages(state, mean.reshape(shape), variance.reshape(shape), count, decay, unbiased)
        else:
            y = _standardize(values, state, **affine, epsilon=epsilon)
        return like_input(y, x), state

    return Net(init, apply, full_precision=True)


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

    inits = _affine_inits(use_scale, scale_init, use_bias, bias_init)
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

    inits = _affine_inits(use_scale, scale_init, False, jax.nn.initializers.zeros)
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
        (channels,) = channels_of(x)
        check_divides("channels", channels, groups)
        return (channels,)

    def over(params: Params, values: jax.Array, mask: jax.Array | None, x: Any) -> jax.Array:
        # (batch, ..., groups, channels / groups)
        grouped = values.reshape(*values.shape[:-1], groups, values.shape[-1] // groups)
        # (1, …, groups, channels / groups)
        affine = _reshape_affine(params, (1,) * (values.ndim - 1) + grouped.shape[-2:])
        # All axes except the batch and the groups.
        axes = tuple(axis for axis in range(1, grouped.ndim) if axis != grouped.ndim - 2)
        # One more axis, as channels now have two.
        mask = None if mask is None else mask[..., None]
        return normalize(grouped, **affine, epsilon=epsilon, axes=axes, mask=mask)[0].reshape(values.shape)

    return _norm(_affine_inits(use_scale, scale_init, use_bias, bias_init), shape_of, over)


def _norm(
    inits: dict[str, Initializer],
    shape_of: Callable[[Any], tuple[int, ...]],
    normalized: Callable[[Params, jax.Array, jax.Array | None, Any], jax.Array],
) -> Net:
    """Make a stateless normalization of `normalized(params, values, mask, x)`, with parameters of `shape_of(x)`."""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return _init_affine(inits, key, shape_of(x), values_of(x)), {}

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
    return _reshape_affine(params, [length if axis in axes else 1 for axis, length in enumerate(values.shape)])


def _count(shape: tuple[int, ...], mask: jax.Array | None) -> Any:
    """Return how many values each channel has.

    Raises:
        NetError: if the number is known and less than two.
    """
    count: Any = math.prod(shape[:-1])
    if mask is not None and mask.dtype == bool:  # (batch, time, 1, ...)
        count = jnp.sum(mask, dtype=jnp.int32) * math.prod(shape[2:-1])
    elif mask is not None:  # weights
        # Scaled to at most 1, so that their squares neither overflow nor underflow.
        weights = mask / jnp.maximum(mask.max(), jnp.finfo(mask.dtype).tiny)
        squares = jnp.square(weights).sum()
        positions = math.prod(shape[:-1]) // mask.size
        return positions * jnp.square(weights.sum()) / jnp.where(squares > 0, squares, 1)
    if not is_traced(count) and count < 2:
        raise NetError(
            f"expects more than one value per channel in training, got {count} in {shape}; use a larger batch, or "
            f"jn.layer_norm, which needs no batch"
        )
    return count


def _apply_weights(values: jax.Array, mask: jax.Array | None, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return values with zeros in the examples of weight 0, and the weight of each position."""
    # (batch, 1, ..., 1)
    weights = weights.reshape(-1, *(1,) * (values.ndim - 1)).astype(param_dtype(values))
    values = jnp.where(weights > 0, values, jnp.zeros((), values.dtype))
    return values, weights if mask is None else jnp.where(mask, weights, jnp.zeros((), weights.dtype))


def _update_averages(
    state: State, mean: jax.Array, variance: jax.Array, count: Any, decay: Any, unbiased: bool
) -> State:
    """Return the running averages after a batch with `count` values per channel."""
    # Σ(x - mean)²/n to Σ(x - mean)²/(n - 1).
    n = jnp.asarray(count, mean.dtype)
    batch = {"mean": mean, "var": variance * (n / jnp.maximum(n - 1, 1)) if unbiased else variance}

    def move(running: jax.Array, value: jax.Array) -> jax.Array:
        old, new = jnp.asarray(decay, running.dtype), jnp.asarray(1 - decay, running.dtype)
        # Running averages are state: no gradient flows into them.
        value = jax.lax.stop_gradient(value).astype(running.dtype)
        # An explicit choice keeps the averages bit for bit; 0 · NaN would not.
        return jnp.where((n < 2) | (new == 0), running, old * running + new * value)

    return {name: move(state[name], batch[name]) for name in ("mean", "var")}


def _standardize(x: jax.Array, state: State, scale: Any, bias: Any, epsilon: Any) -> jax.Array:
    """Return y from the running averages, as in evaluation."""
    dtype = param_dtype(x)
    factor = jax.lax.rsqrt(along_last(state["var"].astype(dtype), x) + jnp.asarray(epsilon, dtype))
    factor = factor if scale is None else factor * scale.astype(dtype)
    # Subtracting the mean first keeps the precision of values with a large mean.
    y = (x.astype(dtype) - along_last(state["mean"].astype(dtype), x)) * factor
    return y if bias is None else y + bias.astype(dtype)


def _affine_inits(
    use_scale: bool, scale_init: Initializer, use_bias: bool, bias_init: Initializer
) -> dict[str, Initializer]:
    """Return the initializers of the parameters in use, by name."""
    return ({"scale": scale_init} if use_scale else {}) | ({"bias": bias_init} if use_bias else {})


def _init_affine(inits: Mapping[str, Initializer], key: jax.Array, shape: tuple[int, ...], x: Any) -> Params:
    """Initialize the scale and the bias for an input, in float32 or float64."""
    check_key(key)
    keys = jax.random.split(key, 2)
    # The keys go to the parameters in use, in order.
    return {name: init(each, shape, param_dtype(x)) for (name, init), each in zip(inits.items(), keys, strict=False)}


def _reshape_affine(params: Params, shape: Sequence[int]) -> dict[str, jax.Array | None]:
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
