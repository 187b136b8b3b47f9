"""Errors that name their place: the path to the layer, what it expected, what it got, and a hint."""

import importlib
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


class NetError(ValueError):
    """A mistake in the use of a network, a loss or a penalty.

    Its text reads `layer1/0/conv1: conv(64, 3) expects (batch, height, width, channels), got (32, 784)`.
    The code that finds the mistake writes the message; `labeled_as` adds the label and the path on the way up.

    Attributes:
        message: what was expected, what came instead, and a hint.
        label: the layer as it was written, `conv(64, 3)`; empty until a layer adds its own.
        path: the names of the children from the outermost network down to the layer.
        names_differ: whether parameter *names* are missing or unexpected. The outermost network then lists them all.
    """

    def __init__(self, message: str, *, label: str = "", names_differ: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.label = label
        self.path: tuple[str, ...] = ()
        self.names_differ = names_differ

    def __str__(self) -> str:
        where = "/".join(self.path)
        return (f"{where}: " if where else "") + (f"{self.label} " if self.label else "") + self.message


_NOTE = "in layer "


@contextmanager
def labeled_as(label: str = "", *, child: str = "", keep: bool = False) -> Iterator[None]:
    """Add its location to an error raised inside.

    Args:
        label: the layer or function that runs inside, `conv(64, 3)`. It is put in front of a `NetError`, unless that
            comes from a child.
        child: the child that runs inside. Its name is put in front of the path of a `NetError`, or of the path in a
            note of any other exception. It is also a named scope for the compiler.
        keep: whether an error that already has a label keeps it.
    """
    try:
        with jax.named_scope(child) if child else nullcontext():
            yield
    except NetError as error:
        if child:
            error.path = (child, *error.path)
        elif keep:
            error.label = error.label or label
        elif not error.path:
            error.label = label
        raise
    except Exception as error:
        if child:
            _note_child(error, child)
        raise


def _note_child(error: Exception, name: str) -> None:
    """Put a name in front of the path in an exception's note, and add that note if it is missing."""
    notes = getattr(error, "__notes__", [])
    for place, note in enumerate(notes):
        if note.startswith(_NOTE):
            notes[place] = f"{_NOTE}{name}/{note.removeprefix(_NOTE)}"
            return
    error.add_note(_NOTE + name)


def is_traced(value: Any) -> bool:
    """Tell whether a value is traced, so that it is known only when the compiled program runs."""
    return isinstance(value, Tracer)


def known(x: Any) -> np.ndarray | None:
    """Return an array as a NumPy array, `None` if it is traced or on other hosts."""
    if is_traced(x) or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return None
    return np.asarray(x)


def shown(value: Any) -> str:
    """Describe a value in a few words, for a message.

    >>> shown(np.zeros((178, 13))), shown("adam"), shown(list(range(100))), shown(len)
    ('ndarray (178, 13) float64', "str 'adam'", 'list', 'the function len')
    """
    kind = type(value).__name__
    if hasattr(value, "shape"):
        return f"{kind} {tuple(value.shape)} {getattr(value, 'dtype', '')}".rstrip()
    if callable(value) and hasattr(value, "__name__"):
        return f"the {'class' if isinstance(value, type) else 'function'} {value.__name__.strip('<>')}"
    text = reprlib.repr(value)
    if value is None:
        return text
    return kind if len(text) > 60 or "\n" in text or "object at 0x" in text or "..." in text else f"{kind} {text}"


def missing(package: str, extra: str) -> ModuleNotFoundError:
    """Return the error for a package that is not installed.

    Args:
        package: its name, or the dotted name of a module in it.
        extra: the extra of jaxnets that installs it.

    >>> missing("orbax.checkpoint", "checkpoint")
    ModuleNotFoundError("this needs the package orbax: pip install 'jaxnets[checkpoint]'")
    """
    root = package.partition(".")[0]
    return ModuleNotFoundError(f"this needs the package {root}: pip install 'jaxnets[{extra}]'", name=root)


def require(package: str, extra: str) -> Any:
    """Import and return a package or a module of it, which `pip install 'jaxnets[extra]'` installs.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == package.partition(".")[0]:
            raise missing(package, extra) from None
        raise  # the package is installed, but lacks a dependency


def concrete(value: Any, name: str = "") -> float | None:
    """Return a real number as a `float`, `None` if it is traced.

    Raises:
        NetError: if the value is not a real scalar. Text is refused even if it holds a number.
    """
    if is_traced(value):
        return None
    what = "expects a real number" + (f" for {name}" if name else "")
    if isinstance(value, str | bytes):
        raise NetError(f"{what}, got {shown(value)}; write it without quotes")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise NetError(f"{what}, got {shown(value)}") from None


def check_fraction(name: str, value: Any, *, one: bool = False) -> None:
    """Check that a rate or decay lies in [0, 1), or in [0, 1] with `one=True`; a traced value passes.

    Raises:
        NetError: if it lies outside.
    """
    number = concrete(value, name)
    if number is not None and not (0.0 <= number < 1.0 or (one and number == 1.0)):
        hint = f"; {number:g} % is {number / 100:g}" if 1.0 < number <= 100.0 else ""
        raise NetError(f"expects {name} in [0, 1{']' if one else ')'}, got {number:g}{hint}")


def check_positive(name: str, value: Any, *, zero: bool = False) -> None:
    """Check that a number is positive (not negative with `zero=True`); a traced value passes.

    Raises:
        NetError: if it is not.
    """
    number = concrete(value, name)
    if number is not None and not (number >= 0.0 if zero else number > 0.0):
        raise NetError(f"expects {name} {'≥' if zero else '>'} 0, got {number:g}")


def check_count(name: str, value: Any) -> None:
    """Check that a size, such as a width or a number of trials, is an integer of at least 1.

    Raises:
        NetError: if it is not.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise NetError(f"expects an integer for {name}, got {shown(value)}")
    if value < 1:
        raise NetError(f"expects {name} ≥ 1, got {value}")


def check_counts(name: str, values: Any) -> None:
    """Check that sizes, such as the widths of layers, are a sequence of integers of at least 1.

    Raises:
        NetError: if they are not.
    """
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise NetError(f"expects a sequence of integers for {name}, got {shown(values)}; write [{values}] for one")
    for value in values:
        check_count(name, value)
