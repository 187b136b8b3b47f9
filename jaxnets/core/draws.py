"""Initial values of deep networks drawn by one program, where each shape would take one of its own.

A normal draw takes the compiler 0.1 to 0.2 s for each shape, under `jit` for each array: seconds for a ResNet, and a
large part of a minute for `jit(net.init)`. But value i of a draw is a function of its key and of i alone (JAX counts
threefry up), so that all draws of a kind are pieces of equal length of one loop, bit for bit as they were.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.extend.random import define_prng_impl, threefry_2x32

from jaxnets.core.errors import is_traced
from jaxnets.tracing import jaxprs

ENOUGH = 8
"""How many draws of a kind are gathered: fewer compile about as fast one by one."""

LARGEST = 2**28
"""Up to how many values are gathered; they are held twice for a moment, and on one device."""

PIECE = 2**14
"""The longest piece."""

DRAWS: dict[str, Callable[..., jax.Array]] = {
    "_normal": jax.random.normal,
    "_truncated_normal": jax.random.truncated_normal,
}
"""Draws by the name of their compiled function."""


def gathered(make: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    """Return `make(key)`, a pytree of arrays, its normal draws computed together.

    >>> def make(key):
    ...     return [jax.random.normal(each, (2, 3)) * 0.5 for each in jax.random.split(key, 9)]
    >>> key = jax.random.key(0)
    >>> bool((gathered(make, key)[4] == make(key)[4]).all())
    True
    """
    if not _counts_up(key):
        return make(key)
    try:
        program, shapes = jax.make_jaxpr(make, return_shape=True)(key)
    except jax.errors.ConcretizationTypeError:  # somebody's layer looks at the key
        return make(key)
    return jax.tree.unflatten(jax.tree.structure(shapes), _evaluate(program, key))


def _counts_up(key: jax.Array) -> bool:
    """Tell whether value i of a draw by a key is a function of the key and of i."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    partitionable = jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
    return partitionable and key.shape == (() if typed else (2,)) and jax.random.key_impl(key) == "threefry2x32"


class _Draw(NamedTuple):
    """A draw put off: where its key stands, its kind, where its values go, and what they are multiplied by."""

    row: int
    kind: tuple[str, tuple[Any, ...]]
    var: Any
    scale: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.var.aval.shape


class _Keys:
    """The keys of a program as rows of one table. A split is a fold by 0, 1, …, so that one loop derives them all."""

    def __init__(self, var: Any) -> None:
        self.rows = {var: np.zeros((), int)}
        self.levels: list[tuple[list[int], list[int]]] = []  # each key's parent, and what is folded into that
        self.size = 1

    def follow(self, eqns: Sequence[Any]) -> list[Any]:
        """Enter what keys, or slices of several, are derived by operations; return the operations that do else."""
        level, rest = ([], []), []
        for eqn in eqns:
            name, rows, (out,) = eqn.primitive.name, self.rows[eqn.invars[0]], eqn.outvars[:1]
            if name in ("random_wrap", "random_unwrap"):
                self.rows[out] = rows
            elif name == "slice" and _is_of_rows(eqn):
                params = eqn.params
                self.rows[out] = rows[params["start_indices"][0] : params["limit_indices"][0]]
            elif name == "squeeze":
                self.rows[out] = rows.reshape(out.aval.shape[: out.aval.ndim - (out.aval.dtype == jnp.uint32)])
            elif _derives(eqn):
                data = np.arange(out.aval.size) if name == "random_split" else np.array([eqn.invars[1].val])
                self.rows[out] = np.arange(self.size, self.size + data.size).reshape(out.aval.shape)
                self.size += data.size
                level[0].extend([int(rows)] * data.size)
                level[1].extend(data.tolist())
            else:
                rest.append(eqn)
        if level[0]:
            self.levels.append(level)
        return rest

    def table(self, key: jax.Array) -> jax.Array:
        """Return the data of all keys, derived level by level from the first."""
        data = key if key.dtype == jnp.uint32 else jax.random.key_data(key)
        width = max((len(parents) for parents, _ in self.levels), default=0)
        parents = np.zeros((len(self.levels), width), np.int32)
        folded, places = parents.astype(np.uint32), parents + self.size  # what is there to fill up is dropped
        begin = 1
        for place, level in enumerate(self.levels):
            n = len(level[0])
            parents[place, :n], folded[place, :n], places[place, :n] = *level, np.arange(begin, begin + n)
            begin += n
        return _derived(data, parents, folded, places, self.size)


def _has(eqn: Any, rows: dict[Any, Any]) -> bool:
    """Tell whether an operation's first operand is among some."""
    return not isinstance(eqn.invars[0], Literal) and eqn.invars[0] in rows


