"""The benchmark suite: jaxnets and other libraries, row by row.

    python -m experiments.benchmarks [--quick | --full] [--only PATTERN ...] [--peers NAME ...] [--json FILE]
    python -m experiments.benchmarks --gpu [--limit SECONDS] [--tiny] [--only PATTERN ...] [--json FILE]
    python -m experiments.benchmarks report [--check]

The first measures on this machine, CPU or one GPU, and prints ratios. The second measures the rows for a GPU, within a
time limit and into a new file. The third writes docs/benchmarks.md and its figures from the files in
experiments/benchmarks/results. The extra `benchmarks` installs the peers; install PyTorch separately, for your
platform. Peers that are not installed are reported and left out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks import gpu, report, suite
from experiments.benchmarks.machine import ALLOCATORS
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows.row import OTHER_WAYS

FEW = ("PyTorch", "Flax Linen")  # with --quick, and with all settings of the allocator but the first
LIMIT = 520.0  # seconds


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("what", nargs="?", choices=["run", "report"], default="run", help="measure, or write the page")
    size = made.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="few turns, fewer rows and peers (default)")
    size.add_argument("--full", action="store_true", help="all rows and peers, both settings of the allocator")
    size.add_argument("--gpu", action="store_true", help="the rows for one GPU, within a time limit")
    made.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="--gpu: for all rows; %(default)s")
    made.add_argument("--tiny", action="store_true", help="--gpu: small sizes, to try the command out on any machine")
    made.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="rows by name, such as 'sweep-*'")
    made.add_argument("--peers", nargs="*", choices=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    made.add_argument("--allocators", nargs="+", choices=list(ALLOCATORS), help="settings of glibc's allocator")
    made.add_argument("--rounds", type=int, help="how many turns count, in place of each row's own number")
    made.add_argument("--json", type=Path, default=Path("benchmarks.json"), metavar="FILE", help="%(default)s")
    made.add_argument("--check", action="store_true", help="report: write nothing, fail if the page is out of date")
    return made


def main(given: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    asked = parser().parse_args(given)
    if asked.what == "report":
        return report.main(check=asked.check)
    if asked.rounds is not None and asked.rounds < 1:
        parser().error(f"expects at least 1 round, got {asked.rounds}")
    if asked.gpu:
        return _gpu(asked)
    try:
        peers = [*asked.peers] if asked.peers is not None else list(PEERS) if asked.full else [*FEW]
        first, *others = asked.allocators or (list(ALLOCATORS) if asked.full else ["default"])
        few = [peer for peer in peers if peer in FEW]
        results = suite.run(
            asked.json,
            full=asked.full,
            only=asked.only,
            allocators={first: [*(OTHER_WAYS if asked.full else ()), *peers]} | dict.fromkeys(others, few),
            rounds=asked.rounds,
            command=written(asked),
        )
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text(results))
    print(f"written: {asked.json}")
    return 0


def _gpu(asked: argparse.Namespace) -> int:
    try:
        results = gpu.run(
            asked.json,
            only=asked.only,
            peers=list(PEERS) if asked.peers is None else asked.peers,
            limit=asked.limit,
            tiny=asked.tiny,
            rounds=asked.rounds,
            command=written(asked),
        )
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text(results))
    print(f"written: {asked.json}")
    return int(any(state.startswith("failed") for state in results["states"].values()))


def written(asked: argparse.Namespace) -> list[str]:
    """Return the arguments as typed, without the file."""
    lists = {
        "--only": [] if asked.only == ["*"] else asked.only,
        "--allocators": asked.allocators,
        "--peers": asked.peers,
    }
    given = [word for name, words in lists.items() if words for word in (name, *words)]
    numbers = {"--limit": asked.limit if asked.limit != LIMIT else None, "--rounds": asked.rounds}
    flags = [f"--{name}" for name in ("full", "gpu", "tiny") if getattr(asked, name)]
    return [*flags, *given, *(word for name, n in numbers.items() if n is not None for word in (name, f"{n:g}"))]


if __name__ == "__main__":
    sys.exit(main())
