"""A bounded cache of compiled functions, which are dropped with the objects they were compiled for."""

import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import jax
import numpy as np

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import is_traced

CAPACITY = 16
"""Functions in the cache: each holds some 200 memory mappings, and Linux gives a process 65,530."""

FULL = 0.8
"""The share of these mappings above which a warning is given."""

# Least recently used first.
_cache: dict[Ingredients, tuple[Ingredients, Any, list[Any]]] = {}
_lock = RLock()


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled function of arrays, with the static arguments that it needs when it is traced."""

    jitted: Any
    key: Ingredients
    static: tuple[Any, ...]

    def __call__(self, *arrays: Any) -> Any:
        """Return the function's value."""
        return self._lend(self.jitted, arrays)

    def trace(self, *arrays: Any) -> Any:
        """Return the function traced by `jax.jit`; a later call reuses the trace."""
        return self._lend(self.jitted.trace, arrays)

    def _lend(self, use: Callable[..., Any], arrays: tuple[Any, ...]) -> Any:
        # If this call is traced, `function` reads the static arguments from `lent`; afterwards JAX keeps it empty.
        lent = _Lent(self.key, self.static)
        try:
            return use(lent, *arrays)
        finally:
            lent.static = ()


class _Lent:
    """Static arguments for the duration of one call: JAX keeps this object, which must not keep them alive."""

    def __init__(self, key: Ingredients, static: tuple[Any, ...]) -> None:
        self.key, self.static = key, static

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lent) and self.key == other.key


def compiled(
    function: Callable[..., Any], static: Sequence[Any], arrays: Sequence[Any], *, donate: tuple[int, ...] = ()
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
        _cache[entry[0]] = entry
        for oldest in list(_cache)[:-CAPACITY]:
            _cache.pop(oldest, None)
    return Compiled(entry[1], key, tuple(static))


def computed(function: Callable[..., Any], static: Sequence[Any], *arrays: Any) -> Any:
    """Return `function(*static, *arrays)`, compiled by `compiled`; inside another trace it is traced into that."""
    if any(map(is_traced, jax.tree.leaves(arrays))):
        return function(*static, *arrays)
    return compiled(function, static, arrays)(*arrays)


def _entry(
    function: Callable[..., Any], key: Ingredients, donate: tuple[int, ...]
) -> tuple[Ingredients, Any, list[Any]]:
    """Return a key, its function, and weak references that drop both when the first of the key's objects dies."""
    _check_mappings()

    def run(lent: _Lent, *arrays: Any) -> Any:
        return function(*lent.static, *arrays)

    run.__name__ = run.__qualname__ = function.__name__
    # A new function each time: JAX holds the code it compiled for a function as long as the function lives.
    jitted = jax.jit(run, static_argnums=0, donate_argnums=[number + 1 for number in donate])
    # If one of the objects compared by identity dies, no key can equal this one any more.
    weak = [each.get() for each in key.held if isinstance(each.get, weakref.ref)]
    return key, jitted, [weakref.ref(each, lambda _: _cache.pop(key, None)) for each in weak]


def _check_mappings() -> None:
    limit, maps = Path("/proc/sys/vm/max_map_count"), Path("/proc/self/maps")  # Linux only
    if not (limit.is_file() and maps.is_file()):
        return
    most = int(limit.read_text())
    if maps.read_bytes().count(b"\n") > FULL * most:
        text = (
            f"this process uses over {FULL:.0%} of the {most} memory mappings that Linux allows, and dies beyond them"
        )
        cause = "compiled functions hold them: of jax.jit on ever new functions, or of loops that are not inside a jit"
        warnings.warn(f"{text}; {cause}; jax.clear_caches() drops all, or raise vm.max_map_count", stacklevel=4)
