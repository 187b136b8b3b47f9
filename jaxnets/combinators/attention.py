"""Multi-head attention as a network: projections, the mixing of values over time, and a projection of the result."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import wire
from jaxnets.core.cache import Cache, Memory, check_fits, extended, real_steps, steps_from
from jaxnets.core.checks import check_train_key
from jaxnets.core.errors import NetError, check_count, check_fraction, check_positive, concrete
from jaxnets.core.layer import as_net, labeled
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.packed import both_packed
from jaxnets.core.padded import Padded
from jaxnets.layers.dense import dense
from jaxnets.layers.inputs import like_input, refuse_packed, values_of
from jaxnets.ops.attention import attention as attend
from jaxnets.ops.positions import distance_slopes, rotate

Initializer = jax.nn.initializers.Initializer


@labeled
def attention(
    features: int,
    heads: int,
    *,
    width: int | None = None,
    kv_heads: int | None = None,
    cross: bool = False,
    causal: bool = False,
    window: int | None = None,
    positions: Literal["rotary", "distance"] | None = None,
    period: Any = 10000.0,
    dropout: Any = 0.0,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
    bias_init: Initializer = jax.nn.initializers.zeros,
    out_init: Initializer | None = None,
) -> Net:
    """Let each position of a sequence read from others: y = concatenate over heads(softmax(q kᵀ / √width) v) W + b.

    For each head, q = x W_q + b_q at the position that reads, and k = x W_k + b_k and v = x W_v + b_v at those that are
    read. With `cross` the input is `(x, memory)`: x reads from another sequence, `memory`.

    Args:
        features: of the output.
        heads: the number of heads.
        width: features of a head; the default is features / heads.
        kv_heads: the number of heads of keys and values, a divisor of `heads`, each shared by heads / kv_heads heads;
            the default is `heads`.
        cross: whether the input is a pair.
        causal: whether a position reads only itself and those before it.
        window: how far a position reads: the last `window` positions with its own (`causal`), or those less than
            `window` away.
        positions: "rotary" rotates queries and keys by their positions (`jn.ops.rotate`), "distance" lets the
            score fall with distance (`jn.ops.distance_slopes`).
        period: of "rotary".
        dropout: the rate at which values of the softmax are dropped in training. May be traced.
        use_bias: whether the four projections have biases.
        kernel_init: initializer of the four kernels.
        bias_init: initializer of the biases.
        out_init: initializer of the last kernel, if it is another.

    Returns:
        A network from `(batch, time, in)` to `(batch, time, features)`, with the children `query`, `key`, `value` and
        `out`, each a `dense`. Columns h · width to (h + 1) · width of the first three belong to head h. Steps of
        padding in `Padded` sequences are not read; a position that may read nothing gets the bias of `out`. In `Packed`
        rows a position reads only its own document, and positions restart at each; with `cross` it reads the document
        of the same number.

    Raises:
        NetError: for heads that do not divide `features` (without `width`), `kv_heads` that do not divide `heads`,
            "rotary" with an odd width, an input without a time axis, or one that is not a pair with `cross`; for a
            pair of which only one is `Packed`, or `Packed` ones where distances count (`causal`, `window` or
            "distance").

    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2.

    >>> import jax, jax.numpy as jnp
    >>> net, x = attention(8, heads=2, causal=True), jnp.ones((2, 5, 8))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> net.apply(params, state, x)[0].shape, params["query"]["kernel"].shape
    ((2, 5, 8), (8, 8))
    """
    check_count("features", features)
    check_count("heads", heads)
    kv_heads = heads if kv_heads is None else kv_heads
    check_count("kv_heads", kv_heads)
    if heads % kv_heads:
        raise NetError(f"expects kv_heads that divide the {heads} heads, got {kv_heads}")
    if width is None:
        if features % heads:
            raise NetError(f"expects features divisible by {heads} heads, got {features}; or give the width of a head")
        width = features // heads
    check_count("width", width)
    if window is not None:
        check_count("window", window)
    if positions not in (None, "rotary", "distance"):
        raise NetError(f"expects positions 'rotary', 'distance' or None, got {positions!r}")
    if positions == "rotary" and width % 2:
        raise NetError(f"expects heads of even width to rotate, got {width}")
    check_positive("period", period)
    check_fraction("dropout", dropout)

    project = partial(dense, use_bias=use_bias, kernel_init=kernel_init, bias_init=bias_init)
    # Where each document of a row begins differs between the two sequences of a pair.
    relative = cross and (causal or window is not None or positions == "distance")
    mix = _mix(heads, kv_heads, positions, period, dropout, cross, relative, causal=causal, window=window)
    children = {
        "query": project(heads * width),
        "key": project(kv_heads * width),
        "value": project(kv_heads * width),
        "mix": mix,
        "out": project(features, kernel_init=kernel_init if out_init is None else out_init),
    }
    sources = {"query": ("",), "key": ("",), "value": ("",), "mix": ("query", "key", "value"), "out": ("mix",)}
    if cross:
        children = {"x": as_net(first), "memory": as_net(second), **children}
        sources |= {"x": ("",), "memory": ("",), "query": ("x",), "key": ("memory",), "value": ("memory",)}
    return wire("attention", children, sources, "out")


def first(pair: Any) -> Any:
    """Return x of the pair `(x, memory)`: the sequence that reads, `(batch, time, features)`."""
    return _pair(pair)[0]


def second(pair: Any) -> Any:
    """Return the memory of the pair `(x, memory)`: the sequence that is read, `(batch, source, features)`."""
    return _pair(pair)[1]


def _pair(x: Any) -> Any:
    if not isinstance(x, tuple) or len(x) != 2:
        came = f"{len(x)} inputs" if isinstance(x, tuple) else "one input"
        raise NetError(f"expects a pair (x, memory), the sequence that reads and the one that is read, got {came}")
    return x


def _mix(
    heads: int,
    kv_heads: int,
    positions: str | None,
    period: Any,
    dropout: Any,
    cross: bool,
    relative: bool,
    **rules: Any,
) -> Net:
    """Return the network from the projections (q, k, v), `(batch, time, heads · width)`, to mixed values."""
    # A causal layer can keep the keys and values that it has read; those of another sequence, it keeps whole.
    plain = positions is None and not any(rules.values())
    caches = ("memory" if plain else "") if cross else "cache" if rules["causal"] else ""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return {}, {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        for name, each in zip(("x", "memory"), x[:2]):
            if len(values_of(each).shape) != 3:
                raise NetError(f"expects {name} (batch, time, features), got projections {values_of(each).shape}")
        packed = both_packed(*x[:2])
        if packed and relative:
            raise NetError("takes no pair of Packed with causal, window or distances, which count along whole rows")
        # Zeros for padding: a NaN there would reach gradients as 0 · NaN.
        q, k, v = (
            jnp.reshape(values, (*values.shape[:2], count, values.shape[2] // count))
            for count, each in zip((heads, kv_heads, kv_heads), x)
            for values in [jnp.asarray(each.zeroed() if isinstance(each, Padded) else each)]
        )
        lengths = x[1].lengths if isinstance(x[1], Padded) else None
        cache = state.get(caches)
        if cache is not None:
            refuse_packed(x[0], "a carry continues one text in each row")
            check_fits(cache, k)
        offset = cache.place if isinstance(cache, Cache) and not cross and cache.key is not None else 0
        if positions == "rotary":
            steps = (
                (each.positions for each in x[:2]) if packed else (steps_from(offset, each.shape[1]) for each in (q, k))
            )
            q, k = (rotate(each, place, period=period) for each, place in zip((q, k), steps))
        if cache is not None:
            cache, lengths = _read(cache, k, v, lengths, cross)
            k, v = (each.swapaxes(1, 2).astype(q.dtype) for each in (cache.key, cache.value))
            state = {**state, caches: cache}
        slopes = distance_slopes(heads) if positions == "distance" else None
        segments = (x[0].segments, x[1].segments) if packed else None
        drops = {}
        if train and concrete(dropout) != 0.0:
            check_train_key(key)
            drops = {"dropout": dropout, "dropout_key": key}
        y = attend(q, k, v, slopes=slopes, lengths=lengths, segments=segments, offset=offset, **rules, **drops)
        if cache is not None and not cross:
            # Steps beyond the capacity of a traced carry were not kept: without them, y would be wrong.
            y = jnp.where((cache.place <= k.shape[1])[:, None, None, None], y, jnp.nan)
        return like_input(y.reshape(*y.shape[:2], heads * y.shape[3]), x[0]), state

    return Net(init, apply, "mix", caches=caches)


def _read(cache: Cache, k: jax.Array, v: jax.Array, lengths: Any, cross: bool) -> tuple[Cache, Any]:
    """Return what a cache holds after new keys and values, and the number of real ones, `None` if all are."""
    real = real_steps(k, lengths)
    if cache.key is None:
        return (Memory if cross else Cache)(real, k.swapaxes(1, 2), v.swapaxes(1, 2)), lengths
    cache = cache if cross else extended(cache, k, v, real)
    return cache, cache.place
