"""What a study is: a claim, what would refute it, an experiment, and a verdict computed from its results."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import ndtr, stdtrit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Results = dict[str, Any]
Size = Literal["tiny", "quick", "full"]
Outcome = Literal["confirmed", "confirmed with conditions", "not confirmed"]


@dataclass(frozen=True)
class About:
    """What a study is about.

    Attributes:
        title: a few words.
        claim: what is claimed, in one sentence.
        source: where it is usually written.
        refuted_by: what the experiment would show if the claim were wrong.
        data: what it is tested on.
        minutes: what the full size takes on two cores, as measured.
        concepts: the functions of jaxnets that it is about, such as "jn.losses.hinge".
        gpu_minutes: what the full size takes on one GPU, as measured; `None` until somebody has.
    """

    title: str
    claim: str
    source: str
    refuted_by: str
    data: str
    minutes: float
    concepts: tuple[str, ...] = ()
    gpu_minutes: float | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that was measured, with a 95 % interval, and whether the claim has it so.

    Attributes:
        statement: what is measured and what the claim expects, in words.
        value: the estimate.
        low: the interval's lower end.
        high: its upper end.
        unit: of all three; "" for a ratio or a plain number.
        holds: whether it is as expected: the whole interval, not the estimate alone.
        core: whether the claim falls with it; if not, it is a condition.
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
    """What the findings make of the claim.

    Attributes:
        outcome: the verdict.
        findings: what it follows from.
    """

    outcome: Outcome
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Study:
    """A module of `experiments.studies`.

    Attributes:
        name: the module's.
        about: its `ABOUT`.
        module: itself, with `Config` (its defaults are the full size), `QUICK`, `TINY`, `run`, `figure`, `verdict`.
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
        """What draws the results."""
        return self.module.figure

    @property
    def verdict(self) -> Callable[[Results], Verdict]:
        """What judges them."""
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
    """Return the verdict: confirmed if all hold, with conditions if the core does, else not confirmed."""
    if not all(each.holds for each in findings if each.core):
        return Verdict("not confirmed", findings)
    whole = all(each.holds for each in findings)
    return Verdict("confirmed" if whole else "confirmed with conditions", findings)


def above(statement: str, values: Any, bound: float = 0.0, unit: str = "", *, core: bool = True) -> Finding:
    """Return the finding that a mean over seeds is above a bound, with all of its interval."""
    value, low, high = mean(values)
    return Finding(statement, value, low, high, unit, low > bound, core)


def below(statement: str, values: Any, bound: float = 0.0, unit: str = "", *, core: bool = True) -> Finding:
    """Return the finding that a mean over seeds is below a bound, with all of its interval."""
    value, low, high = mean(values)
    return Finding(statement, value, low, high, unit, high < bound, core)


def mean(values: Any, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean over seeds and its 95 % interval, by bootstrap.

    Percentiles of resampled means are too narrow for few seeds; their levels are moved out to where Student's interval
    would be for normal numbers (Hesterberg, "What Teachers Should Know About the Bootstrap" (2015), section 5.3).

    Args:
        values: `(seeds,)`; for a comparison the differences, or logarithms of ratios, of runs that share a seed.
        draws: how many resampled means the percentiles are taken from.
        seed: of the resampling.

    >>> mean([1.0, 2.0, 3.0])[0]
    2.0
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"expected a number for each seed, got the shape {values.shape}")
    count = len(values)
    if count == 1:
        return float(values[0]), float(values[0]), float(values[0])
    share = ndtr(-np.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.975))
    places = np.random.default_rng(seed).integers(count, size=(draws, count))
    low, high = np.percentile(values[places].mean(1), [100 * share, 100 * (1 - share)])
    return float(values.mean()), float(low), float(high)


def bands(values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean over seeds, the first axis, and its 95 % band, each of the remaining shape."""
    values = np.asarray(values, np.float64)
    rows = np.array([mean(column) for column in values.reshape(len(values), -1).T])
    middle, low, high = (rows[:, place].reshape(values.shape[1:]) for place in range(3))
    return middle, low, high


def table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table in Markdown, a column a name.

    >>> print(table(["a", "b"], [{"a": 1, "b": "x"}]))
    | a | b |
    | --- | --- |
    | 1 | x |
    """
    lines = [list(names), ["---"] * len(names), *([f"{row[name]}" for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
