"""The rows for one GPU, in one process that ends when the time is up: `python -m experiments.benchmarks --gpu`.

The file has the state of every row from the beginning. Each row is written when it is measured, so that an end at any
time loses no other.
"""

import json
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks import machine, suite
from experiments.benchmarks.measure import measure, said
from experiments.benchmarks.rows.gpu import rows
from experiments.benchmarks.rows.row import OTHER_WAYS

MEASURED, WAITING = "measured", "not measured"


def run(
    file: Path,
    *,
    only: Sequence[str],
    peers: Sequence[str],
    limit: float,
    tiny: bool = False,
    rounds: int | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure rows into a new file and return what it holds.

    Args:
        file: must not exist.
        only: patterns over names of rows.
        peers: who is asked.
        limit: seconds for everything; a row that is not done by then is not measured.
        tiny: whether sizes are small, to try the command out; otherwise a GPU is needed.
        rounds: how many turns count, in place of each row's own number.
        command: what was asked for, to be written beside the numbers.

    Raises:
        ValueError: for patterns without rows, a file that exists, or a machine without a GPU.
    """
    began = time.time()
    states = dict.fromkeys((row.name for row in suite.chosen(rows(tiny=tiny), only)), WAITING)
    if file.exists():
        raise ValueError(f"{file} exists; choose another file")
    found = suite.child({"row": "machine"}, "default")
    if found["platform"] == "cpu" and not tiny:
        raise ValueError("expects a GPU; with --tiny the command is tried out on any machine")
    peaks = {"matmul_peak": found.pop("matmul_peak"), "peak": machine.PEAKS.get(found["devices"][0])}
    asked = {"peers": [*OTHER_WAYS, *peers], "limit": limit, "tiny": tiny, "rounds": rounds, "command": [*command]}
    about = {"machine": found, "versions": machine.versions(), **peaks, "asked": asked}
    file.parent.mkdir(parents=True, exist_ok=True)
    _write(file, {**about, "states": states, "rows": {}})
    code = subprocess.run([sys.executable, "-m", __name__, str(file), str(began + limit)], check=False).returncode
    over = code == -signal.SIGALRM
    reason = f"{WAITING}: the {limit:g} s are over" if over else f"failed: the process ended with code {code}"
    results = json.loads(file.read_text(encoding="utf-8"))
    results["states"] = {name: reason if state == WAITING else state for name, state in results["states"].items()}
    _write(file, results)
    return results


def main(file: Path, until: float) -> None:
    """Measure the rows that a file waits for, until a time at which the process is ended, whatever it does."""
    signal.setitimer(signal.ITIMER_REAL, max(1e-3, until - time.time()))
    results = json.loads(file.read_text(encoding="utf-8"))
    asked, states = results["asked"], results["states"]
    for row in rows(tiny=asked["tiny"]):
        if row.name not in states:
            continue
        print(row.name, file=sys.stderr, flush=True)
        began = time.perf_counter()
        try:
            record = measure(row, rounds=asked["rounds"] or row.full, peers=asked["peers"])
        except Exception as error:  # the other rows are measured all the same
            traceback.print_exc()
            states[row.name] = f"failed: {said(error)}"
        else:
            about = suite.about(row, results["matmul_peak"], began, asked["command"])
            results["rows"][row.name] = {"default": record | about}
            states[row.name] = MEASURED
        _write(file, results)
        jax.clear_caches()  # programs of a row are of no use to the next


def _write(file: Path, results: dict[str, Any]) -> None:
    """Replace a file in one step, so that it is whole even if the process is killed meanwhile."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    new.replace(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
