"""Positions of steps, added to sequences that are processed without regard to order."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.cache import Cache, check_fits, real_steps, steps_from
from jaxnets.core.checks import check_params, refuse
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_positive
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Key, Net, Params, State, spec
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded
from jaxnets.layers.inputs import refuse_packed, sequence_width

Initializer = jax.nn.initializers.Initializer


@labeled
def learned_positions(length: int, *, embedding_init: Initializer = jax.nn.initializers.normal(0.02)) -> Net:
    """Add a learned vector for each position: y_t = x_t + E_t.

    Args:
        length: number of vectors, at least 1: the longest sequence.
        embedding_init: initializer of `embedding`; N(0, 0.02²) as in BERT, GPT-2 and the Vision Transformer.

    Returns:
        A network from `(batch, time, features)` with time ≤ length to the same shape and dtype, with the parameter
        `embedding` `(length, features)`. `Padded` sequences pass through. In `Packed` rows, which may be longer,
        positions restart at each document.

    Raises:
        NetError: for `length` < 1, a longer sequence, integer input, input of another rank, or parameters made for
            another number of features. In a `Packed` row that is traced, a longer document gives NaN.

    Gehring, Auli, Grangier, Yarats and Dauphin, "Convolutional Sequence to Sequence Learning" (2017), section 3.1.

    >>> import jax, jax.numpy as jnp
    >>> net = learned_positions(10)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 7, 4)))
    >>> params["embedding"].shape, net.apply(params, state, jnp.ones((2, 5, 4)))[0].shape
    ((10, 4), (2, 5, 4))
    """
    check_count("length", length)

    hint = "shorten the sequences, or use a larger length"

    def check_length(x: Any) -> None:
        sequence_width(x)
        if x.shape[1] > length:
            raise NetError(f"expects at most {length} steps, got {x.shape[1]} in {x.shape}; {hint}")

    def init(key: jax.Array, x: Any) -> Params:
        return {"embedding": embedding_init(key, (length, sequence_width(x)), param_dtype(x))}

    def add(params: Params, x: Any, steps: jax.Array | None) -> jax.Array:
        check_params(params, {"embedding": (length, sequence_width(x))}, x)
        if steps is None:
            check_length(x)
            # (1, time, features)
            return x + params["embedding"][None, : x.shape[1]]
        refuse(steps, lambda t: t >= length, f"expects texts of at most {length} steps, got position {{}}; {hint}")
        # (batch, time, features)
        return x + jnp.asarray(params["embedding"]).at[steps].get(mode="fill", fill_value=jnp.nan)

    return _by_position(init, add, check_length)


@labeled
def sinusoidal_positions(*, period: float | jax.Array = 10000.0) -> Net:
    """Add sines and cosines of the position: y_t = x_t + P_t, with waves from 2π steps to almost 2π · period.

    P_{t, 2i} = sin(t / period^(2i / features)) and P_{t, 2i+1} = cos(t / period^(2i / features)) for t from 0. The
    arithmetic is in float32 or wider; only the sum is rounded to the dtype of x.

    Args:
        period: the longest wavelength over 2π, > 0. May be traced.

    Returns:
        A network without parameters from `(batch, time, features)`, for an even number of features, to the same shape
        and dtype. `Padded` sequences pass through. In `Packed` rows positions restart at each document.

    Raises:
        NetError: for `period` ≤ 0, an odd number of features, integer input, or input of another rank.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.5.

    >>> import jax.numpy as jnp
    >>> print(sinusoidal_positions().apply({}, {}, jnp.zeros((1, 2, 4)))[0].round(4))
    [[[0.     1.     0.     1.    ]
      [0.8415 0.5403 0.01   1.    ]]]
    """
    check_positive("period", period)

    def add(_: Params, x: Any, places: jax.Array | None) -> jax.Array:
        width = sequence_width(x)
        if width % 2:
            hint = "sines and cosines come in pairs; make it even with jn.dense"
            raise NetError(f"expects an even number of features, got {width} in {x.shape}; {hint}")
        dtype = param_dtype(x)
        pairs, steps = jnp.arange(width // 2, dtype=dtype), jnp.arange(x.shape[1], dtype=dtype)[None]
        steps = steps if places is None else places.astype(dtype)
        # (batch or 1, time, features / 2)
        angles = steps[..., None] * (jnp.asarray(period, dtype) ** (-2 / width * pairs))[None, None]
        # (batch or 1, time, features): sine and cosine alternate.
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*steps.shape, width)
        return (x.astype(dtype) + waves).astype(x.dtype)

    return _by_position(None, add)


def _by_position(
    init: Callable[[Key, Any], Params] | None,
    add: Callable[[Params, Any, jax.Array | None], jax.Array],
    check: Callable[[Any], Any] = lambda x: None,
) -> Net:
    """Return the layer of `add(params, x, positions)`, whose positions are `None` for those of whole sequences.

    `check` checks the shape that `init` gets, unless it is that of `Packed` rows.
    """
    plain = layer(init, lambda params, x: add(params, x, None))

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        if not isinstance(x, Packed):
            check(spec(x.values if isinstance(x, Padded) else x))
        return plain.init(key, x)

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        cache = state.get("cache")
        if cache is None and not isinstance(x, Packed):
            return plain.apply(params, state, x)
        if cache is None:
            return x.with_values(at(x.positions, params, Padded(x.values, x.lengths)).values), state
        refuse_packed(x, "a carry continues one text in each row")
        values, lengths = (x.values, x.lengths) if isinstance(x, Padded) else (x, None)
        check(values)
        check_fits(cache, values)
        read = jnp.zeros(values.shape[0], jnp.int32) if cache.place is None else cache.place
        y = at(steps_from(read, values.shape[1]), params, x)
        return y, {"cache": Cache(read + real_steps(values, lengths))}

    def at(steps: jax.Array, params: Params, x: Any) -> Any:
        return layer(init, lambda params, values: add(params, values, steps)).apply(params, {}, x)[0]

    return Net(init_fn, apply, caches="cache")
