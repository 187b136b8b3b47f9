"""The embedding layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import check_params
from jaxnets.core.errors import NetError, check_count, is_traced
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params

Initializer = jax.nn.initializers.Initializer


@labeled
def embed(
    vocabulary_size: int,
    features: int,
    *,
    embedding_init: Initializer = jax.nn.initializers.normal(1.0),
    dtype: Any = jnp.float32,
) -> Net:
    """Look up a learned vector for each index: y = E[x].

    Args:
        vocabulary_size: number of vectors, at least 1.
        features: length of each vector, at least 1.
        embedding_init: initializer of `embedding`. The default is N(0, 1), as in PyTorch; if the same matrix also
            computes the logits of a language model, use `jax.nn.initializers.normal(features**-0.5)`.
        dtype: dtype of `embedding` and of the output.

    Returns:
        A network from integers `(batch, ...)` in [0, vocabulary_size) to `(batch, ..., features)`, with the
        parameter `embedding` `(vocabulary_size, features)`. `Padded` sequences pass through, with any
        integers as padding.

    Raises:
        NetError: for floating input, parameters of another size, or a known index out of range. A traced index out of
            range, which includes negative ones, returns a vector of NaN and has no gradient.

    >>> import jax, jax.numpy as jnp
    >>> net = embed(1000, 4)
    >>> params, state = net.init(jax.random.key(0), jnp.array([[5, 7, 2]]))
    >>> net.apply(params, state, jnp.array([[5, 7, 2]]))[0].shape
    (1, 3, 4)
    """
    check_count("vocabulary_size", vocabulary_size)
    check_count("features", features)
    shapes = {"embedding": (vocabulary_size, features)}

    def init(key: jax.Array, x: Any) -> Params:
        _check_indices(x)
        return {"embedding": embedding_init(key, shapes["embedding"], dtype)}

    def apply(params: Params, x: Any) -> jax.Array:
        _check_indices(x)
        check_params(params, shapes, x)
        # Traced indices can't be checked: out of range they return NaN.
        if not is_traced(x):
            _check_range(np.asarray(x), vocabulary_size)
        return jnp.asarray(params["embedding"]).at[x].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)

    return layer(init, apply)


def _check_indices(x: Any) -> None:
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise NetError(f"expects an array of integers, got {type(x).__name__}")
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise NetError(f"expects integers, got {x.dtype} {x.shape}; convert indices with x.astype(jnp.int32)")
    if not x.shape:
        raise NetError("expects (batch, ...), got a scalar; add a batch axis with x[None]")


def _check_range(x: np.ndarray, size: int) -> None:
    if x.size and (x.min() < 0 or x.max() >= size):
        wrong = x[(x < 0) | (x >= size)][0]
        raise NetError(f"expects indices in [0, {size}), got {wrong}; use a larger vocabulary_size or map the index")
