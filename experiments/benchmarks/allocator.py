"""The allocator as it is beside the tuned one, set before JAX is imported, after it, and after a first computation.

    python -m experiments.benchmarks.allocator [NAME ...] [--when never after] [--rounds 9]

Milliseconds and page faults a step. A setting is of a whole process, so each has one of its own; they take turns.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmarks.timing import interleaved, ratio
from jaxnets.allocator import TUNABLES

WHEN = ("never", "before", "after", "late")


def main(names: list[str], when: Sequence[str] = WHEN, rounds: int = 9) -> None:
    """Time and print."""
    print(f"{'':<14}{'':<8}{'ms a step':>10}{'faults':>10}   ratio")
    for name in names or ["lstm-gradient"]:
        with ExitStack() as stack:
            children = {each: stack.enter_context(_child(name, each)) for each in when}
            for child in children.values():
                _ask(child)  # compiled
                _ask(child)
            faults: dict[str, list[float]] = {each: [] for each in when}
            turns = {each: partial(_turn, children[each], faults[each]) for each in when}
            took = interleaved(turns, rounds=rounds)
        for each, seconds in took.items():
            middle, low, high = ratio(took[when[0]], seconds)
            print(
                f"{name:<14}{each:<8}{1000 * np.median(seconds):10.2f}{np.median(faults[each]):10.0f}"
                f"   {middle:.2f} ({low:.2f} to {high:.2f})",
                flush=True,
            )


def _child(name: str, when: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.benchmarks.allocator", "--child", when, name]
    environment = os.environ | ({"GLIBC_TUNABLES": TUNABLES} if when == "before" else {})
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _ask(child: Any) -> tuple[float, float]:
    child.stdin.write("\n")
    child.stdin.flush()
    seconds, faults = json.loads(child.stdout.readline())
    return seconds, faults


def _turn(child: Any, faults: list[float]) -> float:
    seconds, number = _ask(child)
    faults.append(number)
    return seconds


def serve(name: str, when: str) -> None:
    """Take a turn for each line that is read, and print its seconds and page faults a step."""
    from jaxnets.allocator import tune_allocator

    if when == "after":
        tune_allocator()
    from experiments.benchmarks import machine
    from experiments.benchmarks.compiler_options import WORKS, trained
    from experiments.benchmarks.timing import timed

    make, _ = WORKS[name]
    work = replace(make(), epochs=1)
    turn = timed(trained(work, None))
    if when == "late":
        turn()
        tune_allocator()
    for _ in sys.stdin:
        before = machine.page_faults()
        seconds = turn()
        print(json.dumps([seconds / work.steps, (machine.page_faults() - before) / work.steps]), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Settings of glibc's allocator beside each other.")
    parser.add_argument("names", nargs="*", help="what is trained")
    parser.add_argument("--when", nargs="+", default=WHEN, choices=WHEN, help="settings; ratios are to the first")
    parser.add_argument("--rounds", type=int, default=9, help="how many turns count")
    parser.add_argument("--child", choices=WHEN, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        serve(arguments.names[0], arguments.child)
    else:
        main(arguments.names, arguments.when, arguments.rounds)
