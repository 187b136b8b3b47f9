"""What made a network or a cell, as data: a constructor, and its arguments."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import numpy as np

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
