"""The names of reported values: each is unique, and declares whether a lower or a higher value is better."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxnets.core.errors import NetError
from jaxnets.metrics import Metric

Mode = Literal["min", "max"]
SKIPPED = "skipped_steps"
PREFIXES = ("ema/validation/", "validation/")  # of evaluated values


@dataclass(frozen=True)
class Directions:
    """What a program's metrics and objective declare about the values that it reports.

    Attributes:
        metrics: whether higher is better, by name; `None` for a metric that does not say.
        parts: the names of the objective's parts; `None` for a custom objective, whose parts are unknown.
        monitored: whether `monitor` reports further values.
    """

    metrics: Mapping[str, bool | None]
    parts: tuple[str, ...] | None
    monitored: bool

    @classmethod
    def of(cls, metrics: Mapping[str, Metric], objective: Any, monitor: Callable | None) -> "Directions":
        """Return what metrics and an objective declare."""
        higher = {name: metric.higher_is_better for name, metric in metrics.items()}
        return cls(higher, getattr(objective, "names", None), monitor is not None)

    def mode(self, metric: str) -> Mode | None:
        """Return "min" or "max", whichever is better for a value, or `None` if unknown. Losses and parts are "min"."""
        prefix, name = _split(metric)
        if name in self.metrics:
            higher = self.metrics[name]
            return None if higher is None else "max" if higher else "min"
        if name == "loss" or name in (self.parts or ()):
            return "min"
        # Any other name can only be a part of a custom objective, unless `monitor` reports it.
        is_part = self.parts is None and name != SKIPPED and (bool(prefix) or not self.monitored)
        return "min" if is_part else None

    def may_have(self, metric: str) -> bool:
        """Tell whether a value may have this name: custom objectives and `monitor` may report any name."""
        prefix, name = _split(metric)
        all_known = self.parts is not None and (bool(prefix) or not self.monitored)
        return not all_known or name in ("loss", SKIPPED, *(self.parts or ()), *self.metrics)

    def names(self) -> list[str]:
        """Return the names whose mode is declared."""
        return ["loss", *(self.parts or ()), *(name for name, higher in self.metrics.items() if higher is not None)]


def _split(metric: str) -> tuple[str, str]:
    """Split the name of a value into the prefix of evaluated values, if it has one, and the rest."""
    prefix = next((prefix for prefix in PREFIXES if metric.startswith(prefix)), "")
    return prefix, metric.removeprefix(prefix)


def settled(metric: str, mode: Any, directions: Directions | None) -> Mode:
    """Return whether "min" or "max" of a reported value is better: `mode` if given, otherwise what is declared.

    Raises:
        NetError: for another mode, or if it is neither given nor declared.
    """
    if mode not in ("min", "max", None):
        raise NetError(f"expects mode 'min' or 'max' for {metric!r}, got {mode!r}")
    if found := mode or (directions and directions.mode(metric)):
        return found
    known = "" if directions is None else f" (it is for {', '.join(directions.names())})"
    if directions is not None and not directions.may_have(metric):
        known += "; the program reports no value of this name"
        known += f", write validation/{metric[4:]}" if metric.startswith("val_") else ""
    raise NetError(
        f"expects mode 'min' or 'max' for {metric!r}: nothing declares whether higher is better{known}; give mode=, or "
        f"let the metric declare it, Metric(..., higher_is_better=True)"
    )


def merge_unique(*rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reported values of several sources as one dict.

    Raises:
        NetError: if two have the same name, so that one would hide the other.
    """
    found: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if name in found:
                raise _duplicate(name)
            found[name] = value
    return found


def check_names(metrics: Iterable[str], objective: Any, *, skipped: bool = False) -> None:
    """Check that the names of metrics are not used by other values, as far as these are known before a program runs.

    Raises:
        NetError: for the name of the loss, of a part of the objective or of the count of skipped steps, or one that
            starts with a prefix of validation values.
    """
    loss = [] if objective is None else ["loss"]
    taken = {*loss, *(getattr(objective, "names", None) or ()), *([SKIPPED] if skipped else [])}
    for name in metrics:
        if name in taken:
            raise _duplicate(name)
        if name.startswith(PREFIXES):
            raise NetError(f"expects metrics by names without 'validation/' in front, got {name!r}; it is added")


def check_scalar(name: str, row: Mapping[str, Any], label: str) -> None:
    """Check that a value is reported and is a scalar.

    Args:
        name: the value's name.
        row: an epoch's values by name, or their shapes and dtypes.
        label: what needs the value, for the error.

    Raises:
        NetError: if it is not.
    """
    scalars = [each for each, value in row.items() if not getattr(value, "shape", ())]
    if name not in scalars:
        raise NetError(f"finds no scalar {name!r} in the history; it has {', '.join(scalars)}", label=label)


def _duplicate(name: str) -> NetError:
    return NetError(
        f"reports two values under one name, {name!r}, of which one would hide the other; give the metric (or what "
        f"monitor= returns) a name that neither the objective, nor its parts, nor another value has"
    )
