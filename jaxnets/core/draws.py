"""Draw the initial values of a deep network in one compiled loop.

XLA takes 0.1 to 0.2 s to compile a normal draw, once for each shape: seconds for a ResNet. But value i of a draw
depends only on its key and on i (JAX's threefry hashes a counter), so one loop over pieces of equal length computes
the same bits.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal
from jax.extend.random import define_prng_impl, threefry_2x32

from jaxnets.core.errors import is_traced
from jaxnets.tracing import jaxprs

PIECE = 2**14
"""Values that one iteration of the loop draws."""

LARGEST = 2**28
"""The most values drawn by a loop: for a moment they are held twice, on one device."""

DRAWS: dict[str, Callable[..., jax.Array]] = {
    "_normal": jax.random.normal,
    "_truncated_normal": jax.random.truncated_normal,
    "_uniform": lambda key, low, high, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, low, high),
}
"""JAX's draws by the name of their jitted function. JAX 0.12 computes a normal draw as erf⁻¹ of a uniform one."""

Kind = tuple[str, tuple[Any, ...], bool]
"""A draw's name, its bounds, and whether erf⁻¹ is applied to it."""


class _Row(NamedTuple):
    """A row of several arrays that were computed together."""

    arrays: jax.Array
    row: int

    def array(self) -> jax.Array:
        return lax.index_in_dim(self.arrays, self.row, keepdims=False)


class _Draw(NamedTuple):
    """A deferred draw: its kind, key and shape, and the factors that scale it one after another."""

    kind: Kind
    key: jax.Array
    shape: tuple[int, ...]
    factors: tuple[Any, ...] = ()


def draw_together(make: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    """Return `make(key)`, a pytree of arrays, with its random draws computed together.

    >>> def make(key):
    ...     return [jax.random.normal(each, (2, 3)) * 0.5 for each in jax.random.split(key, 9)]
    >>> key = jax.random.key(0)
    >>> bool((draw_together(make, key)[4] == make(key)[4]).all())
    True
    """
    if not _counts_up(key):
        return make(key)
    try:
        program, shapes = jax.make_jaxpr(make, return_shape=True)(key)
    except jax.errors.ConcretizationTypeError:  # a custom layer reads the value of its key
        return make(key)
    jaxpr, body_of_draw = program.jaxpr, cache(_body_of_draw)
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, key), strict=True))

    def read(atoms: Sequence[Any]) -> list[Any]:
        return [atom.val if isinstance(atom, Literal) else values.get(atom) for atom in atoms]

    # First everything that depends on no draw, above all the keys. Inside a trace, XLA would compile a loop for each
    # fold of a key, so equal operations on keys are computed together, and what depends on them in the next round.
    rest = [*jaxpr.eqns]
    while True:
        eqns, rest, alike = rest, [], defaultdict(list)
        for eqn in eqns:
            operands = read(eqn.invars)
            if any(each is None or isinstance(each, _Draw) for each in operands):
                rest.append(eqn)
            elif draw := _draw(eqn, operands, body_of_draw):
                values[eqn.outvars[0]] = draw
            elif any(isinstance(each, _Row) for each in operands) or (
                eqn.primitive.name in ("random_fold_in", "random_split") and is_traced(operands[0])
            ):
                alike[eqn.primitive, str(eqn.params), *(str(atom.aval) for atom in eqn.invars)].append(eqn)
            else:
                values.update(zip(eqn.outvars, jaxprs.bind(eqn, *operands), strict=True))
        if not alike:
            break
        for eqns in alike.values():
            stacked = [_stacked(each) for each in zip(*(read(eqn.invars) for eqn in eqns), strict=True)]
            for place, results in enumerate(jax.vmap(partial(jaxprs.bind, eqns[0]))(*stacked)):
                values.update((eqn.outvars[place], _Row(results, row)) for row, eqn in enumerate(eqns))

    # Then the draws, with the factors that scale them, and finally what depends on them.
    last = []
    for eqn in rest:
        if scaled := _changed(eqn, read(eqn.invars)):
            values[eqn.outvars[0]] = scaled
        else:
            last.append(eqn)
    needed = {
        atom: values[atom]
        for atoms in (*(eqn.invars for eqn in last), jaxpr.outvars)
        for atom in atoms
        if not isinstance(atom, Literal) and atom in values
    }
    values |= {atom: value.array() for atom, value in needed.items() if isinstance(value, _Row)}
    draws = {atom: value for atom, value in needed.items() if isinstance(value, _Draw)}
    for kind in dict.fromkeys(draw.kind for draw in draws.values()):
        alike = {atom: draw for atom, draw in draws.items() if draw.kind == kind}
        values.update(zip(alike, _computed(kind, [*alike.values()]), strict=True))
    for eqn in last:
        values.update(zip(eqn.outvars, jaxprs.bind(eqn, *read(eqn.invars)), strict=True))
    return jax.tree.unflatten(jax.tree.structure(shapes), read(jaxpr.outvars))


