"""Random permutations, the bits of `jax.random.permutation`, by sorts of one array.

JAX sorts places by random keys, keys and places together, and again until the keys of all sorts tell all places apart.
On CPU XLA sorts several arrays by a comparison that is called for each pair, and one array in a fraction of the time.
So each place is written into the low bits of its key, and one array is sorted: by the high bits, where these are equal
by the place. What is out of order then are neighbors with equal high bits, few of them. They are exchanged, odd pairs
and even pairs in turn, until the whole keys ascend; equal keys keep the order of their places, as in a stable sort.
"""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LEAST, MOST = 2**10, 2**16
"""From how many places it saves more in epochs than it takes to compile; up to how many: with less than 16 high bits
too many of them are equal."""


def permutation(key: jax.Array, n: int) -> jax.Array:
    """Return the numbers 0 … n - 1 in random order, `(n,)`, integers; as `jax.random.permutation(key, n)`, to the bit.

    >>> key = jax.random.key(0)
    >>> bool((permutation(key, 2000) == jax.random.permutation(key, 2000)).all())
    True
    """
    if not LEAST <= n <= MOST or jax.random.key_impl(key) != "threefry2x32":  # others draw otherwise under `vmap`
        return jax.random.permutation(key, n)
    return lax.platform_dependent(
        key, cpu=lambda key: _permutation(key, n), default=lambda key: jax.random.permutation(key, n)
    )


def _permutation(key: jax.Array, n: int) -> jax.Array:
    rounds = []  # as many as JAX takes
    for _ in range(int(np.ceil(3 * np.log(n) / np.log(np.iinfo(np.uint32).max)))):
        key, own = jax.random.split(key)
        rounds.append(own)
    # Drawn together: a draw of so few words costs what it takes to begin one.
    drawn = jax.vmap(lambda own: jax.random.bits(own, (n,), jnp.uint32))(jnp.stack(rounds))
    return reduce(lambda found, keys: found[order(keys)], drawn, jnp.arange(n))


def order(keys: jax.Array) -> jax.Array:
    """Return the places of uint32 keys, `(n,)` with n ≤ `MOST`, by ascending key; equal ones as they stand.

    >>> print(order(jnp.array([7, 3, 7, 1], jnp.uint32)))
    [3 1 0 2]
    """
    places = jnp.arange(len(keys), dtype=jnp.uint32)
    low = jnp.uint32(max(1, (len(keys) - 1).bit_length()))
    places = lax.sort(((keys >> low) << low) | places, is_stable=False) & ((jnp.uint32(1) << low) - 1)

    def descends(keys: jax.Array) -> jax.Array:
        return keys[:-1] > keys[1:]

    def exchange(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        keys, places, first = state
        swap = descends(keys) & (jnp.arange(len(keys) - 1) % 2 == first)
        ahead, behind = jnp.pad(swap, (0, 1)), jnp.pad(swap, (1, 0))
        keys, places = (
            jnp.where(ahead, jnp.roll(each, -1), jnp.where(behind, jnp.roll(each, 1), each)) for each in (keys, places)
        )
        return keys, places, 1 - first

    start = keys[places], places, jnp.zeros((), int)
    return lax.while_loop(lambda state: descends(state[0]).any(), exchange, start)[1].astype(jnp.int32)
