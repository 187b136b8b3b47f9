"""Sums over data of any size, as pairs of floating-point numbers: the second is the rounding error of the first.

Counts are exact up to 2⁴⁶ items in float32 without x64, where a single float32 is exact up to 2²⁴; sums of real numbers
have a relative error of about 2⁻⁴⁶.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

PLAIN_ITEMS = 512
"""Up to this many items are summed without pairs: counts stay exact, and errors accumulate only over batches."""

BITS, LIMBS = 11, 3
"""A weight is split into `LIMBS` integers of `BITS` bits."""

BLOCK = 2**19
"""Number of limbs whose sum int32 holds: each is at most 2¹¹."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sum:
    """A sum as the unevaluated sum of two arrays.

    Attributes:
        high: the sum rounded to its dtype.
        low: the rounding error, the exact sum minus `high`.
    """

    high: Any
    low: Any

    @property
    def value(self) -> jax.Array:
        """The sum as one array, rounded once."""
        return self.high + self.low

    def __add__(self, other: "Sum") -> "Sum":
        return _plus(self, other)


@jax.jit
def total(values: jax.Array, weights: jax.Array | None = None) -> Sum:
    """Return Σ w v over the first axis of values `(items, ...)`; items of weight 0 do not count, even if NaN."""
    if weights is not None:
        # (items, 1, ...)
        spread = weights.astype(values.dtype).reshape(weights.shape + (1,) * (values.ndim - 1))
        # Not 0 · v, which would keep NaN.
        values = jnp.where(spread == 0, 0, spread * values)
    return Sum(*_total(values))


@partial(jax.jit, static_argnames="shape")
def counts(indices: tuple[jax.Array, ...], weights: jax.Array, shape: tuple[int, ...]) -> Sum:
    """Return a histogram: the sum of the weights at each position of an array.

    Args:
        indices: an index `(items,)` for each axis of `shape`; items outside are dropped.
        weights: `(items,)`, floating, ≥ 0, counted in units of 2⁻³³ of the largest (float64 is summed directly).
        shape: the shape of the result.
    """
    return Sum(*_counts(shape, weights, *indices))


def as_sum(leaf: Any) -> Any:
    """Return a floating or integer array as a `Sum`; leave a `Sum` and booleans unchanged."""
    if isinstance(leaf, Sum):
        return leaf
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        wide = leaf if leaf.dtype.itemsize >= 4 else leaf.astype(jnp.float32)
        return Sum(wide, jnp.zeros_like(wide))
    return _of_integers(leaf) if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf


def rounded(leaf: Any) -> Any:
    """Return a `Sum` as one array; leave anything else unchanged."""
    return leaf.value if isinstance(leaf, Sum) else leaf


def add(a: Any, b: Any) -> Any:
    """Add two pytrees of sums leaf by leaf."""
    return jax.tree.map(lambda x, y: x + y, a, b, is_leaf=lambda leaf: isinstance(leaf, Sum))


@jax.jit
def _plus(a: Sum, b: Sum) -> Sum:
    return Sum(*_add((a.high, a.low), (b.high, b.low)))


def _two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a + b rounded, and its rounding error: Knuth's TwoSum, which XLA does not rearrange."""
    total = a + b
    rest = total - a
    # The error of an infinite total would be ∞ - ∞.
    return total, jnp.where(jnp.isfinite(total), (a - (total - rest)) + (b - rest), 0)


