"""Analysis of a results file: pure functions from its records to ratios, shares of peak and exponents."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experiments.benchmarks.goals import GOALS, Goal
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows.row import ALONE, LOOPED, OURS, SCANNED
from experiments.benchmarks.timing import ratio

Record = dict[str, Any]
GROUPS = ("PyTorch", "JAX")
EAGER = "PyTorch, eager"  # a group where it has a goal of its own, and is not the faster one
OTHERS = ("onnxruntime",)  # compared in words and in the table of every contestant


@dataclass(frozen=True)
class Verdict:
    """Our time compared with that of the fastest of a group of peers.

    Attributes:
        row: name of the row.
        title: its title.
        group: "PyTorch", "JAX" or another.
        peer: the fastest of the group.
        times: its time over ours.
        low: of the 95 % interval.
        high: of the 95 % interval.
        goal: for `times`.
    """

    row: str
    title: str
    group: str
    peer: str
    times: float
    low: float
    high: float
    goal: float | None

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.goal is None or self.times >= self.goal


def median(record: Record, name: str) -> float:
    """Return a contestant's seconds for a unit: an epoch, a step, or the whole turn."""
    each = record["contestants"][name]
    return float(np.median(each["seconds"])) / each["units"]


def compared(record: Record, ours: str, peer: str) -> tuple[float, float, float]:
    """Return a peer's time for a unit over ours and its 95 % interval."""
    both = (record["contestants"][name] for name in (peer, ours))
    return ratio(*(np.array(each["seconds"]) / each["units"] for each in both))


def verdict(row: str, record: Record, group: str) -> Verdict | None:
    """Return our time compared with a group; `None` if none of it took part."""
    goal = GOALS.get(row, Goal())
    known = "PyTorch" if group == EAGER and goal.eager is not None else group
    names = [name for name in record["contestants"] if name in PEERS and PEERS[name].group == known]
    best = min(names, key=lambda name: median(record, name), default=None)
    if group == EAGER:
        best = None if best == "PyTorch" or "PyTorch" not in names else "PyTorch"
    if best is None:
        return None
    aims = {"PyTorch": goal.pytorch, "JAX": goal.jax, EAGER: goal.eager}
    aim = goal.eager if best == "PyTorch" and goal.eager is not None else aims.get(group)
    return Verdict(row, record["title"], group, best, *compared(record, OURS, best), aim)


def verdicts(results: Record, allocator: str) -> Iterator[Verdict]:
    """Yield all verdicts for one setting of the allocator."""
    for row, record in of_allocator(results, allocator):
        found = (verdict(row, record, group) for group in (*GROUPS, EAGER, *OTHERS))
        yield from (each for each in found if each is not None)


def of_allocator(results: Record, allocator: str) -> Iterator[tuple[str, Record]]:
    """Yield the rows measured with a setting of the allocator."""
    for row, records in results["rows"].items():
        if allocator in records:
            yield row, records[allocator]


def per_second(record: Record, name: str, what: Literal["examples", "flops", "products"]) -> float:
    """Return how many of a turn's examples or operations a contestant does a second."""
    each = record["contestants"][name]
    return each[what] / float(np.median(each["seconds"]))


def share_of_peak(record: Record, name: str) -> float | None:
    """Return the work's floating-point operations a second over the machine's best; `None` for a row without them."""
    each = record["contestants"][name]
    if not each["flops"]:
        return None
    return per_second(record, name, "flops") / record["matmul_peak"][each["precision"]]


def scan_over_loop(record: Record) -> tuple[float, float, float] | None:
    """Return the time of a step in a scan over one outside; `None` for a row without both."""
    names = record["contestants"]
    for scanned, looped in ((OURS, LOOPED), (SCANNED, OURS)):
        if scanned in names and looped in names:
            return compared(record, looped, scanned)
    return None


def together_over_alone(record: Record) -> tuple[float, float, float] | None:
    """Return the time of a sweep over that of one of its networks; `None` for a row without both."""
    both = {OURS, ALONE} <= set(record["contestants"])
    return compared(record, ALONE, OURS) if both else None


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """Return the power of the work by which time grows, over the larger half of the sizes."""
    work, seconds = np.log(np.array(sorted(points))).T
    half = len(work) // 2
    return float(np.polyfit(work[half:], seconds[half:], 1)[0])


def growth(record: Record) -> list[tuple[float, float]]:
    """Return (floating-point operations, seconds) of a turn for each size."""
    each = record["contestants"].values()
    return [(float(one["flops"]), float(np.median(one["seconds"]))) for one in each]
