"""What attention has read of sequences so far: caches of keys and values, the carry of a transformer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, is_traced, known, shown


class Cache(NamedTuple):
    """What a layer keeps of the steps that it has read, part of the carry of `jn.cached`.

    Attributes:
        place: the number of steps read, `(batch,)` int32; `None` before the first call.
        key: the keys of these steps, `(batch, kv_heads, capacity, width)`, in the layout of the products that read
            them, anything behind them; `None` for a layer that only counts, such as positions.
        value: the values, likewise.
    """

    place: Any = None
    key: Any = None
    value: Any = None


class Memory(Cache):
    """Keys and values of another sequence, which are computed once; `place` is the number of its real steps."""


def check_fits(cache: Cache, key: jax.Array) -> None:
    """Raise unless a cache is empty, or has the batch and the features of keys `(batch, time, ...)`."""
    if cache.place is None:
        return
    batch, *features = key.shape[0], *key.shape[2:]
    other = cache.key is not None and [cache.key.shape[1], cache.key.shape[3]] != features
    if cache.place.shape != (batch,) or other:
        has = f"for a batch of {', '.join(map(str, cache.place.shape))}"
        has += "" if cache.key is None else f" with keys {cache.key.shape}"
        raise NetError(f"expects a carry for a batch of {batch} with {key.shape}, got one {has}; start with None")


def extended(cache: Cache, key: jax.Array, value: jax.Array, steps: jax.Array) -> Cache:
    """Write keys and values behind those of a cache, `steps` `(batch,)` of them real, and count these.

    Raises:
        NetError: for a capacity that is less than the number of new steps.
    """
    batch, time = key.shape[:2]
    if time > cache.key.shape[2]:
        hint = "jn.decoding.grow(carry, steps) makes room"
        raise NetError(f"has room for {cache.key.shape[2]} steps in its carry, got {time} more; {hint}")
    rows = jnp.arange(batch)[:, None]
    # (batch, time): where each step goes; padding that would be behind the end is dropped.
    index = steps_from(cache.place, time)

    def written(old: jax.Array, new: jax.Array) -> jax.Array:
        # Indices around a slice come first: (batch, time, kv_heads, width), as `new` is.
        return old.at[rows, :, index].set(new.astype(old.dtype), mode="drop", unique_indices=True)

    # Written once: without the barrier, XLA writes a copy for the products and another one for the carry.
    both = jax.lax.optimization_barrier((written(cache.key, key), written(cache.value, value)))
    return Cache(cache.place + steps, *both)


def steps_from(offset: Any, time: int) -> jax.Array:
    """Return the numbers of `time` steps after `offset`, an integer or integers `(batch,)`: `(batch or 1, time)`."""
    return jnp.reshape(jnp.asarray(offset, jnp.int32), (-1, 1)) + jnp.arange(time, dtype=jnp.int32)[None]


def real_steps(values: jax.Array, lengths: Any) -> jax.Array:
    """Return the number of real steps of each example of `(batch, time, ...)`, `(batch,)` int32."""
    return jnp.full(values.shape[0], values.shape[1], jnp.int32) if lengths is None else jnp.asarray(lengths, jnp.int32)


def grow(carry: Any, steps: int) -> Any:
    """Return a carry with a larger capacity, for more steps.

    The carry of `jn.cached` has the capacity of the one it got, at first the number of steps read. A loop under
    `jax.jit` can't change it.

    Args:
        carry: any carry; that of a recurrent network is returned unchanged.
        steps: how many steps to add to the capacity, at least 0.

    Raises:
        NetError: for `steps` < 0.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.cached(jn.attention(8, heads=2, causal=True)), jnp.ones((1, 3, 8))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> (y, carry), _ = net.apply(params, state, (x, None))
    >>> carry["mix"]["cache"].key.shape, grow(carry, 5)["mix"]["cache"].key.shape
    ((1, 2, 3, 4), (1, 2, 8, 4))
    """
    if is_traced(steps):
        raise NetError("expects a known number of steps, got a traced one: the size of a carry can't be traced")
    if isinstance(steps, bool) or not hasattr(steps, "__index__") or steps < 0:
        raise NetError(f"expects an integer ≥ 0 for steps, got {shown(steps)}")

    def one(each: Any) -> Any:
        return _with_room(each, each.key.shape[-2] + steps) if type(each) is Cache and each.key is not None else each

    return jax.tree.map(one, carry, is_leaf=_is_cache)


def doubled(carry: Any, time: int) -> Any:
    """Return a carry with at least twice the capacity where `time` more steps are known not to fit."""

    def one(each: Any) -> Any:
        if type(each) is not Cache or each.key is None or (read := known(each.place)) is None or not read.size:
            return each
        capacity, needed = each.key.shape[-2], int(read.max()) + time
        return each if needed <= capacity else _with_room(each, max(needed, 2 * capacity))

    return jax.tree.map(one, carry, is_leaf=_is_cache)


def take_rows(carry: Any, rows: jax.Array) -> Any:
    """Return the carry of some examples of the batch, `rows` `(new batch,)`; an example may be taken several times."""

    def one(each: Any) -> Any:
        if not isinstance(each, Cache):
            return each[rows]
        # Caches of `repeat` have further axes in front.
        key, value = (None if leaf is None else jnp.take(leaf, rows, -4) for leaf in (each.key, each.value))
        return type(each)(jnp.take(each.place, rows, -1), key, value)

    return jax.tree.map(one, carry, is_leaf=_is_cache)


def batch_of(carry: Any) -> int:
    """Return the number of examples of a carry."""
    first = jax.tree.leaves(carry, is_leaf=_is_cache)[0]
    return first.place.shape[-1] if isinstance(first, Cache) else first.shape[0]


def merged(state: Any, carry: Any) -> Any:
    """Return the state of a network with the caches of a carry in it."""
    both = dict(state)
    for name, each in carry.items():
        both[name] = each if isinstance(each, Cache) else merged(state.get(name, {}), each)
    return both


def parted(both: Any) -> tuple[Any, Any]:
    """Return the state of a network without caches, and the carry: the inverse of `merged`."""
    state, carry = {}, {}
    for name, each in both.items():
        if isinstance(each, Cache):
            carry[name] = each
        elif isinstance(each, Mapping):
            inner, caches = parted(each)
            state |= {name: inner} if inner else {}
            carry |= {name: caches} if caches else {}
        else:
            state[name] = each
    return state, carry


def _with_room(cache: Cache, capacity: int) -> Cache:
    # Steps that found no room are lost: NaN stands for them, also where there is room again.
    lost = (cache.place > cache.key.shape[-2])[..., None, None, None]

    def padded(leaf: jax.Array) -> jax.Array:
        shape = (*leaf.shape[:-2], capacity - leaf.shape[-2], leaf.shape[-1])
        more = jnp.where(lost, jnp.nan, 0).astype(leaf.dtype)
        return jnp.concatenate([leaf, jnp.broadcast_to(more, shape)], -2)

    return Cache(cache.place, padded(cache.key), padded(cache.value))


def _is_cache(each: Any) -> bool:
    return isinstance(each, Cache)