def _add(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    """Add pairs as in Joldes, Muller and Popescu, "Tight and Rigorous Error Bounds..." (2017), algorithm 6."""
    high, low = _two_sum(a[0], b[0])
    middle, least = _two_sum(a[1], b[1])
    high, low = _two_sum(high, low + middle)
    return _two_sum(high, low + least)


@jax.custom_jvp
def _total(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    if len(values) <= PLAIN_ITEMS:
        plain = values.sum(axis=0)
        return plain, jnp.zeros_like(plain)
    # Pairwise summation of halves: `lax.reduce` of pairs gave a wrong sum on CPU at XLA's optimization level 1.
    high, low = values, jnp.zeros_like(values)
    # Each iteration adds the two halves; an odd last item is kept for the next one.
    while (items := len(high)) > 1:
        half, odd = items // 2, items % 2
        first, second = ((high[k * half :][:half], low[k * half :][:half]) for k in range(2))
        rest = high[items - odd :], low[items - odd :]
        high, low = (jnp.concatenate(pair) if odd else pair[0] for pair in zip(_add(first, second), rest))
    return high[0], low[0]


@_total.defjvp
def _total_jvp(primals: Any, tangents: Any) -> Any:
    # A sum is linear; its rounding error has no derivative.
    tangent = tangents[0].sum(axis=0)
    return _total(*primals), (tangent, jnp.zeros_like(tangent))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _counts(shape: tuple[int, ...], weights: jax.Array, *indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    if weights.dtype == jnp.float64:
        plain = _scattered(shape, weights, indices)
        return plain, jnp.zeros_like(plain)
    # Split each weight into integers of 11 bits, which int32 sums exactly: w = s Σ_k n_k 2^(-11 k), with a power of
    # two s > w.
    largest = weights.max(initial=0)
    scale = jnp.ldexp(jnp.ones((), weights.dtype), jnp.frexp(largest)[1])
    # In [0, 1); removing 11 bits at a time is exact.
    rest, limbs = weights / scale, []
    for number in range(LIMBS):
        rest = rest * 2**BITS
        limbs.append(jnp.floor(rest) if number + 1 < LIMBS else jnp.round(rest))
        rest = rest - limbs[-1]
    # (items, limbs)
    numbers = jnp.stack(limbs, axis=-1).astype(jnp.int32)

    def block(numbers: jax.Array, indices: tuple[jax.Array, ...]) -> Sum:
        return _of_integers(jnp.zeros((*shape, LIMBS), jnp.int32).at[indices].add(numbers, mode="drop"))

    # int32 would overflow beyond one block, so the sums of blocks are added as pairs.
    blocks = -(-len(weights) // BLOCK)
    if blocks > 1:
        missing = blocks * BLOCK - len(weights)
        # Padding adds 0 to the first position.
        parts = jax.tree.map(
            lambda x: jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1)).reshape(blocks, BLOCK, *x.shape[1:]),
            (numbers, indices),
        )
        empty = jnp.zeros((*shape, LIMBS), weights.dtype)
        sums, _ = jax.lax.scan(lambda sums, part: (sums + block(*part), None), Sum(empty, empty), parts)
    else:
        sums = block(numbers, indices)
    # s · 2^(−11 k): a power of two for each limb
    units = scale * jnp.asarray([2.0 ** (-BITS * (limb + 1)) for limb in range(LIMBS)], weights.dtype)
    first, *others = (Sum(sums.high[..., k] * units[k], sums.low[..., k] * units[k]) for k in range(LIMBS))
    whole = sum(others, start=first)
    # Splitting is wrong for negative and non-finite weights, so return NaN.
    valid = jnp.isfinite(largest) & (weights >= 0).all()
    return jnp.where(valid, whole.high, jnp.nan), whole.low


@_counts.defjvp
def _counts_jvp(shape: tuple[int, ...], primals: Any, tangents: Any) -> Any:
    tangent = _scattered(shape, tangents[0], primals[1:])
    return _counts(shape, *primals), (tangent, jnp.zeros_like(tangent))


def _scattered(shape: tuple[int, ...], weights: jax.Array, indices: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.zeros(shape, weights.dtype).at[indices].add(weights, mode="drop")


def _of_integers(numbers: jax.Array) -> Sum:
    """Return integers as sums of their upper and lower bits, each of which is exact in float32."""
    real = jnp.float64 if numbers.dtype.itemsize > 4 else jnp.float32
    lower = numbers & jnp.asarray(2**12 - 1, numbers.dtype)
    return Sum(*_two_sum((numbers - lower).astype(real), lower.astype(real)))
