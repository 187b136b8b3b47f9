"""Sums over data of any size: a pair of floating numbers each, of which the second has what the first rounds off.

Counts are exact up to 2⁴⁶ items in float32 without x64, where a single float32 stops at 2²⁴; sums of real numbers have
a relative error of about 2⁻⁴⁶.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

BLOCK = 2**19  # items of up to 2¹¹ units each that int32 can count
BITS = 11  # of a weight in each of its LIMBS
LIMBS = 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sum:
    """A sum as the unevaluated sum of two arrays; zeros are no items.

    Attributes:
        high: the sum rounded to its dtype.
        low: what that lacks.
    """

    high: Any
    low: Any

    @property
    def value(self) -> jax.Array:
        """The sum as one array, rounded once."""
        return self.high + self.low

    def __add__(self, other: "Sum") -> "Sum":
        return _plus(self, other)


SHORT = 512
"""Up to so many items are summed plainly: counts stay exact, and only the sums of batches pile up."""


@jax.jit
def total(values: jax.Array, weights: jax.Array | None = None) -> Sum:
    """Return Σ w v of values `(items, ...)` along the first axis; what has weight 0 counts for nothing, NaN neither."""
    if weights is not None:
        spread = weights.astype(values.dtype).reshape(weights.shape + (1,) * (values.ndim - 1))
        values = jnp.where(spread == 0, 0, spread * values)
    return Sum(*_total(values))


@partial(jax.jit, static_argnames="shape")
def counts(places: tuple[jax.Array, ...], weights: jax.Array, shape: tuple[int, ...]) -> Sum:
    """Return the sum of the weights at each place of an array of a shape.

    Args:
        places: an index `(items,)` for each axis of `shape`; what lies outside counts nowhere.
        weights: `(items,)`, floating, ≥ 0. They are counted in units of 2⁻³³ of the greatest (in float64, as they are).
        shape: that of the result.
    """
    return Sum(*_counts(shape, weights, *places))


def as_sum(leaf: Any) -> Any:
    """Return a floating or integer array as a `Sum`; a `Sum`, or booleans, as they are."""
    if isinstance(leaf, Sum):
        return leaf
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        wide = leaf if leaf.dtype.itemsize >= 4 else leaf.astype(jnp.float32)
        return Sum(wide, jnp.zeros_like(wide))
    return _of_integers(leaf) if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf


def rounded(leaf: Any) -> Any:
    """Return a `Sum` as one array; anything else as it is."""
    return leaf.value if isinstance(leaf, Sum) else leaf


def add(a: Any, b: Any) -> Any:
    """Return two pytrees of sums added leaf by leaf."""
    return jax.tree.map(lambda x, y: x + y, a, b, is_leaf=lambda leaf: isinstance(leaf, Sum))


@jax.jit
def _plus(a: Sum, b: Sum) -> Sum:
    return Sum(*_add((a.high, a.low), (b.high, b.low)))


def _two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a + b rounded, and what rounding took: Knuth's TwoSum, which XLA does not rearrange."""
    total = a + b
    rest = total - a
    return total, jnp.where(jnp.isfinite(total), (a - (total - rest)) + (b - rest), 0)  # not ∞ - ∞


def _add(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    """Add pairs as in Joldes, Muller and Popescu, "Tight and Rigorous Error Bounds..." (2017), algorithm 6."""
    high, low = _two_sum(a[0], b[0])
    middle, least = _two_sum(a[1], b[1])
    high, low = _two_sum(high, low + middle)
    return _two_sum(high, low + least)


@jax.custom_jvp
def _total(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    if len(values) <= SHORT:
        plain = values.sum(axis=0)
        return plain, jnp.zeros_like(plain)
    # Halves are added in turn: XLA's reduce of pairs gave a wrong sum on CPU at its optimization level 1.
    high, low = values, jnp.zeros_like(values)
    while (items := len(high)) > 1:
        half, odd = items // 2, items % 2
        first, second = ((high[k * half :][:half], low[k * half :][:half]) for k in range(2))
        rest = high[items - odd :], low[items - odd :]
        high, low = (jnp.concatenate(pair) if odd else pair[0] for pair in zip(_add(first, second), rest))
    return high[0], low[0]


@_total.defjvp
def _total_jvp(primals: Any, tangents: Any) -> Any:
    tangent = tangents[0].sum(axis=0)  # a sum is linear; what it rounds off has no derivative
    return _total(*primals), (tangent, jnp.zeros_like(tangent))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _counts(shape: tuple[int, ...], weights: jax.Array, *places: jax.Array) -> tuple[jax.Array, jax.Array]:
    if weights.dtype == jnp.float64:
        found = _scattered(shape, weights, places)
        return found, jnp.zeros_like(found)
    # Each weight as integers of 11 bits, which int32 adds up exactly: w = s Σ_k n_k 2^(-11 k), s a power of two > w.
    largest = weights.max(initial=0)
    scale = jnp.ldexp(jnp.ones((), weights.dtype), jnp.frexp(largest)[1])
    rest, limbs = weights / scale, []
    for number in range(LIMBS):
        rest = rest * 2**BITS
        limbs.append(jnp.floor(rest) if number + 1 < LIMBS else jnp.round(rest))
        rest = rest - limbs[-1]
    numbers = jnp.stack(limbs, axis=-1).astype(jnp.int32)  # (items, limbs)

    def block(numbers: jax.Array, places: tuple[jax.Array, ...]) -> Sum:
        return _of_integers(jnp.zeros((*shape, LIMBS), jnp.int32).at[places].add(numbers, mode="drop"))

    blocks = -(-len(weights) // BLOCK)
    if blocks > 1:
        missing = blocks * BLOCK - len(weights)
        parts = jax.tree.map(
            lambda x: jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1)).reshape(blocks, BLOCK, *x.shape[1:]),
            (numbers, places),
        )
        empty = jnp.zeros((*shape, LIMBS), weights.dtype)
        sums, _ = jax.lax.scan(lambda sums, part: (sums + block(*part), None), Sum(empty, empty), parts)
    else:
        sums = block(numbers, places)
    units = scale * jnp.asarray([2.0 ** (-BITS * (limb + 1)) for limb in range(LIMBS)], weights.dtype)
    first, *others = (Sum(sums.high[..., k] * units[k], sums.low[..., k] * units[k]) for k in range(LIMBS))
    whole = sum(others, start=first)
    sound = jnp.isfinite(largest) & (weights >= 0).all()
    return jnp.where(sound, whole.high, jnp.nan), whole.low


@_counts.defjvp
def _counts_jvp(shape: tuple[int, ...], primals: Any, tangents: Any) -> Any:
    tangent = _scattered(shape, tangents[0], primals[1:])
    return _counts(shape, *primals), (tangent, jnp.zeros_like(tangent))


def _scattered(shape: tuple[int, ...], weights: jax.Array, places: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.zeros(shape, weights.dtype).at[places].add(weights, mode="drop")


def _of_integers(numbers: jax.Array) -> Sum:
    """Return integers as sums: their upper and lower bits, each of which float32 holds."""
    real = jnp.float64 if numbers.dtype.itemsize > 4 else jnp.float32
    lower = numbers & jnp.asarray(2**12 - 1, numbers.dtype)
    return Sum(*_two_sum((numbers - lower).astype(real), lower.astype(real)))
