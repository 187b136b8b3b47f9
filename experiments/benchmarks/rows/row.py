"""A row of the benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.benchmarks.work import Contestant

OURS, SCANNED, LOOPED = "jaxnets", "jaxnets, scanned", "jaxnets, step by step"
ALONE = "jaxnets, one network"  # of those that a sweep trains
OTHER_WAYS = (SCANNED, LOOPED)  # variants of ours, in addition to the main one of a row
Unit = Literal["epoch", "step", "sweep", "trial", "first step", "initialization", "call", "token"]
Makers = Mapping[str, Callable[[], Contestant]]


@dataclass(frozen=True)
class Row:
    """A piece of work and its contestants.

    Attributes:
        name: in commands and files.
        title: in the report.
        unit: what times are given for: an epoch, step, trial, call or token of a turn, or a whole turn.
        makers: gives those who take part, as functions that make them ready, from the names of the peers asked for.
        peers: those who may be asked, ours written the other way among them.
        quick: how many turns count with `--quick`; 0 leaves the row out.
        full: likewise with `--full`.
        forgets: whether all that was compiled is forgotten before each turn.
        platform: where the row has its size; both if `None`.
        growth: what grows from contestant to contestant, if anything.
    """

    name: str
    title: str
    unit: Unit
    makers: Callable[[Sequence[str]], Makers]
    peers: tuple[str, ...] = ()
    quick: int = 3
    full: int = 9
    forgets: bool = False
    platform: Literal["cpu", "gpu"] | None = None
    growth: str = ""
