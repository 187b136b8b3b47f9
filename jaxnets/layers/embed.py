"""Embeddings: of one index, and of the columns of a table."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import check_params
from jaxnets.core.errors import NetError, check_count, is_traced, labeled_as, shown
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


@labeled
def embed_columns(
    sizes: Mapping[str, int],
    features: int | Mapping[str, int] | None = None,
    *,
    embedding_init: Initializer = jax.nn.initializers.normal(0.01),
    dtype: Any = jnp.float32,
) -> Net:
    """Look up a learned vector for each categorical column of a table, and join them behind its numbers.

    y = [x, E₁[c₁], …, Eₙ[cₙ]] for numbers x and categories c₁ to cₙ, each with a matrix of its own. Initial vectors are
    small, so that a category which training does not have counts for little.

    Args:
        sizes: the number of codes of each column by name, in the order of the columns: `encoder.sizes` of
            `jn.data.table(..., one_hot=False)`.
        features: the length of the vectors, one number or one by name. Default: half the number of codes, rounded up,
            at most 50.
        embedding_init: initializer of each matrix.
        dtype: dtype of the matrices, to which the numbers are converted.

    Returns:
        A network from a dict of `numbers` `(batch, f)`, floating, and `categories` `(batch, n)`, integers, to
        `(batch, f + sum of features)`, with parameters `{name: {"embedding": (size, features)}}`.

    Raises:
        NetError: for no sizes, names that contain `/`, input that is no such dict or has another number of columns, or
            a known code out of range. A traced code out of range returns NaN.

    Guo and Berkhahn, "Entity Embeddings of Categorical Variables" (2016).

    >>> import jax, jax.numpy as jnp
    >>> net = embed_columns({"color": 4, "city": 30})
    >>> x = {"numbers": jnp.ones((5, 3)), "categories": jnp.zeros((5, 2), jnp.int32)}
    >>> params, state = net.init(jax.random.key(0), x)
    >>> net.apply(params, state, x)[0].shape, params["city"]["embedding"].shape
    ((5, 20), (30, 15))
    """
    if not isinstance(sizes, Mapping) or not sizes or any("/" in str(name) for name in sizes):
        hint = "encoder.sizes of jn.data.table(..., one_hot=False)"
        raise NetError(f"expects the sizes of columns by name, without '/', got {shown(sizes)}; {hint}")
    for name, size in sizes.items():
        check_count(f"the size of {name}", size)
    if isinstance(features, Mapping) and set(features) != set(sizes):
        raise NetError(f"expects features for {', '.join(sizes)}, got them for {', '.join(features)}")

    def part(name: str) -> Net:
        length = features[name] if isinstance(features, Mapping) else features
        length = min(50, (sizes[name] + 1) // 2) if length is None else length
        return embed(sizes[name], length, embedding_init=embedding_init, dtype=dtype)

    parts = {str(name): part(name) for name in sizes}

    def check(x: Any) -> tuple[Any, Any]:
        if not isinstance(x, Mapping) or set(x) != {"numbers", "categories"}:
            got = f"a dict of {', '.join(map(str, x))}" if isinstance(x, Mapping) else shown(x)
            hint = "jn.data.table(..., one_hot=False) makes it"
            raise NetError(f"expects a dict of numbers and categories, got {got}; {hint}")
        numbers, codes = x["numbers"], x["categories"]
        if len(numbers.shape) != 2 or len(codes.shape) != 2 or codes.shape[1] != len(parts):
            raise NetError(
                f"expects numbers (batch, features) and categories (batch, {len(parts)}), got {tuple(numbers.shape)} "
                f"and {tuple(codes.shape)}"
            )
        return numbers, codes

    def init(key: jax.Array, x: Any) -> Params:
        _, codes = check(x)
        one = jax.ShapeDtypeStruct(codes.shape[:1], codes.dtype)
        keys = jax.random.split(key, len(parts))
        return {name: part.init(each, one)[0] for (name, part), each in zip(parts.items(), keys, strict=True)}

    def apply(params: Params, x: Any) -> jax.Array:
        numbers, codes = check(x)
        if set(params) != set(parts):
            have = ", ".join(params) or "none"
            raise NetError(f"needs the parameters {', '.join(parts)}, got {have}", names_differ=True)
        joined = [jnp.asarray(numbers)]
        for place, (name, part) in enumerate(parts.items()):
            with labeled_as(child=name):
                joined.append(part.apply(params[name], {}, codes[:, place])[0])
        return jnp.concatenate([each.astype(joined[-1].dtype) for each in joined], 1)

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
