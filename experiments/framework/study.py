"""A study: a claim, what would refute it, an experiment, and a verdict that is computed from its results."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxnets.plot.style import bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Results = dict[str, Any]
Size = Literal["tiny", "quick", "full"]
Outcome = Literal["confirmed", "confirmed with conditions", "not confirmed"]


@dataclass(frozen=True)
class About:
    """The claim of a study and where it comes from.

    Attributes:
        title: a few words.
        claim: what is claimed, in one sentence.
        source: the usual references.
        refuted_by: what the experiment would show if the claim were wrong.
        data: what the claim is tested on.
        minutes: measured time of the full size on two cores.
        concepts: the functions of jaxnets that the study is about, such as "jn.losses.hinge".
        gpu_minutes: measured time of the full size on one GPU; `None` if nobody has measured it.
        reservations: how the settings were found, and what the result does not show, in sentences.
    """

    title: str
    claim: str
    source: str
    refuted_by: str
    data: str
    minutes: float
    concepts: tuple[str, ...] = ()
    gpu_minutes: float | None = None
    reservations: str = ""


@dataclass(frozen=True)
class Finding:
    """A measured quantity with its 95 % interval, and whether it is as the claim expects.

    Attributes:
        statement: what is measured and what the claim expects, in words.
        value: the estimate.
        low: the interval's lower end.
        high: its upper end.
        unit: of all three; "" for a ratio or a plain number.
        holds: whether the whole interval, not the estimate alone, is as expected.
        core: whether the claim is refuted if it does not hold; otherwise it is a condition.
    """

    statement: str
    value: float
    low: float
    high: float
    unit: str
    holds: bool
    core: bool = True


@dataclass(frozen=True)
class Verdict:
    """The outcome of a study.

    Attributes:
        outcome: what the findings make of the claim.
        findings: what the outcome follows from.
    """

    outcome: Outcome
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Study:
    """A module of `experiments.studies`.

    Attributes:
        name: the name of the module.
        about: its `ABOUT`.
        module: the module, with `Config` (its defaults are the full size), `QUICK`, `TINY`, `run`, `figure` and
            `verdict`.
    """

    name: str
    about: About
    module: ModuleType

    def config(self, size: Size) -> Any:
        """Return the configuration of a size."""
        return self.module.Config() if size == "full" else getattr(self.module, size.upper())

    @property
    def run(self) -> Callable[[Any], Results]:
        """The experiment: `run(config)` returns numbers, strings, lists and arrays by name."""
        return self.module.run

    @property
    def figure(self) -> Callable[[Results], "Figure"]:
        """The function that draws the results."""
        return self.module.figure

    @property
    def verdict(self) -> Callable[[Results], Verdict]:
        """The function that judges the results."""
        return self.module.verdict


def studies() -> dict[str, Study]:
    """Return all studies by name."""
    from experiments import studies as package

    found = {}
    for each in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        module = importlib.import_module(f"{package.__name__}.{each.name}")
        found[each.name] = Study(each.name, module.ABOUT, module)
    return found


def judge(*findings: Finding) -> Verdict:
    """Return the verdict: confirmed if all findings hold, with conditions if the core does, else not confirmed."""
    if not all(each.holds for each in findings if each.core):
        return Verdict("not confirmed", findings)
    whole = all(each.holds for each in findings)
    return Verdict("confirmed" if whole else "confirmed with conditions", findings)


def above(statement: str, values: Any, bound: float = 0.0, unit: str = "", *, core: bool = True) -> Finding:
    """Return the finding that the mean of `values`, one per seed, is above a bound with all of its interval."""
    value, low, high = _interval(values)
    return Finding(statement, value, low, high, unit, low > bound, core)


def below(statement: str, values: Any, bound: float = 0.0, unit: str = "", *, core: bool = True) -> Finding:
    """Return the finding that the mean of `values`, one per seed, is below a bound with all of its interval."""
    value, low, high = _interval(values)
    return Finding(statement, value, low, high, unit, high < bound, core)


def _interval(values: Any) -> tuple[float, float, float]:
    if np.ndim(values) != 1:
        raise ValueError(f"expects a number for each seed, got the shape {np.shape(values)}")
    value, low, high = bootstrap(values)
    return float(value), float(low), float(high)


def table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table with a column for each name.

    >>> print(table(["a", "b"], [{"a": 1, "b": "x"}]))
    | a | b |
    | --- | --- |
    | 1 | x |
    """
    lines = [list(names), ["---"] * len(names), *([f"{row[name]}" for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
