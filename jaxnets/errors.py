"""Errors that name their place: the path to the layer, what it expected, what came, the likely mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.core import Tracer


class NetError(ValueError):
    """A mistake in the use of a network, a loss or a penalty.

    Its text reads `layer1/0/conv1: conv(64, 3) expects (batch, height, width, channels), got (32, 784)`.
    Whoever finds the mistake gives the message; the label and the path are added on the way up.

    Attributes:
        message: what was expected, what came, and the likely mend.
        label: the layer as it was written, `conv(64, 3)`; empty until a layer claims the error.
        path: names of the children from the outermost network down to the layer.
        names_differ: whether parameter *names* are missing or unexpected, which lets the outermost
            network answer with the whole list.
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
def at(name: str) -> Iterator[None]:
    """Run a child under its name: a named scope for the compiler, a path for any error.

    A `NetError` gets the name in front of its path; any other exception carries one note with the path.
    """
    try:
        with jax.named_scope(name):
            yield
    except NetError as error:
        error.path = (name, *error.path)
        raise
    except Exception as error:  # whatever a layer raises gets its place, and goes on
        notes = getattr(error, "__notes__", [])
        for place, note in enumerate(notes):
            if note.startswith(_NOTE):
                notes[place] = f"{_NOTE}{name}/{note.removeprefix(_NOTE)}"
                break
        else:
            error.add_note(_NOTE + name)
        raise


@contextmanager
def labelled_as(label: str) -> Iterator[None]:
    """Put `label` in front of a `NetError` that comes from this very layer, not from a child of it."""
    try:
        yield
    except NetError as error:
        if not error.path:
            error.label = label
        raise


def is_traced(value: Any) -> bool:
    """Tell whether a value is known only when the program runs."""
    return isinstance(value, Tracer)


def concrete(value: Any) -> float | None:
    """Return a real number as a `float` where its value is known, `None` where it is traced.

    Raises:
        NetError: if the value is no real scalar.
    """
    if is_traced(value):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise NetError(f"expects a real number, got {type(value).__name__} {value!r}") from None


def check_fraction(name: str, value: Any, *, one: bool = False) -> None:
    """Check that a rate or decay lies in [0, 1), or in [0, 1] with `one=True`, where its value is known.

    Raises:
        NetError: if it lies outside.
    """
    known = concrete(value)
    if known is not None and not (0.0 <= known < 1.0 or (one and known == 1.0)):
        mend = f"; {known:g} % is {known / 100:g}" if 1.0 < known <= 100.0 else ""
        raise NetError(f"expects {name} in [0, 1{']' if one else ')'}, got {known:g}{mend}")


def check_positive(name: str, value: Any, *, zero: bool = False) -> None:
    """Check that a number is positive (or not negative, with `zero=True`) where its value is known.

    Raises:
        NetError: if it is not.
    """
    known = concrete(value)
    if known is not None and not (known >= 0.0 if zero else known > 0.0):
        raise NetError(f"expects {name} {'≥' if zero else '>'} 0, got {known:g}")


def check_count(name: str, value: Any) -> None:
    """Check that a size such as a width or a number of members is an integer of at least 1.

    Raises:
        NetError: if it is not.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise NetError(f"expects an integer for {name}, got {type(value).__name__} {value!r}")
    if value < 1:
        raise NetError(f"expects {name} ≥ 1, got {value}")
