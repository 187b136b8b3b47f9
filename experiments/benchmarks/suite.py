"""All rows one after another, each in a process of its own, gathered in one JSON file."""

import fnmatch
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.benchmarks import machine
from experiments.benchmarks.rows import ROWS
from experiments.benchmarks.rows.row import Row


def chosen(rows: Iterable[Row], only: Sequence[str]) -> list[Row]:
    """Return the rows that patterns ask for.

    Raises:
        ValueError: if there are none.
    """
    known = {row.name: row for row in rows}
    found = [row for name, row in known.items() if any(fnmatch.fnmatch(name, each) for each in only)]
    if not found:
        raise ValueError(f"expects a row of this platform and size, got {' '.join(only)}; there are {', '.join(known)}")
    return found


def run(
    file: Path,
    *,
    full: bool,
    only: Sequence[str],
    allocators: Mapping[str, Sequence[str]],
    rounds: int | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure rows and write them into a file; rows that are there already from the same machine are replaced.

    Args:
        file: written after each row, so that nothing is lost.
        full: whether all rows are measured, with more turns.
        only: patterns over names of rows.
        allocators: who is asked, for each setting of the allocator that rows run with. What is compiled or made
            anew, and what grows, runs with the first alone.
        rounds: how many turns count, in place of the row's own.
        command: what was asked for, to be written beside the numbers.

    Raises:
        ValueError: for patterns without rows, or a file from another machine or other versions.
        RuntimeError: if a row fails.
    """
    found = {"machine": child({"row": "machine"}, "default"), "versions": machine.versions()}
    platform = "cpu" if found["machine"]["platform"] == "cpu" else "gpu"
    suited = (row for row in ROWS.values() if row.platform in (None, platform) and (row.full if full else row.quick))
    rows, peak = chosen(suited, only), found["machine"].pop("matmul_peak")
    results = {**found, "rows": {}}
    if file.exists():
        results = json.loads(file.read_text(encoding="utf-8"))
        changed = [what for what in found if results[what] != found[what]]
        if changed:
            raise ValueError(f"{file} is from another {' and '.join(changed)}; choose another file")
    file.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        for allocator, peers in list(allocators.items())[: 1 if row.forgets or row.growth else None]:
            print(f"{row.name}, allocator {allocator}", file=sys.stderr, flush=True)
            began = time.perf_counter()
            number = rounds or (row.full if full else row.quick)
            record = child({"row": row.name, "rounds": number, "peers": list(peers)}, allocator)
            results["rows"].setdefault(row.name, {})[allocator] = record | about(row, peak, began, command)
            results["rows"] = {name: results["rows"][name] for name in ROWS if name in results["rows"]}
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def about(row: Row, peak: dict[str, float], began: float, command: Sequence[str]) -> dict[str, Any]:
    """Return what a row's record says besides its measurements."""
    return {
        "title": row.title, "unit": row.unit, "growth": row.growth, "matmul_peak": peak,
        "took": time.perf_counter() - began, "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["python", "-m", "experiments.benchmarks", *command]),
    }  # fmt: skip


def child(request: dict[str, Any], allocator: str) -> dict[str, Any]:
    """Return what a process with a setting of the allocator measured.

    Raises:
        RuntimeError: if it fails.
    """
    tuning = machine.ALLOCATORS[allocator]
    environment = os.environ | ({"GLIBC_TUNABLES": tuning} if tuning else {})
    command = [sys.executable, "-m", "experiments.benchmarks.measure", json.dumps(request)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"row {request['row']} failed with code {done.returncode}; what it said is above")
    return json.loads(done.stdout.splitlines()[-1])
