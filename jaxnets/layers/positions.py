"""Positions of steps, added to sequences that are processed without regard to order."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.cache import Cache, check_fits, real_steps, steps_from
from jaxnets.core.checks import check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_positive, known
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.layers.inputs import sequence_width

Initializer = jax.nn.initializers.Initializer


@labeled
def learned_positions(length: int, *, embedding_init: Initializer = jax.nn.initializers.normal(0.02)) -> Net:
    """Add a learned vector for each position: y_t = x_t + E_t.

    Args:
        length: number of vectors, at least 1: the longest sequence.
        embedding_init: initializer of `embedding`; N(0, 0.02²) as in BERT, GPT-2 and the Vision Transformer.

    Returns:
        A network from `(batch, time, features)` with time ≤ length to the same shape and dtype, with the parameter
        `embedding` `(length, features)`. `Padded` sequences pass through.

    Raises:
        NetError: for `length` < 1, a longer sequence, integer input, input of another rank, or parameters made for
            another number of features.

    Gehring, Auli, Grangier, Yarats and Dauphin, "Convolutional Sequence to Sequence Learning" (2017), section 3.1.

    >>> import jax, jax.numpy as jnp
    >>> net = learned_positions(10)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 7, 4)))
    >>> params["embedding"].shape, net.apply(params, state, jnp.ones((2, 5, 4)))[0].shape
    ((10, 4), (2, 5, 4))
    """
    check_count("length", length)

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        width = sequence_width(x)
        if x.shape[1] > length:
            raise NetError(
                f"expects at most {length} steps, got {x.shape[1]} in {x.shape}; shorten the sequences, or use a "
                f"larger length"
            )
        return {"embedding": (length, width)}

    def init(key: jax.Array, x: Any) -> Params:
        return {name: embedding_init(key, shape, param_dtype(x)) for name, shape in shapes(x).items()}

    def add(params: Params, x: jax.Array, read: Any) -> jax.Array:
        check_params(params, shapes(x), x)
        if isinstance(read, int):
            # (1, time, features)
            return x + params["embedding"][None, : x.shape[1]]
        steps = steps_from(read, x.shape[1])
        if (known_steps := known(steps)) is not None and known_steps.size and known_steps.max() >= length:
            raise NetError(f"expects at most {length} steps, got {known_steps.max() + 1} with those of the carry")
        # Steps of a traced carry can't be checked: behind the last vector they are NaN.
        return x + jnp.asarray(params["embedding"]).at[steps].get(mode="fill", fill_value=jnp.nan)

    return _counting(init, add)


@labeled
def sinusoidal_positions(*, period: float | jax.Array = 10000.0) -> Net:
    """Add sines and cosines of the position: y_t = x_t + P_t, with waves from 2π steps to almost 2π · period.

    P_{t, 2i} = sin(t / period^(2i / features)) and P_{t, 2i+1} = cos(t / period^(2i / features)) for t from 0. The
    arithmetic is in float32 or wider; only the sum is rounded to the dtype of x.

    Args:
        period: the longest wavelength over 2π, > 0. May be traced.

    Returns:
        A network without parameters from `(batch, time, features)`, for an even number of features, to the same shape
        and dtype. `Padded` sequences pass through.

    Raises:
        NetError: for `period` ≤ 0, an odd number of features, integer input, or input of another rank.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.5.

    >>> import jax.numpy as jnp
    >>> print(sinusoidal_positions().apply({}, {}, jnp.zeros((1, 2, 4)))[0].round(4))
    [[[0.     1.     0.     1.    ]
      [0.8415 0.5403 0.01   1.    ]]]
    """
    check_positive("period", period)

    def add(_: Params, x: jax.Array, read: Any) -> jax.Array:
        width = sequence_width(x)
        if width % 2:
            hint = "sines and cosines come in pairs; make it even with jn.dense"
            raise NetError(f"expects an even number of features, got {width} in {x.shape}; {hint}")
        dtype = param_dtype(x)
        pairs, steps = jnp.arange(width // 2, dtype=dtype), steps_from(read, x.shape[1]).astype(dtype)
        # (batch or 1, time, features / 2)
        angles = steps[..., None] * (jnp.asarray(period, dtype) ** (-2 / width * pairs))[None, None]
        # (batch or 1, time, features): sine and cosine alternate.
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*steps.shape, width)
        return (x.astype(dtype) + waves).astype(x.dtype)

    return _counting(None, add)


def _counting(init: Callable[[Key, Any], Params] | None, add: Callable[[Params, jax.Array, Any], jax.Array]) -> Net:
    """Return a layer from `add(params, x, read)`, where `read` is the number of steps before those of x."""
    plain = layer(init, lambda params, x: add(params, x, 0), label="positions")

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        cache = state.get("cache")
        if cache is None:
            return plain.apply(params, state, x)
        values, lengths = (x.values, x.lengths) if isinstance(x, Padded) else (x, None)
        read = jnp.zeros(values.shape[0], jnp.int32) if cache.place is None else cache.place
        check_fits(cache, values)
        one = layer(init, lambda params, x: add(params, x, read), label="positions")
        return one.apply(params, {}, x)[0], {"cache": Cache(read + real_steps(values, lengths))}

    return Net(plain.init, apply, "positions", caches="cache")
