"""Positions of steps, added to sequences that are processed without regard to order."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_positive
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
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

    def apply(params: Params, x: Any) -> jax.Array:
        check_params(params, shapes(x), x)
        # (1, time, features)
        return x + params["embedding"][None, : x.shape[1]]

    return layer(init, apply)


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

    def apply(_: Params, x: Any) -> jax.Array:
        width = sequence_width(x)
        if width % 2:
            hint = "sines and cosines come in pairs; make it even with jn.dense"
            raise NetError(f"expects an even number of features, got {width} in {x.shape}; {hint}")
        dtype = param_dtype(x)
        pairs, steps = jnp.arange(width // 2, dtype=dtype), jnp.arange(x.shape[1], dtype=dtype)
        # (time, features / 2)
        angles = steps[:, None] * (jnp.asarray(period, dtype) ** (-2 / width * pairs))[None]
        # (1, time, features): sine and cosine alternate.
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(1, x.shape[1], width)
        return (x.astype(dtype) + waves).astype(x.dtype)

    return layer(None, apply)
