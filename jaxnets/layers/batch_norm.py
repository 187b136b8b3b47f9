"""Normalization over the batch, with running averages for evaluation."""

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
from jaxnets.layers.inputs import channels_of, like_input, values_of, zero_padding
from jaxnets.layers.norm import affine_inits, init_affine, reshape_affine
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
    inits = affine_inits(use_scale, scale_init, use_bias, bias_init)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        shape, dtype = channels_of(x), param_dtype(values_of(x))
        state = {"mean": jnp.zeros(shape, dtype), "var": jnp.ones(shape, dtype)}
        return init_affine(inits, key, shape, values_of(x)), state

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        shape = channels_of(x)
        check_params(params, dict.fromkeys(inits, shape), values_of(x))
        check_state(state, {"mean": shape, "var": shape}, values_of(x))
        values, mask = zero_padding(x)
        affine = reshape_affine(params, (1,) * (values.ndim - 1) + shape)
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
