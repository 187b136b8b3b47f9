"""What made a network or a cell, as data: a constructor, and its arguments."""

import functools
import importlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from types import FunctionType, ModuleType
from typing import Any, ParamSpec, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.equality import Ingredients, is_made
from jaxnets.core.errors import NetError, labeled_as

P = ParamSpec("P")
R = TypeVar("R")


def recorded(factory: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that makes a `Net` or a `Cell`: the record holds the constructor and its arguments.

    >>> import jaxnets as jn
    >>> net = jn.conv(6, 5)
    >>> net.constructor is jn.conv, net.arguments["features"], net.arguments["padding"]
    (True, 6, 'VALID')
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> R:
        record = factory(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        return made_by(record, make, given.arguments)

    return make


def made_by(record: Any, constructor: Callable[..., Any] | None, arguments: Mapping[str, Any]) -> Any:
    """Return a `Net` or a `Cell` with what made it; anything else as it is."""
    if not hasattr(record, "constructor"):
        return record
    record = replace(record)
    object.__setattr__(record, "constructor", constructor)
    object.__setattr__(record, "arguments", {name: _as_it_is(value) for name, value in arguments.items()})
    return record


def _as_it_is(value: Any) -> Any:
    """Return an argument so that it stays as it is, whatever becomes of the caller's list or array."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (tuple, list):
        return type(value)(map(_as_it_is, value))
    return {name: _as_it_is(each) for name, each in value.items()} if type(value) is dict else value


PUBLIC: tuple[ModuleType, ...] = (jax.nn, jnp, jax.lax, jax.nn.initializers)
"""Where a function is looked for before the module that defines it, which may be a private one."""


@dataclass(frozen=True)
class Name:
    """Something in a module, by its qualified name."""

    module: str
    name: str

    def find(self) -> Any:
        """Return it; its module is imported."""
        return attrgetter(self.name)(importlib.import_module(self.module))


@dataclass(frozen=True)
class Call:
    """A call that makes something, its arguments as `portable` gives them."""

    function: Name
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Value:
    """A record that is compared by its `ingredients`, and pickled as the call that made it."""

    ingredients: Any

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.ingredients == getattr(other, "ingredients", None)

    def __hash__(self) -> int:
        return hash(self.ingredients)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any]]:
        return made, (portable(self),)

    def __deepcopy__(self, _: Any) -> Self:
        return self


def portable(thing: Any) -> Any:
    """Return networks, cells and functions as a `Call` or a `Name`, inside tuples, lists and dicts too.

    Anything else comes back as it is.

    Raises:
        NetError: for a function that is not found by its name, such as a lambda; it is named, with its place.

    >>> import jaxnets as jn
    >>> portable(jn.dense(3)).function
    Name(module='jaxnets.layers.dense', name='dense')
    >>> portable(jax.nn.relu)
    Name(module='jax.nn', name='relu')
    >>> made(portable(jn.dense(3))) == jn.dense(3)
    True
    """
    if isinstance(thing, tuple | list) and not hasattr(thing, "_fields"):
        return type(thing)(_inside(place, each) for place, each in enumerate(thing))
    if isinstance(thing, dict):
        return {name: _inside(name, each) for name, each in thing.items()}
    if isinstance(thing, partial):
        return Call(
            Name("functools", "partial"), (portable(thing.func), *portable(thing.args)), portable(thing.keywords)
        )
    if hasattr(thing, "constructor"):
        return _of_record(thing)
    if callable(thing) and not isinstance(thing, type):
        return _of_function(thing)
    return thing


def made(thing: Any) -> Any:
    """Return what `portable` was given, or an equal one."""
    if isinstance(thing, Name):
        return thing.find()
    if isinstance(thing, Call):
        return thing.function.find()(*made(thing.args), **made(dict(thing.kwargs)))
    if isinstance(thing, tuple | list) and not hasattr(thing, "_fields"):
        return type(thing)(made(each) for each in thing)
    if isinstance(thing, dict):
        return {name: made(each) for name, each in thing.items()}
    return thing


def _inside(place: Any, thing: Any) -> Any:
    with labeled_as(child=str(place)):
        return portable(thing)


def _of_record(record: Any) -> Call:
    """Return the call that made a `Net` or a `Cell`."""
    if record.constructor is None:
        raise NetError(
            "can't be pickled or saved, since nothing says what made it; make it by jn.layer(init, apply) of functions "
            "in a module, or keep what your own function that makes it was called with",
            label=record.label,
        )
    given = inspect.BoundArguments(inspect.signature(record.constructor), OrderedDict(record.arguments))
    name = _named(record.constructor)
    if name is None:
        raise _nameless(record.constructor)
    return Call(name, portable(given.args), portable(given.kwargs))


def _of_function(function: Callable[..., Any]) -> Any:
    if name := _named(function):
        return name
    if call := _remade(function):
        return call
    if not hasattr(function, "__qualname__"):
        return function  # an object that can be called, which pickles itself or says why not
    raise _nameless(function)


def _named(function: Callable[..., Any]) -> Name | None:
    """Return where a function is found, if it is."""
    name = getattr(function, "__qualname__", getattr(function, "__name__", ""))
    for module in (*(each.__name__ for each in PUBLIC), getattr(function, "__module__", None)):
        try:
            if Name(str(module), name).find() is function:
                return Name(str(module), name)
        except (ImportError, AttributeError):
            pass
    return None


def _remade(function: Callable[..., Any]) -> Call | None:
    """Return the call of JAX's or Optax's that makes an equal function, as `constant(0.1)` does.

    What a maker was given is what its function closes over, under the same names; whether that is all is seen by
    making another.
    """
    if not isinstance(function, FunctionType) or not is_made(function):
        return None
    maker = Name(str(function.__globals__["__name__"]), function.__qualname__.partition(".<locals>")[0])
    try:
        make = maker.find()
        closed_over = inspect.getclosurevars(function).nonlocals
        given = {name: closed_over[name] for name in inspect.signature(make).parameters if name in closed_over}
        if Ingredients(make(**given)) == Ingredients(function):
            return Call(_named(make) or maker, (), portable(given))
    except (ImportError, AttributeError, TypeError, ValueError):
        pass
    return None


def _nameless(function: Callable[..., Any]) -> NetError:
    name = getattr(function, "__qualname__", repr(function))
    hint = "define it in one with def"
    return NetError(f"can't be pickled or saved: no module has the function {name} under its name; {hint}")