def _is_of_rows(eqn: Any) -> bool:
    """Tell whether a slice takes neighboring keys whole: those of old style have an axis for their two numbers."""
    typed = jnp.issubdtype(eqn.outvars[0].aval.dtype, jax.dtypes.prng_key)
    whole = eqn.invars[0].aval.shape[1:] == eqn.outvars[0].aval.shape[1:] == (() if typed else (2,))
    return whole and set(eqn.params["strides"] or ()) <= {1}


def _derives(eqn: Any) -> bool:
    """Tell whether an operation folds a literal into a key, or splits a key."""
    if eqn.primitive.name == "random_fold_in":
        return isinstance(eqn.invars[1], Literal) and eqn.outvars[0].aval.shape == ()
    return eqn.primitive.name == "random_split" and eqn.invars[0].aval.shape == ()


def _evaluate(program: ClosedJaxpr, key: jax.Array) -> list[Any]:
    """Evaluate a program operation by operation: what needs no key, the keys, the draws, and the rest."""
    jaxpr = program.jaxpr
    keys = _Keys(jaxpr.invars[0])
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, program.consts))

    def known(atom: Any) -> bool:
        return isinstance(atom, Literal) or atom in values

    def read(atom: Any) -> Any:
        if known(atom):
            return atom.val if isinstance(atom, Literal) else values[atom]
        data = table[keys.rows[atom]]
        return data if atom.aval.dtype == jnp.uint32 else jax.random.wrap_key_data(data, impl="threefry2x32")

    def run(eqn: Any) -> None:
        values.update(zip(eqn.outvars, jaxprs.bind(eqn, *map(read, eqn.invars)), strict=True))

    waiting, uses = _needed(jaxpr)
    before = None
    while len(waiting) != before:
        before, later, derived = len(waiting), [], []
        for eqn in waiting:
            if all(map(known, eqn.invars)):
                run(eqn)
            elif _has(eqn, keys.rows):
                derived.append(eqn)
            else:
                later.append(eqn)
        left = {id(eqn) for eqn in (*later, *keys.follow(derived))}
        waiting = [eqn for eqn in waiting if id(eqn) in left]  # in their order
    table = keys.table(key)
    draws = {
        eqn.outvars[0]: _Draw(int(keys.rows[eqn.invars[0]]), _kind(eqn), eqn.outvars[0], np.float32(1))
        for eqn in _gatherable([eqn for eqn in waiting if _has(eqn, keys.rows)])
    }
    rest = []
    for eqn in waiting:
        drawn, scale = _scaled(eqn, draws, known)
        if drawn is not None and uses[drawn] == 1:
            (var,) = eqn.outvars
            draws[var] = draws.pop(drawn)._replace(var=var, scale=read(scale))
        elif eqn.outvars[0] not in draws:
            rest.append(eqn)
    for kind in dict.fromkeys(draw.kind for draw in draws.values()):
        values |= _drawn(kind, table, [draw for draw in draws.values() if draw.kind == kind])
    for eqn in rest:
        run(eqn)
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Jaxpr) -> tuple[list[Any], Counter[Any]]:
    """Return the operations that an output needs, and how often each value is read."""
    uses = Counter(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(var in uses for var in eqn.outvars):
            kept.append(eqn)
            uses.update(atom for atom in eqn.invars if not isinstance(atom, Literal))
    return kept[::-1], uses


def _gatherable(eqns: Sequence[Any]) -> list[Any]:
    """Return the draws whose values can be computed in pieces, those of a kind where there are enough."""
    own = cache(_own)  # for this program alone: jax.clear_caches() makes JAX trace its draws anew
    found = [eqn for eqn in eqns if jaxprs.called(eqn) in DRAWS and _is_plain(eqn, own)]
    kinds = Counter(map(_kind, found))
    found = [eqn for eqn in found if kinds[_kind(eqn)] >= ENOUGH]
    return found if sum(math.prod(eqn.outvars[0].aval.shape) for eqn in found) <= LARGEST else []


def _is_plain(eqn: Any, own: Callable[..., Any]) -> bool:
    """Tell whether an operation is JAX's own draw by a threefry key, and not another of the same name."""
    key, out = eqn.invars[0].aval, eqn.outvars[0].aval
    bounds = eqn.invars[1:]
    if not (str(key.dtype) == "key<fry>" and key.shape == () and out.dtype == jnp.float32 and out.size):
        return False
    return all(isinstance(atom, Literal) for atom in bounds) and own(*_kind(eqn), out.shape) is jaxprs.body_of(eqn)


def _own(name: str, bounds: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    """Return the program of JAX's own draw, which is traced once for each shape."""
    draw = partial(DRAWS[name], shape=shape, dtype=jnp.float32)
    (eqn, *_) = jax.make_jaxpr(lambda key: draw(key, *bounds))(jax.random.key(0)).eqns[-1:]
    return jaxprs.body_of(eqn)


def _kind(eqn: Any) -> tuple[str, tuple[Any, ...]]:
    return jaxprs.called(eqn) or "", tuple(np.asarray(atom.val).item() for atom in eqn.invars[1:])


def _scaled(eqn: Any, draws: dict[Any, _Draw], known: Callable[[Any], bool]) -> tuple[Any, Any]:
    """Return a draw and the number that it is multiplied by, `None` twice for anything else."""
    if eqn.primitive.name == "mul":
        for one, other in (eqn.invars, eqn.invars[::-1]):
            if not isinstance(one, Literal) and one in draws and known(other) and other.aval.shape == ():
                return one, other
    return None, None


def _drawn(kind: tuple[str, tuple[Any, ...]], table: jax.Array, draws: list[_Draw]) -> dict[Any, jax.Array]:
    """Return the values of draws of one kind."""
    sizes = [math.prod(draw.shape) for draw in draws]
    length = _length(sizes)
    pieces = [-(-size // length) for size in sizes]
    starts = np.concatenate([np.arange(n, dtype=np.uint32) * np.uint32(length) for n in pieces])
    flat = _in_pieces(kind, length, table, np.repeat([draw.row for draw in draws], pieces), starts)
    cuts = [*zip(draws, (np.cumsum([0, *pieces[:-1]]) * length).tolist())]
    if is_traced(flat):
        return {draw.var: _cut(flat, place, draw.scale, draw.shape) for draw, place in cuts}
    # Known values are cut by NumPy, which has nothing to compile, and put back where they were.
    host, sharding = jax.device_get(flat), flat.sharding if flat.committed else None
    parts = ((draw.var, _cut(host, place, np.float32(draw.scale), draw.shape)) for draw, place in cuts)
    return {var: jax.device_put(part, sharding) for var, part in parts}


def _length(sizes: Sequence[int]) -> int:
    """Return the longest piece with which at most a quarter more than needed is drawn."""
    length = PIECE
    while length > 1 and sum(-(-size // length) * length for size in sizes) > 1.25 * sum(sizes):
        length //= 2
    return length


@partial(jax.jit, static_argnames=("kind", "length"))
def _in_pieces(kind: tuple[str, tuple[Any, ...]], length: int, table: Any, rows: Any, starts: Any) -> jax.Array:
    """Return draws one behind the other: piece i is that of the key in `rows[i]` from the value `starts[i]` on."""
    name, bounds = kind

    def one(piece: tuple[jax.Array, jax.Array]) -> jax.Array:
        data, start = piece
        key = jax.random.wrap_key_data(jnp.append(data, start), impl=_FROM)
        return DRAWS[name](key, *bounds, shape=(length,), dtype=jnp.float32)

    return lax.map(one, (table[rows], starts)).ravel()


def _cut(flat: Any, place: int, scale: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return one draw, scaled; out of the loop, where the factor would be merged with that of the distribution."""
    return flat[place : place + math.prod(shape)].reshape(shape) * scale


@partial(jax.jit, static_argnames="size")
def _derived(key: jax.Array, parents: Any, folded: Any, places: Any, size: int) -> jax.Array:
    """Return the data of so many keys, from that of the first."""

    def level(table: jax.Array, rows: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        parents, folded, places = rows
        keys = jax.random.wrap_key_data(table[parents], impl="threefry2x32")
        derived = jax.vmap(jax.random.fold_in)(keys, folded)
        return table.at[places].set(jax.random.key_data(derived), mode="drop"), None

    table = jnp.zeros((size, 2), jnp.uint32).at[0].set(key)
    return lax.scan(level, table, (parents, folded, places))[0]


def _bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    """Return the random bits of a threefry key, from the place on that is its third number."""
    low = key[2] + lax.iota(jnp.uint32, math.prod(shape))
    high, low = jnp.split(threefry_2x32(key[:2], jnp.concatenate([jnp.zeros_like(low), low])), 2)
    return (high ^ low).reshape(shape)


def _none(*_: Any) -> Any:
    raise NotImplementedError  # these keys are made, drawn from once, and never handed out: nothing splits them


_FROM = define_prng_impl(
    key_shape=(3,), seed=_none, split=_none, fold_in=_none, random_bits=_bits, name="threefry_from", tag="from"
)
