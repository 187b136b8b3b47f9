"""Where a row's time goes: the compiler's operations in one of our turns, or its passes in the turn that compiles.

    python -m experiments.benchmarks.operations ROW [ROW ...] [--peer NAME] [--compile] [--most 20]

By kind: milliseconds and how many, a step, as JAX's profiler has them, summed over threads. What Eigen computes in
threads of its own, convolutions and large products on CPU, is not recorded; the rest of a step's time is theirs and
what threads wait. The profiler slows small steps down.
"""

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.profiler import ProfileData

from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows import ROWS
from experiments.benchmarks.rows.row import OURS
from experiments.benchmarks.timing import timed


def main(names: list[str], peer: str | None, most: int, *, compiles: bool) -> None:
    """Profile and print."""
    for name in names:
        contestant = ROWS[name].makers([peer] if peer else [])[peer or OURS]()
        turn, steps = contestant.turn, 1 if compiles else contestant.work.steps * contestant.trials
        if compiles:
            jax.clear_caches()
        else:
            timed(turn)()
            usual = np.median([timed(turn)() for _ in range(5)])
            print(f"{name}, {peer or OURS}: {1e3 * usual / steps:.3g} ms a step without the profiler")
        for kind, seconds, count in operations(turn, programs=compiles)[:most]:
            print(f"  {1e3 * seconds / steps:10.3f} ms {count / steps:9.1f}  {kind}")


def operations(turn: Callable[[], Any], *, programs: bool = False) -> list[tuple[str, float, int]]:
    """Return what was recorded in the compiler's threads, by kind: its seconds, and how often; the longest first.

    Args:
        turn: what is run.
        programs: whether to name passes and programs as they are; operations lose the number at their end.
    """
    seconds, counts = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            turn()
        (file,) = Path(folder).glob("**/*.xplane.pb")
        lines = [line for plane in ProfileData.from_file(str(file)).planes for line in plane.lines]
    for line in lines:
        if not line.name.startswith("tf_"):  # Python's own threads
            continue
        for event in line.events:
            kind = event.name if programs else re.sub(r"[.\d]+$", "", event.name)
            if not kind.startswith(("end: ", "Thunk", "Slinky")):
                seconds[kind] += event.duration_ns / 1e9
                counts[kind] += 1
    return [(kind, taken, counts[kind]) for kind, taken in seconds.most_common()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*ROWS], metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--peer", choices=[*PEERS], help="somebody else on JAX in place of us")
    parser.add_argument("--compile", action="store_true", dest="compiles", help="the first turn, which compiles")
    parser.add_argument("--most", type=int, default=20, help="how many kinds are shown")
    main(**vars(parser.parse_args()))
