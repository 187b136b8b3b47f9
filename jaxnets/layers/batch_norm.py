"""Batch normalization."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last, check_params, check_state
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_fraction, check_positive, is_traced
from jaxnets.core.example_weights import weights_of
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.layers.affine import affine, channels_of, init_affine, laid_out, narrowed, values_of, zeroed
from jaxnets.ops.norm import normalize

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
    """Normalize each channel over the batch and all places: y = scale · (x - mean) / √(var + ε) + bias.

    In training, mean and var are those of the batch, var the biased one, Σ(x - mean)²/n. Each training call
    also moves the running averages towards them, by the unbiased variance as in PyTorch:

        mean ← decay · mean + (1 - decay) · batch mean
        var  ← decay · var  + (1 - decay) · Σ(x - batch mean)²/(n - 1)    (n with `unbiased=False`)

    In evaluation, mean and var are the running averages, and the state stays as it is. Statistics and all
    arithmetic are in float32, or in float64 for float64 input; `cast` leaves the parameters alone.

    In a training step, and wherever else `example_weights` of `jaxnets.core` gives them, examples count by their
    weights w: mean = Σ w x / Σ w, var = Σ w (x - mean)² / Σ w, and n = (Σ w)² / Σ w², the number of examples where all
    weights are 0 or 1; a factor in all weights changes nothing. So examples of weight 0 and the rows that fill up an
    epoch's last batch count for nothing. Where fewer than two values count, var is 0, y the bias, and the running
    averages stay as they were.

    Args:
        decay: how much of the running average is kept, in [0, 1]; PyTorch's momentum is 1 - decay. With 1 the
            averages stay as they are. May be traced.
        epsilon: what keeps the divisor from zero, > 0.
        unbiased: whether the running variance is that over n - 1; Flax and Keras divide by n.
        use_scale: whether there is a `scale`.
        use_bias: whether there is a `bias`.
        scale_init: how `scale` is made; `zeros` in the last layer of a residual body makes it start as the identity.
        bias_init: how `bias` is made.

    Returns:
        A network from `(batch, ..., channels)` to the same shape and dtype, with parameters `scale` and `bias`
        and state `mean` and `var`, all `(channels,)`. Of `Padded` sequences `(batch, time, ..., channels)` only
        the real steps count; padding comes out as zeros.

    Raises:
        NetError: for `decay` outside [0, 1], integer input, one value a channel in training, or parameters or
            state made for another number of channels. (Where the lengths of `Padded` sequences are traced and
            turn out to hold fewer than two values, the running averages stay as they were.)

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
    inits = affine(use_scale, scale_init, use_bias, bias_init)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        shape, dtype = channels_of(x), param_dtype(values_of(x))
        state = {"mean": jnp.zeros(shape, dtype), "var": jnp.ones(shape, dtype)}
        return init_affine(inits, key, shape, values_of(x)), state

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        shape = channels_of(x)
        check_params(params, dict.fromkeys(inits, shape), values_of(x))
        check_state(state, {"mean": shape, "var": shape}, values_of(x))
        values, mask = zeroed(x)
        laid = laid_out(params, (1,) * (values.ndim - 1) + shape)
        if train:
            if (weights := weights_of(values)) is not None:
                values, mask = _weighed(values, mask, weights)
            count = _count(values.shape, mask)
            y, mean, variance = normalize(
                values, **laid, epsilon=epsilon, axes=tuple(range(values.ndim - 1)), mask=mask
            )
            state = _moved(state, mean.reshape(shape), variance.reshape(shape), count, decay, unbiased)
        else:
            y = _standardized(values, state, **laid, epsilon=epsilon)
        return narrowed(y, x), state

    return Net(init, apply, full_precision=True)


def _count(shape: tuple[int, ...], mask: jax.Array | None) -> Any:
    """Return how many values each channel has, once there are known to be at least two."""
    count: Any = math.prod(shape[:-1])
    if mask is not None and mask.dtype == bool:
        count = jnp.sum(mask, dtype=jnp.int32) * math.prod(shape[2:-1])
    elif mask is not None:  # of weights
        weights = mask / jnp.maximum(mask.max(), jnp.finfo(mask.dtype).tiny)  # their squares stay in range
        squares = jnp.square(weights).sum()
        places = math.prod(shape[:-1]) // mask.size
        return places * jnp.square(weights.sum()) / jnp.where(squares > 0, squares, 1)
    if not is_traced(count) and count < 2:
        raise NetError(
            f"expects more than one value for each channel in training, got {count} in {shape}; take a larger "
            f"batch, or jn.layer_norm, which needs none"
        )
    return count


def _weighed(values: jax.Array, mask: jax.Array | None, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return values with zeros in the examples of weight 0, and the weight of each place."""
    weights = weights.reshape(-1, *(1,) * (values.ndim - 1)).astype(param_dtype(values))
    values = jnp.where(weights > 0, values, jnp.zeros((), values.dtype))
    return values, weights if mask is None else jnp.where(mask, weights, jnp.zeros((), weights.dtype))


def _moved(state: State, mean: jax.Array, variance: jax.Array, count: Any, decay: Any, unbiased: bool) -> State:
    """Return the running averages after a batch of `count` values a channel."""
    n = jnp.asarray(count, mean.dtype)
    batch = {"mean": mean, "var": variance * (n / jnp.maximum(n - 1, 1)) if unbiased else variance}

    def move(running: jax.Array, value: jax.Array) -> jax.Array:
        old, new = jnp.asarray(decay, running.dtype), jnp.asarray(1 - decay, running.dtype)
        value = jax.lax.stop_gradient(value).astype(running.dtype)
        return jnp.where((n < 2) | (new == 0), running, old * running + new * value)

    return {name: move(state[name], batch[name]) for name in ("mean", "var")}


def _standardized(x: jax.Array, state: State, scale: Any, bias: Any, epsilon: Any) -> jax.Array:
    """Return y by the running averages."""
    dtype = param_dtype(x)
    factor = jax.lax.rsqrt(along_last(state["var"].astype(dtype), x) + jnp.asarray(epsilon, dtype))
    factor = factor if scale is None else factor * scale.astype(dtype)
    y = (x.astype(dtype) - along_last(state["mean"].astype(dtype), x)) * factor
    return y if bias is None else y + bias.astype(dtype)
