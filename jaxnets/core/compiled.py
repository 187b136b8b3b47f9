"""A bounded cache of compiled functions, which are dropped with the objects they were compiled for."""

import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import Any

import jax
import numpy as np

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import is_traced
from jaxnets.tracing.jaxprs import primitives

CAPACITY = 16
"""The most functions in the cache: each holds about 200 memory mappings, and Linux allows a process 65,530."""

FULL = 0.8
"""The fraction of these mappings above which a warning is issued."""

# Least recently used first.
_cache: dict[Ingredients, "_Entry"] = {}
_executables: dict[Hashable, jax.stages.Compiled] = {}
_lock = RLock()


@dataclass(frozen=True, eq=False)
class _Entry:
    """The cache entry of a function.

    Attributes:
        key: the function, its static arguments, and the shapes of its arrays.
        jitted: the function wrapped in `jax.jit`.
        executables: by trace and placement of the arrays, if the function is compiled `by_program`.
        alive: weak references to the parts of the key that are compared by identity.
    """

    key: Ingredients
    jitted: Any
    executables: dict[Hashable, jax.stages.Compiled]
    alive: list[Any]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled function of arrays, with the static arguments that it needs when it is traced."""

    entry: _Entry
    key: Ingredients
    static: tuple[Any, ...]
    by_program: bool

    def __call__(self, *arrays: Any) -> Any:
        """Return the function's value."""
        return self.executable(*arrays)(*arrays) if self.by_program else self._lend(self.entry.jitted, arrays)

    def trace(self, *arrays: Any) -> Any:
        """Return the function traced by `jax.jit`; a later call reuses the trace."""
        return self._lend(self.entry.jitted.trace, arrays)

    def executable(self, *arrays: Any) -> jax.stages.Compiled:
        """Return the executable for arrays of these shapes on these devices."""
        traced, leaves = self.trace(*arrays), jax.tree.leaves(arrays)
        placement = tuple((getattr(leaf, "sharding", None), getattr(leaf, "committed", False)) for leaf in leaves)
        # JAX returns the same jaxpr as long as no setting that tracing depends on has changed.
        known = self.entry.executables
        if (traced.jaxpr, placement) not in known:
            known[traced.jaxpr, placement] = _executable(traced, placement)
        return known[traced.jaxpr, placement]

    def _lend(self, use: Callable[..., Any], arrays: tuple[Any, ...]) -> Any:
        # While JAX traces this call, `function` reads the static arguments from `lent`. JAX keeps `lent`, so empty it.
        lent = _Lent(self.key, self.static)
        try:
            return use(lent, *arrays)
        finally:
            lent.static = ()


class _Lent:
    """Static arguments for the duration of one call. JAX keeps this object, so it must not keep them alive."""

    def __init__(self, key: Ingredients, static: tuple[Any, ...]) -> None:
        self.key, self.static = key, static

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lent) and self.key == other.key


def compiled(
    function: Callable[..., Any],
    static: Sequence[Any],
    arrays: Sequence[Any],
    *,
    donate: tuple[int, ...] = (),
    by_program: bool = False,
) -> Compiled:
    """Return `function(*static, *arrays)` as a compiled function of arrays of these shapes.

    Equal static arguments (see `Ingredients`) return the same compiled function, as long as it is among the last
    `CAPACITY` requested and the static arguments that are compared by identity are alive. `jax.jit` alone would keep
    it, and the arguments with everything they hold, for the rest of the process.

    Args:
        function: a pure function of a module, not a closure.
        static: the arguments to compile it for.
        arrays: pytrees; only their structure, shapes and dtypes are read.
        donate: the positions of the arrays whose memory the function may reuse.
        by_program: reuse the executable of another function that lowers to the same program, such as the same code
            defined again in a notebook. The function is then traced and lowered to find out, and each call costs about
            0.4 ms more.

    Warns:
        UserWarning: when the process has few memory mappings left.

    >>> import jax.numpy as jnp
    >>> def power(exponent, x):
    ...     return x**exponent
    >>> x = jnp.arange(3)
    >>> compiled(power, [2], [x])(x).tolist()
    [0, 1, 4]
    """
    leaves, structure = jax.tree.flatten(tuple(arrays))
    shapes = tuple((np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves)
    key = Ingredients(function, tuple(static), values=(donate, structure, shapes))
    with _lock:
        # Popped and inserted again: the most recently used is last.
        entry = _cache.pop(key, None) or _entry(function, key, donate)
        _cache[entry.key] = entry
        for oldest in list(_cache)[:-CAPACITY]:
            _cache.pop(oldest, None)
    return Compiled(entry, key, tuple(static), by_program)


def computed(function: Callable[..., Any], static: Sequence[Any], *arrays: Any) -> Any:
    """Return `function(*static, *arrays)`, compiled by `compiled`; inside another trace it is traced into that."""
    if any(map(is_traced, jax.tree.leaves(arrays))):
        return function(*static, *arrays)
    return compiled(function, static, arrays)(*arrays)


def _entry(function: Callable[..., Any], key: Ingredients, donate: tuple[int, ...]) -> _Entry:
    """Return a function's entry, which is dropped when the first of the key's objects dies."""
    _check_mappings()

    def run(lent: _Lent, *arrays: Any) -> Any:
        return function(*lent.static, *arrays)

    run.__name__ = run.__qualname__ = function.__name__
    # A new function each time: JAX keeps the code compiled for a function as long as the function lives.
    jitted = jax.jit(run, static_argnums=0, donate_argnums=[number + 1 for number in donate])
    # Once an object compared by identity dies, no other key can equal this one.
    weak = [each.get() for each in key.held if isinstance(each.get, weakref.ref)]
    cache = _cache  # at exit, globals are cleared before all objects have died
    return _Entry(key, jitted, {}, [weakref.ref(each, lambda _: cache.pop(key, None)) for each in weak])


def _executable(traced: Any, placement: Hashable) -> jax.stages.Compiled:
    """Return the executable of a traced function, shared by all that lower to the same program."""
    lowered = traced.lower()
    # A program's text does not show which function a callback calls, nor constants that JAX passes as arguments.
    callbacks = any("callback" in name for name in primitives(traced.jaxpr))
    if callbacks or getattr(jax.config, "jax_use_simplified_jaxpr_constants", False):
        return lowered.compile()
    # Constants are part of the text, and so are donations, shardings and the precision of products, but not arguments
    # that the program does not read.
    shapes = tuple(traced.jaxpr.in_avals)
    key = sha256(lowered.as_text().encode()).digest(), shapes, lowered.in_tree, lowered.out_tree, placement
    found = _executables.get(key) or lowered.compile()
    with _lock:
        # Popped and inserted again: the most recently used is last.
        _executables.pop(key, None)
        _executables[key] = found
        for oldest in list(_executables)[:-CAPACITY]:
            del _executables[oldest]
    return found


def _check_mappings() -> None:
    limit, maps = Path("/proc/sys/vm/max_map_count"), Path("/proc/self/maps")  # Linux only
    if not (limit.is_file() and maps.is_file()):
        return
    most = int(limit.read_text())
    if maps.read_bytes().count(b"\n") > FULL * most:
        text = (
            f"this process uses over {FULL:.0%} of the {most} memory mappings that Linux allows, and dies beyond them"
        )
        cause = "compiled functions hold them, made by jax.jit of a new function each time or by loops outside of a jit"
        warnings.warn(f"{text}; {cause}; call jax.clear_caches(), or raise vm.max_map_count", stacklevel=4)
