"""What losses and metrics say of the integers they take for classes."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Labels:
    """Which integers a loss or a metric takes for classes: from `first` to the width of the outputs less 1.

    Attributes:
        first: the least label, 0, or 1 where class 0 is CTC's blank.
        none: labels that stand for none, and may be any integer.
    """

    first: int = 0
    none: tuple[int, ...] = ()


def takes_labels(function: F, labels: Labels | None = Labels()) -> F:
    """Note on a function of `(outputs, targets)` that integer targets are classes, and return it.

    A loss of one's own says so too: `takes_labels(my_loss)`.

    >>> labels_of(takes_labels(lambda outputs, targets: outputs[:, 0]))
    Labels(first=0, none=())
    """
    if labels is not None:
        function.labels = labels  # pyright: ignore
    return function


def takes_targets(check: Callable[[Any], None]) -> Callable[[F], F]:
    """Decorate a function of `(outputs, targets)` with what raises for known targets that it can't take, and return it.

    So `jn.train` can look at them before a run, in which they are traced.
    """

    def note(function: F) -> F:
        function.check_targets = check  # pyright: ignore
        return function

    return note


def targets_check_of(function: Any) -> Callable[[Any], None] | None:
    """Return what a function, or a `functools.partial` of it, asks of its targets' values, if anything."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "check_targets", None)


def labels_of(function: Any) -> Labels | None:
    """Return what a function, or a `functools.partial` of it, says of its labels; `None` where it says nothing."""
    while isinstance(function, functools.partial):
        function = function.func
    found = getattr(function, "labels", None)
    return found if isinstance(found, Labels) else None


def but(labels: Labels | None, none: int) -> Labels | None:
    """Return labels with one more that stands for none."""
    return None if labels is None else replace(labels, none=(*labels.none, none))
