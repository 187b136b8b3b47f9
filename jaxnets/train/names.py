"""The names that values are reported under: none twice, and whether more or less of each is better."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxnets.core.errors import NetError
from jaxnets.metrics import Metric

Mode = Literal["min", "max"]
SKIPPED = "skipped_steps"
FRONTS = ("ema/validation/", "validation/")  # of what is evaluated


@dataclass(frozen=True)
class Directions:
    """What a program's parts declare of the values that it reports.

    Attributes:
        metrics: whether higher is better, by name; `None` where a metric does not say.
        parts: the names of the objective's parts; `None` for an objective of one's own, which does not tell them.
        watched: whether `monitor` reports more.
    """

    metrics: Mapping[str, bool | None]
    parts: tuple[str, ...] | None
    watched: bool

    @classmethod
    def of(cls, metrics: Mapping[str, Metric], objective: Any, monitor: Callable | None) -> "Directions":
        """Return what metrics and an objective declare."""
        higher = {name: metric.higher_is_better for name, metric in metrics.items()}
        return cls(higher, getattr(objective, "names", None), monitor is not None)

    def mode(self, metric: str) -> Mode | None:
        """Return whether less or more of a value is better: less of a loss and its parts; `None` if unknown."""
        front = next((front for front in FRONTS if metric.startswith(front)), "")
        name = metric.removeprefix(front)
        if name in self.metrics:
            higher = self.metrics[name]
            return None if higher is None else "max" if higher else "min"
        if name == "loss" or name in (self.parts or ()):
            return "min"
        untold = self.parts is None and name != SKIPPED and (bool(front) or not self.watched)
        return "min" if untold else None  # nothing else has a name there

    def may_have(self, metric: str) -> bool:
        """Tell whether a value may have this name: objectives of one's own and `monitor` report under any."""
        front = next((front for front in FRONTS if metric.startswith(front)), "")
        name = metric.removeprefix(front)
        told = self.parts is not None and (bool(front) or not self.watched)
        return not told or name in ("loss", SKIPPED, *(self.parts or ()), *self.metrics)

    def names(self) -> list[str]:
        """Return the names that declare it."""
        return ["loss", *(self.parts or ()), *(name for name, higher in self.metrics.items() if higher is not None)]


def settled(metric: str, mode: Any, directions: Directions | None) -> Mode:
    """Return whether "min" or "max" of a reported value is better: `mode` if given, else what its maker declares.

    Raises:
        NetError: for another mode, or if none is given and nothing declares it.
    """
    if mode not in ("min", "max", None):
        raise NetError(f"expects mode 'min' or 'max' for {metric!r}, got {mode!r}")
    if found := mode or (directions and directions.mode(metric)):
        return found
    known = "" if directions is None else f" (it is for {', '.join(directions.names())})"
    if directions is not None and not directions.may_have(metric):
        known += "; the program reports nothing of this name"
        known += f", write {FRONTS[1]}{metric[4:]}" if metric.startswith("val_") else ""
    raise NetError(
        f"expects mode 'min' or 'max' for {metric!r}: nothing declares whether higher is better{known}; give mode=, or "
        f"let the metric declare it, Metric(..., higher_is_better=True)"
    )


def together(*rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return values under their names as one dict.

    Raises:
        NetError: if two have one name, of which only one would be seen.
    """
    found: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if name in found:
                raise _taken(name)
            found[name] = value
    return found


def check_names(metrics: Iterable[str], objective: Any, *, skipped: bool = False) -> None:
    """Check that metrics have names of their own, as far as the others are known before anything runs.

    Raises:
        NetError: if one is called as the loss, a part of the objective or the count of skipped steps, or as if it were
            of the validation set.
    """
    whole = [] if objective is None else ["loss"]
    taken = {*whole, *(getattr(objective, "names", None) or ()), *([SKIPPED] if skipped else [])}
    for name in metrics:
        if name in taken:
            raise _taken(name)
        if name.startswith(FRONTS):
            raise NetError(f"expects metrics by names without 'validation/' in front, got {name!r}; it is added")


def _taken(name: str) -> NetError:
    return NetError(
        f"reports two values under one name, {name!r}, of which one would hide the other; give the metric (or what "
        f"monitor= returns) another name than the objective, its parts and the rest have"
    )
