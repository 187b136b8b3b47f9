"""Scaled dot-product attention, exact, in memory that grows linearly with time.

For each head y = softmax(q kᵀ · scale + bias) v. The scores of all pairs of positions take time · source numbers, so
long sequences are computed in blocks of query rows. A block sees all of its keys at once, so its softmax needs no
running maximum; `jax.checkpoint` lets the backward pass compute the scores again instead of storing them. As these are
plain JAX operations, forward mode, reverse mode, higher orders, `vmap` and export work as for any function.

A query that may attend to nothing gets zeros, and no gradient flows. (With jax 0.10.2,
`jax.nn.dot_product_attention` returns the mean of all values there. With PyTorch 2.13, `scaled_dot_product_attention`
returns zeros, and `MultiheadAttention` NaN.)
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_fraction, concrete, shown
from jaxnets.ops.dropout_mask import survivors

Array = jax.Array | np.ndarray

BLOCK_BYTES = 2**24
"""Bytes of the scores of one block, about: larger arrays of scores are computed block by block."""

PARTS, PART_BYTES = 4, 2**20
"""On CPU, scores of one block but more bytes than this are computed for this many parts of the batch side by side."""

SPANS = 4
"""With a static mask of positions, blocks are grouped into this many spans, each of which reads only its own keys."""


class _Rules(NamedTuple):
    """Which keys a query attends to, and how much, by position; query i of the sequence has position offset + i."""

    causal: bool
    window: int | None
    offset: Any
    slopes: Any
    segments: tuple[jax.Array, jax.Array] | None
    # A key and a rate.
    dropped: tuple[jax.Array, Any] | None

    def ahead(self, rows: jax.Array, keys: range) -> jax.Array:
        """Return how far each key lies after each query, `(batch or 1, 1, rows, keys)`."""
        # (batch or 1, 1, rows, 1)
        query = (jnp.reshape(jnp.asarray(self.offset, rows.dtype), (-1, 1)) + rows[None])[:, None, :, None]
        return jnp.arange(keys.start, keys.stop)[None, None, None] - query

    def allowed(self, ahead: jax.Array) -> jax.Array | None:
        """Return which keys a query may attend to, `None` for all."""
        if self.window is None:
            return ahead <= 0 if self.causal else None
        return (ahead < (1 if self.causal else self.window)) & (ahead > -self.window)

    def together(self, rows: jax.Array, keys: range) -> jax.Array | None:
        """Return which keys are in the segment of each query, `(batch, 1, rows, keys)`, `None` for all."""
        if self.segments is None:
            return None
        query, key = self.segments
        return (query[:, rows, None] == key[:, None, keys.start : keys.stop])[:, None]

    def keys(self, start: int, stop: int, source: int) -> range:
        """Return the keys that the queries from `start` to `stop` may attend to, all if that is not known."""
        low, high = 0, source
        if isinstance(self.offset, int):
            if self.window is not None:
                low = max(0, self.offset + start - self.window + 1)
                high = min(high, self.offset + stop + self.window - 1)
            if self.causal:
                high = min(high, self.offset + stop)
        return range(low, max(low, high))


def attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    bias: Array | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
    causal: bool = False,
    window: int | None = None,
    offset: Any = None,
    slopes: Array | None = None,
    segments: Array | tuple[Array, Array] | None = None,
    scale: Any = None,
    dropout: Any = 0.0,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Return y = softmax(q kᵀ · scale + bias) v for each head, over the keys that a query may attend to.

    The softmax is computed in float32 or wider. Several heads of the query may share one head of the keys and values
    (grouped heads; with one, multi-query): query head h reads head h · kv_heads // heads.

    Args:
        query: `(batch, time, heads, width)`, floating.
        key: `(batch, source, kv_heads, width)`; `kv_heads` divides `heads`.
        value: `(batch, source, kv_heads, features)`.
        bias: added to the scores, floating, broadcast to `(batch, heads, time, source)`.
        mask: booleans, broadcast to `(batch, heads, time, source)`, true where a query may attend. Values that it
            hides must be finite.
        lengths: integers `(batch,)`: only the first keys of an example, this many, count.
        causal: whether a query attends to no later position.
        window: a query attends to the last `window` positions with its own (`causal`), or to those less than `window`
            away.
        offset: the position of the first query among the keys, an integer or integers `(batch,)`, may be traced. The
            default is source - time with `causal`, so that the last query and the last key are at the same position,
            and 0 without.
        slopes: `(heads,)`, floating: the score falls by slope · distance of the positions, as in ALiBi
            (`distance_slopes`).
        segments: integers `(batch, time)`, if queries and keys are as many, or a pair of those of the queries and the
            keys, `(batch, time)` and `(batch, source)`: a query attends only to keys of its segment, such as one of
            several documents in a row.
        scale: of the scores; the default is 1/√width. May be traced.
        dropout: the rate at which values of the softmax are set to zero, the others scaled up. May be traced.
        dropout_key: a random key, needed unless the rate is known to be 0.

    Returns:
        `(batch, time, heads, features)` in the dtype of `query`; zeros where a query may attend to no key.

    Raises:
        NetError: for shapes that do not fit, a mask that is not boolean, a bias, queries, keys or values that are not
            floating, lengths, an offset or segments that are not integers, `window` < 1, or a rate outside [0, 1) or
            without a key.

    Vaswani et al., "Attention Is All You Need" (2017), equation 1. Ainslie et al., "GQA" (2023), for grouped heads.

    >>> q = k = jnp.zeros((1, 3, 1, 2))
    >>> v = jnp.array([3.0, 5.0, 10.0]).reshape(1, 3, 1, 1)
    >>> print(attention(q, k, v, causal=True).ravel())
    [3. 4. 6.]
    """
    _check_shapes(query, key, value)
    query, key, value = (jnp.asarray(each) for each in (query, key, value))
    time, source = query.shape[1], key.shape[1]
    full = (query.shape[0], query.shape[2], time, source)
    bias, mask = _aligned("bias", bias, full), _aligned("mask", mask, full)
    if window is not None:
        check_count("window", window)
    if offset is None:
        offset = source - time if causal else 0
    elif np.shape(offset) not in ((), full[:1]) or not jnp.issubdtype(jnp.result_type(offset), jnp.integer):
        raise NetError(f"expects for offset an integer or integers ({full[0]},), got {shown(offset)}")
    if slopes is not None and np.shape(slopes) != (full[1],):
        raise NetError(f"expects for slopes one number for each of the {full[1]} heads, got {shown(slopes)}")
    check_fraction("dropout", dropout)
    drops = concrete(dropout) != 0.0
    if drops and dropout_key is None:
        raise NetError("drops values at random and needs a key, got none; pass dropout_key=")
    dropped = (dropout_key, dropout) if drops and dropout_key is not None else None
    rules = _Rules(causal, window, offset, slopes, _segments(segments, full), dropped)
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        if lengths.shape != full[:1] or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise NetError(f"expects lengths as integers ({full[0]},), got {lengths.dtype} {lengths.shape}")
        # (batch, 1, 1, source)
        real = (jnp.arange(source)[None] < lengths.astype(int)[:, None])[:, None, None]
        mask = real if mask is None else mask & real
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    # How many rows of scores fit into a block. A size that is symbolic, in export, counts as 1.
    sizes = [n for n in (*full[:2], source) if isinstance(n, int)]
    rows = BLOCK_BYTES // max(1, 4 * math.prod(sizes))
    if not isinstance(time, int) or rows >= time:

        def whole(*arrays: Any) -> jax.Array:
            query, key, value, bias, mask, offset, segments = arrays
            here = rules._replace(offset=offset, segments=segments)
            return _rows(query, key, value, bias, mask, jnp.arange(time), here, scale, range(source))

        arrays = query, key, value, bias, mask, offset, rules.segments
        parts = next((n for n in range(PARTS, 1, -1) if isinstance(full[0], int) and full[0] % n == 0), 1)
        if parts == 1 or 4 * math.prod(sizes) * time < PART_BYTES or drops:
            return whole(*arrays)
        return lax.platform_dependent(*arrays, cpu=partial(_in_parts, whole, full[0], parts), default=whole)
    step = -(-time // SPANS)
    spans = [range(start, min(start + step, time)) for start in range(0, time, step)]
    y = [_by_blocks(query, key, value, bias, mask, span, rules, scale, max(1, rows)) for span in spans]
    return jnp.concatenate(y, 1)


def _in_parts(whole: Any, batch: int, parts: int, *arrays: Any) -> jax.Array:
    """Return the output of parts of the batch side by side, which a CPU computes at the same time and in its cache."""

    def divided(x: Any) -> list[Any]:
        # The gradient of `split` joins parts; that of slices would add padded ones.
        return jnp.split(x, parts) if jnp.ndim(x) and np.shape(x)[0] == batch else [x] * parts

    leaves, structure = jax.tree.flatten(arrays)
    each = zip(*map(divided, leaves), strict=True)
    return jnp.concatenate([whole(*jax.tree.unflatten(structure, part)) for part in each])


def _by_blocks(
    query: jax.Array, key: Any, value: Any, bias: Any, mask: Any, span: range, rules: _Rules, scale: Any, rows: int
) -> jax.Array:
    """Return the output of a span of the queries, computed `rows` at a time."""
    keys = rules.keys(span.start, span.stop, key.shape[1])
    query, (key, value) = query[:, span.start : span.stop], (each[:, keys.start : keys.stop] for each in (key, value))
    bias, mask = (None if each is None else _cut(each, span, keys) for each in (bias, mask))
    # What differs between rows is read row by row; the axis of rows comes first.
    by_row = {"bias": bias, "mask": mask}
    mapped = {name: jnp.moveaxis(each, 2, 0) for name, each in by_row.items() if each is not None and each.shape[2] > 1}

    @jax.checkpoint
    def row(each: Any) -> jax.Array:
        part, index, rest = each
        here = by_row | {name: value[:, :, None] for name, value in rest.items()}
        return _rows(part[:, None], key, value, here["bias"], here["mask"], index[None], rules, scale, keys)[:, 0]

    # (rows, batch, heads, features) → (batch, rows, heads, features)
    return lax.map(row, (query.swapaxes(0, 1), jnp.arange(span.start, span.stop), mapped), batch_size=rows).swapaxes(
        0, 1
    )


def _rows(
    query: jax.Array,
    key: Any,
    value: Any,
    bias: Any,
    mask: Any,
    index: jax.Array,
    rules: _Rules,
    scale: Any,
    keys: range,
) -> jax.Array:
    """Return the output of some rows of the query, with `index` among all rows, for a range of the keys."""
    batch, rows, heads, width = query.shape
    groups, features, source = key.shape[2], value.shape[-1], key.shape[1]
    dtype = param_dtype(query)
    query = (query * jnp.asarray(scale, query.dtype)).reshape(batch, rows, groups, heads // groups, width)
    # The heads that share a head of the keys are rows of one product: (batch, groups, heads / groups · rows, width).
    query = query.transpose(0, 2, 3, 1, 4).reshape(batch, groups, heads // groups * rows, width)
    # (batch, groups, keys, width or features)
    key, value = (each.transpose(0, 2, 1, 3) for each in (key, value))
    over = ((3,), (3,)), ((0, 1), (0, 1))
    scores = lax.dot_general(query, key, over, preferred_element_type=dtype)
    scores = scores.reshape(batch, groups, heads // groups, rows, source)
    if bias is not None:
        scores = scores + _by_group(bias, groups).astype(dtype)
    ahead = rules.ahead(index, keys)
    if rules.slopes is not None:
        slopes = jnp.reshape(jnp.asarray(rules.slopes, dtype), (1, heads, 1, 1))
        scores = scores - _by_group(slopes * jnp.abs(ahead).astype(dtype), groups)
    for allowed in (mask, rules.allowed(ahead), rules.together(index, keys)):
        if allowed is not None:
            scores = jnp.where(_by_group(allowed, groups), scores, -jnp.inf)
    # Nothing depends on what is subtracted. Where no key is allowed it is 0, so that all weights are.
    largest = lax.stop_gradient(scores.max(-1, keepdims=True, initial=-jnp.inf))
    weights = jnp.exp(scores - jnp.where(largest == -jnp.inf, 0, largest))
    total = weights.sum(-1, keepdims=True)
    if rules.dropped is not None:
        dropout_key, rate = rules.dropped
        # Rows of a block come one by one, each with a mask of its own.
        keep, probability = survivors(jax.random.fold_in(dropout_key, index[0]), rate, weights.shape)
        weights = jnp.where(keep, weights / probability.astype(dtype), 0)
    y = jnp.matmul(weights.astype(value.dtype).reshape(batch, groups, heads // groups * rows, source), value)
    # Divided after the product: less to divide, and backward no sum over the keys.
    y = y.reshape(batch, groups, heads // groups, rows, features).astype(dtype) / jnp.where(total == 0, 1, total)
    # (batch, groups, heads / groups, rows, features) → (batch, rows, heads, features)
    return y.transpose(0, 3, 1, 2, 4).reshape(batch, rows, heads, features).astype(query.dtype)


def _by_group(x: jax.Array, groups: int) -> jax.Array:
    """Split the heads of `(batch, heads, rows, keys)` by the head of the keys that they share."""
    return x[:, :, None] if x.shape[1] == 1 else x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _cut(x: jax.Array, rows: range, keys: range) -> jax.Array:
    """Return some rows and keys of `(batch, heads, time, source)`; axes of length 1 stay."""
    x = x if x.shape[2] == 1 else x[:, :, rows.start : rows.stop]
    return x if x.shape[3] == 1 else x[..., keys.start : keys.stop]


def _check_shapes(query: Any, key: Any, value: Any) -> None:
    """Raise unless the three arrays fit each other."""
    for name, given in (("query", query), ("key", key), ("value", value)):
        if not hasattr(given, "shape") or not jnp.issubdtype(given.dtype, jnp.floating):
            raise NetError(f"expects for {name} a floating array (batch, time, heads, width), got {shown(given)}")
        if len(given.shape) != 4:
            raise NetError(f"expects for {name} the axes (batch, time, heads, width), got {given.shape}")
    (batch, _, heads, width), keys, values = query.shape, key.shape, value.shape
    if keys[0] != batch or keys[3] != width:
        raise NetError(f"expects keys ({batch}, source, kv_heads, {width}) for queries {query.shape}, got {keys}")
    if values[:3] != keys[:3]:
        raise NetError(f"expects values {keys[:3]} with any number of features for keys {keys}, got {values}")
    if not keys[2] or heads % keys[2]:
        raise NetError(f"expects as many heads of the query as kv_heads or a multiple, got {heads} and {keys[2]}")


def _segments(segments: Any, full: tuple[int, ...]) -> tuple[jax.Array, jax.Array] | None:
    """Return the segments of queries and keys, checked."""
    if segments is None:
        return None
    pair = tuple(jnp.asarray(each) for each in (segments if isinstance(segments, tuple) else (segments, segments)))
    shapes = (full[0], full[2]), (full[0], full[3])
    if tuple(each.shape for each in pair) != shapes or not all(
        jnp.issubdtype(each.dtype, jnp.integer) for each in pair
    ):
        got = ", ".join(f"{each.dtype} {each.shape}" for each in pair)
        raise NetError(f"expects for segments integers {shapes[0]} of queries and {shapes[1]} of keys, got {got}")
    return pair[0], pair[1]


def _aligned(name: str, x: Any, full: tuple[int, ...]) -> jax.Array | None:
    """Return a bias or mask with the axes (batch, heads, time, source), some of them of length 1."""
    if x is None:
        return None
    x, boolean = jnp.asarray(x), name == "mask"
    if (x.dtype == bool) != boolean or not (boolean or jnp.issubdtype(x.dtype, jnp.floating)):
        kind, hint = (
            ("booleans", "mask > 0, or add scores by bias=") if boolean else ("a floating array", "mask= for booleans")
        )
        raise NetError(f"expects for {name} {kind}, got {x.dtype} {x.shape}; use {hint}")
    fits = x.ndim <= 4 and all(n in (1, size) for n, size in zip(reversed(x.shape), reversed(full)))
    if not fits:
        raise NetError(f"expects a {name} that broadcasts to (batch, heads, time, source) = {full}, got {x.shape}")
    return x.reshape((1,) * (4 - x.ndim) + x.shape)