def _counts_up(key: jax.Array) -> bool:
    """Tell whether value i of a draw depends only on the key and on i."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    partitionable = jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
    return partitionable and key.shape == (() if typed else (2,)) and jax.random.key_impl(key) == "threefry2x32"


def _stacked(values: Sequence[Any]) -> jax.Array:
    """Stack arrays along a new first axis; rows of the same array are gathered at once."""
    rows = [value if isinstance(value, _Row) else _Row(jnp.asarray(value)[None], 0) for value in values]
    arrays = {id(row.arrays): row.arrays for row in rows}
    starts = dict(zip(arrays, itertools.accumulate(map(len, arrays.values()), initial=0)))
    return jnp.concatenate([*arrays.values()])[np.array([starts[id(row.arrays)] + row.row for row in rows])]


def _draw(eqn: Any, operands: Sequence[Any], body_of_draw: Callable[..., Any]) -> _Draw | None:
    """Return an operation as a deferred draw, `None` if it is not one of JAX's float32 draws."""
    name, out = jaxprs.called(eqn), eqn.outvars[0].aval
    # A draw by a single threefry key, with known bounds
    if name not in DRAWS or str(eqn.invars[0].aval.dtype) != "key<fry>" or eqn.invars[0].aval.shape != ():
        return None
    if out.dtype != jnp.float32 or not out.size or not all(isinstance(bound, Literal) for bound in eqn.invars[1:]):
        return None
    # As they were written: a Python number is weakly typed, which changes the compiled function.
    bounds = [np.asarray(bound)[()] for bound in operands[1:]]
    bounds = (
        value.item() if atom.aval.weak_type else value for atom, value in zip(eqn.invars[1:], bounds, strict=True)
    )
    kind = name, tuple(bounds), False
    # Another function may have the same name.
    return _Draw(kind, operands[0], out.shape) if body_of_draw(kind, out.shape) is jaxprs.body_of(eqn) else None


def _body_of_draw(kind: Kind, shape: tuple[int, ...]) -> Any:
    """Return the jaxpr inside JAX's own draw; JAX traces it once for each shape, and returns the same object."""
    name, bounds, _ = kind
    draw = partial(DRAWS[name], shape=shape, dtype=jnp.float32)
    # The last equation calls the draw.
    (eqn, *_) = jax.make_jaxpr(lambda key: draw(key, *bounds))(jax.random.key(0)).eqns[-1:]
    return jaxprs.body_of(eqn)


def _changed(eqn: Any, operands: Sequence[Any]) -> _Draw | None:
    """Return erf⁻¹ of a draw, or its product with a number, as a deferred draw; `None` for any other operation."""
    if eqn.primitive.name == "erf_inv" and isinstance(operands[0], _Draw) and not operands[0].factors:
        return operands[0]._replace(kind=(*operands[0].kind[:2], True))
    if eqn.primitive.name == "mul":
        for one, other in (operands, operands[::-1]):
            if isinstance(one, _Draw) and not isinstance(other, _Draw | None) and np.ndim(other) == 0:
                return one._replace(factors=(*one.factors, other))
    return None


def _computed(kind: Kind, draws: Sequence[_Draw]) -> list[Any]:
    """Return the values of draws of one kind."""
    sizes = [math.prod(draw.shape) for draw in draws]
    # A single draw has no other to share a compilation with, and too many values would not fit in memory twice.
    if len(draws) == 1 or sum(sizes) > LARGEST:
        return [
            math.prod(
                draw.factors,
                start=_drawn(kind, draw.key.array() if isinstance(draw.key, _Row) else draw.key, draw.shape),
            )
            for draw in draws
        ]
    # Each draw takes whole pieces; the rest of its last one is dropped.
    pieces = [-(-size // PIECE) for size in sizes]
    # For each piece, the number of its draw and of the first value to draw: (pieces,) each
    rows = np.repeat(np.arange(len(draws)), pieces)
    starts = np.concatenate([np.arange(n, dtype=np.uint32) * np.uint32(PIECE) for n in pieces])
    # (pieces, PIECE)
    flat = _in_pieces(kind, jax.random.key_data(_stacked([draw.key for draw in draws])), rows, starts)
    # NumPy slices and scales known values: XLA would compile that for each shape.
    host = flat if is_traced(flat) else jax.device_get(flat)
    arrays = []
    for draw, size, n, end in zip(draws, sizes, pieces, np.cumsum(pieces).tolist(), strict=True):
        # Scaled outside of the loop: inside, XLA would merge the factor with the distribution's, and round differently.
        values = host[end - n : end].reshape(-1)[:size].reshape(draw.shape)
        factors = draw.factors if is_traced(flat) else map(np.float32, draw.factors)
        arrays.append(math.prod(factors, start=values))
    return arrays if is_traced(flat) else jax.device_put(arrays, flat.sharding if flat.committed else None)


@partial(jax.jit, static_argnums=0)
def _in_pieces(kind: Kind, keys: jax.Array, rows: Any, starts: Any) -> jax.Array:
    """Return pieces of draws `(pieces, PIECE)`: piece i is drawn by the key `rows[i]`, from value `starts[i]` on."""

    def one(piece: tuple[jax.Array, jax.Array]) -> jax.Array:
        key, start = piece
        # A key of `_FROM`: a threefry key, and the counter at which to begin.
        key = jax.random.wrap_key_data(jnp.append(key, start), impl=_FROM)
        return _drawn(kind, key, (PIECE,))

    return lax.map(one, (keys[rows], starts))


def _drawn(kind: Kind, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    name, bounds, inverted = kind
    values = DRAWS[name](key, *bounds, shape=shape, dtype=jnp.float32)
    return lax.erf_inv(values) if inverted else values


def _bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    """Return the random bits of a threefry key, with a counter that begins at its third number."""
    # As JAX does for a 64-bit count below 2³²: its high word is zero.
    low = key[2] + lax.iota(jnp.uint32, math.prod(shape))
    high, low = jnp.split(threefry_2x32(key[:2], jnp.concatenate([jnp.zeros_like(low), low])), 2)
    return (high ^ low).reshape(shape)


def _none(*_: Any) -> Any:
    raise NotImplementedError  # a piece's key is drawn from once, never split


_FROM = define_prng_impl(
    key_shape=(3,), seed=_none, split=_none, fold_in=_none, random_bits=_bits, name="threefry_from", tag="from"
)
"""A generator whose keys hold a threefry key and the counter at which to begin."""
