"""Declarations by losses and metrics: which integers are classes, and how to check the targets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from jaxnets.core.checks import unwrapped

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Labels:
    """The integers that a loss or a metric takes as classes: from `first` to the width of the outputs minus 1.

    Attributes:
        first: the smallest label: 0, or 1 where class 0 is CTC's blank.
        none: labels that mean "no label"; they may be any integers.
    """

    first: int = 0
    none: tuple[int, ...] = ()


def takes_labels(function: F, labels: Labels | None = Labels()) -> F:
    """Declare that the integer targets of a function of `(outputs, targets)` are classes, and return the function.

    `jn.train` checks labels before a training run with a loss or a metric that declares them. It decorates a custom
    loss, `@jn.losses.takes_labels`.

    Args:
        function: the loss, or the `measure` of a metric.
        labels: the integers that it takes; default: those from 0 to the width of the outputs minus 1. `None` declares
            nothing.

    >>> labels_of(takes_labels(lambda outputs, targets: outputs[:, 0]))
    Labels(first=0, none=())
    """
    if labels is not None:
        function.labels = labels  # pyright: ignore
    return function


def takes_targets(check: Callable[[Any], None]) -> Callable[[F], F]:
    """Decorate a function of `(outputs, targets)` with a check that raises an error for invalid known targets.

    `jn.train` runs the check before a training run, inside which targets are traced.
    """

    def note(function: F) -> F:
        function.check_targets = check  # pyright: ignore
        return function

    return note


def targets_check_of(function: Any) -> Callable[[Any], None] | None:
    """Return the targets check declared on a function or on the function of a `functools.partial`, or `None`."""
    return getattr(unwrapped(function), "check_targets", None)


def labels_of(function: Any) -> Labels | None:
    """Return the labels declared on a function or on the function of a `functools.partial`, or `None`."""
    found = getattr(unwrapped(function), "labels", None)
    return found if isinstance(found, Labels) else None


def ignore_label(labels: Labels | None, label: int) -> Labels | None:
    """Return labels with one more that means "no label"."""
    return None if labels is None else replace(labels, none=(*labels.none, label))
