"""Networks and cells as values: they record the call that made them, and are compared and pickled by it."""

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
    """Decorate a constructor of a `Net` or a `Cell`: the result holds the constructor and its arguments.

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
    """Return a `Net` or a `Cell` with the constructor and arguments that made it; anything else unchanged."""
    if not hasattr(record, "constructor"):
        return record
    # A copy, since a factory may return a record that another one made.
    given, record = record, replace(record)
    for name in ("wiring", "remake"):
        if hasattr(given, name):
            object.__setattr__(record, name, getattr(given, name))
    object.__setattr__(record, "constructor", constructor)
    object.__setattr__(record, "arguments", {name: _copied(value) for name, value in arguments.items()})
    return record


def _copied(value: Any) -> Any:
    """Return a copy of an argument, so that the caller may change the list or array afterwards."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (tuple, list):
        return type(value)(map(_copied, value))
    return {name: _copied(each) for name, each in value.items()} if type(value) is dict else value


SAVE_ALONE = "to save params and state, leave net= out, and make the network in code again"
"""What to do with a network that can't be saved in a file."""

PUBLIC: tuple[ModuleType, ...] = (jax.nn, jnp, jax.lax, jax.nn.initializers)
"""Modules searched for a function before the one that defines it, which may be private."""


@dataclass(frozen=True)
class Name:
    """An object in a module, by its qualified name."""

    module: str
    name: str

    def find(self) -> Any:
        """Import the module and return the object."""
        return attrgetter(self.name)(importlib.import_module(self.module))


@dataclass(frozen=True)
class Call:
    """A call that makes an object, with its arguments in the form that `portable` returns."""

    function: Name
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Value:
    """A base class for records that are compared by their `ingredients` and pickled as the call that made them."""

    ingredients: Any

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.ingredients == getattr(other, "ingredients", None)

    def __hash__(self) -> int:
        return hash(self.ingredients)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any]]:
        return made, (portable(self),)

    def __deepcopy__(self, _: Any) -> Self:
        # Values are immutable, so a value is its own copy.
        return self


def portable(thing: Any) -> Any:
    """Replace networks, cells and functions by a `Call` or a `Name`, also inside tuples, lists and dicts.

    Anything else is returned unchanged.

    Raises:
        NetError: for a function that its module does not have under its name, such as a lambda.

    >>> import jaxnets as jn
    >>> portable(jn.dense(3)).function
    Name(module='jaxnets.layers.dense', name='dense')
    >>> portable(jax.nn.relu)
    Name(module='jax.nn', name='relu')
    >>> made(portable(jn.dense(3))) == jn.dense(3)
    True
    """
    # Not named tuples, whose type takes its fields one by one.
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
    # Python pickles classes by their names anyway.
    if callable(thing) and not isinstance(thing, type):
        return _of_function(thing)
    return thing


def made(thing: Any) -> Any:
    """Return an object equal to what `portable` was given: its inverse."""
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
            f"can't be pickled or saved, since nothing says what made it; to pickle it, decorate the function that "
            f"makes it with jn.labeled, in a module; {SAVE_ALONE}",
            label=record.label,
        )
    # Positional arguments stay positional, as in `serial(*layers, **named)`.
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
        return function  # a callable object, which knows how to pickle itself
    raise _nameless(function)


def _named(function: Callable[..., Any]) -> Name | None:
    """Return the module and name by which a function can be imported, `None` if there are none."""
    name = getattr(function, "__qualname__", getattr(function, "__name__", ""))
    # Public modules first: the module that defines a function may be private.
    for module in (*(each.__name__ for each in PUBLIC), getattr(function, "__module__", None)):
        try:
            if Name(str(module), name).find() is function:
                return Name(str(module), name)
        except (ImportError, AttributeError):
            pass
    return None


def _remade(function: Callable[..., Any]) -> Call | None:
    """Return the call that made a function of JAX or Optax, such as `constant(0.1)`; `None` if unknown.

    The arguments are read from the variables that the function closes over. The call is returned only if it makes an
    equal function.
    """
    if not isinstance(function, FunctionType) or not is_made(function):
        return None
    # A function named `maker.<locals>.inner` was made by `maker`.
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
    hint = f"to pickle it, define it in one with def; {SAVE_ALONE}"
    return NetError(f"can't be pickled or saved: no module has the function {name} under its name; {hint}")
