"""Equality of objects by their parts, so that code compiled for one object is reused for an equal one."""

import sys
import sysconfig
import weakref
import zlib
from collections.abc import Hashable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np

LIBRARIES = ("jaxnets", "optax", "jax", "flax")
"""Libraries whose inner functions are compared by code and closure: they close over settings, never over state."""

_STANDARD = sysconfig.get_paths()["stdlib"]


class Ingredients:
    """A hashable key for objects, equal for objects with equal parts, that does not keep the objects alive.

    - Tuples, lists, mappings, dataclasses (frozen or with an equality), `functools.partial`, and functions made inside
      a function of one of the `LIBRARIES` are compared by their parts: `optax.adam(1e-3)` equals another.
    - Other values are compared by their type and their `==`.
    - Objects without an equality are compared by identity, together with whatever may change in place: the variables
      that a user's function reads, the attributes of an object, the bytes of a NumPy array.
    - An object with an attribute `ingredients` is compared by that.

    Args:
        *things: the objects.
        values: a hashable value that is part of the key as it is.

    >>> import optax
    >>> def double(x):
    ...     return 2 * x
    >>> Ingredients(double, [1, 2.0]) == Ingredients(double, [1, 2.0])
    True
    >>> Ingredients(double) == Ingredients(lambda x: 2 * x)
    False
    >>> Ingredients(optax.adam(1e-3)) == Ingredients(optax.adam(1e-3))
    True
    >>> Ingredients(optax.adam(1e-3)) == Ingredients(optax.adam(1e-2))
    False
    """

    def __init__(self, *things: Any, values: Hashable = ()) -> None:
        self.held: list[_Same] = []
        self.parts: tuple[Any, ...] = (*map(self._part, things), values)
        self._hash = hash(self.parts)

    def _part(self, thing: Any, outer: tuple[Any, ...] = ()) -> Any:
        """Return the key of one object; `outer` holds the functions that contain it."""
        kind = type(thing)
        if thing is None:
            return None
        # Networks, cells and objectives define their own parts.
        if isinstance(own := getattr(thing, "ingredients", None), Ingredients):
            self.held += own.held
            return kind, own.parts
        # A JAX array never changes; a NumPy array may change in place.
        if isinstance(thing, jax.Array):
            return self._same(thing)
        if isinstance(thing, np.ndarray):
            whole = np.ascontiguousarray(thing).reshape(-1)
            return self._same(thing), 0 if thing.dtype.hasobject else zlib.crc32(whole.view(np.uint8).data)
        if isinstance(thing, tuple | list):
            return kind, *(self._part(each, outer) for each in thing)
        if isinstance(thing, Mapping):
            return kind, *((self._part(name, outer), self._part(value, outer)) for name, value in thing.items())
        if kind is partial:
            return kind, *(self._part(each, outer) for each in (thing.func, thing.args, thing.keywords))
        if kind is MethodType:
            return kind, self._part(thing.__func__, outer), self._part(thing.__self__, outer)
        if kind is FunctionType:
            return self._function(thing, outer)
        # A dataclass that is defined by its fields.
        if (params := getattr(kind, "__dataclass_params__", None)) and (params.eq or params.frozen):
            return kind, *(self._part(getattr(thing, each.name), outer) for each in fields(thing) if each.compare)
        # Numbers, strings, dtypes, specs.
        if kind.__eq__ is not object.__eq__ and kind.__hash__ is not None:
            return kind, thing
        # An instance of a user's class: its attributes may change.
        if hasattr(thing, "__dict__") and not isinstance(thing, type | ModuleType) and not _is_installed(kind):
            return self._same(thing), *((name, self._attribute(each)) for name, each in vars(thing).items())
        return self._same(thing)

    def _function(self, function: FunctionType, outer: tuple[Any, ...]) -> Any:
        if function in outer:  # a recursive function is part of itself
            return FunctionType, outer.index(function)
        outer = (*outer, function)
        closed_over = [self._part(_contents(cell), outer) for cell in function.__closure__ or ()]
        if not is_made(function):
            # A user's function: its identity, and every variable that it reads.
            read = {} if _is_installed(function) else _globals(function)
            read = {**read, "__defaults__": function.__defaults__, "__kwdefaults__": function.__kwdefaults__}
            return self._same(function), *closed_over, *((name, self._part(each, outer)) for name, each in read.items())
        # A library's inner function: its code, and what it closes over.
        rest = (function.__defaults__, function.__kwdefaults__, {**vars(function), "__wrapped__": None})
        return (
            FunctionType,
            function.__globals__["__name__"],
            function.__code__,
            *closed_over,
            *(self._part(each, outer) for each in rest),
        )

    def _attribute(self, value: Any) -> Any:
        # One level deep: what an attribute holds is not searched further.
        plain = isinstance(value, bool | int | float | complex | str | np.generic | np.ndarray | None)
        return self._part(value) if plain else self._same(value)

    def _same(self, thing: Any) -> "_Same":
        self.held.append(_Same(thing))
        return self.held[-1]

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ingredients) and self.parts == other.parts


def is_made(function: FunctionType) -> bool:
    """Tell whether a function was made inside a function of one of the `LIBRARIES`, as Optax makes its updates."""
    # Not function.__module__, which functools.wraps overwrites.
    library = str(function.__globals__.get("__name__")).partition(".")[0]
    return library in LIBRARIES and "<locals>" in function.__code__.co_qualname


def _is_installed(thing: Any) -> bool:
    """Tell whether a function or class belongs to an installed package, whose variables are assumed constant."""
    module = sys.modules.get(thing.__module__)
    if isinstance(thing, FunctionType):
        file, name = thing.__code__.co_filename, str(thing.__globals__.get("__name__"))
    else:
        file, name = getattr(module, "__file__", None) or "", str(thing.__module__)
    # A module without a file is built in, unless it is the user's session.
    built_in = module is not None and not file and name != "__main__"
    packaged = file.startswith(_STANDARD) or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
    return built_in or packaged or name.partition(".")[0] in LIBRARIES


def _globals(function: FunctionType) -> dict[str, Any]:
    """Return the global variables that a function, or a function inside it, may read."""
    # Functions defined inside are constants of the code.
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell: not assigned yet
        return None


class _Same:
    """An object compared by identity, held by a weak reference if its type allows one."""

    def __init__(self, thing: Any) -> None:
        self._id = id(thing)
        try:
            self.get = weakref.ref(thing)
        except TypeError:
            self.get = lambda: thing

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        # A reference to a dead object equals no other reference.
        return self is other or (isinstance(other, _Same) and self.get() is not None and self.get() is other.get())
