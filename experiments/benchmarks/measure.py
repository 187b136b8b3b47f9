"""Measure one row in its own process, isolated from other rows; `suite.py` starts it.

`python -m experiments.benchmarks.measure '{"row": "mlp", "rounds": 3, "peers": []}'` prints the record as JSON. The row
"machine" measures the machine.
"""

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax

from experiments.benchmarks import machine, ours
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows import ROWS
from experiments.benchmarks.rows.row import OTHER_WAYS, Row
from experiments.benchmarks.timing import interleaved, timed
from experiments.benchmarks.work import Contestant, Unsuited


def measure(row: Row, *, rounds: int, peers: Sequence[str]) -> dict[str, Any]:
    """Return the record of a row: each contestant's seconds per turn, and its checked counts.

    Everybody is made ready, checked, and has a first turn, which compiles, and a second, which shows the memory.
    Neither counts. Then turns are taken.

    `elsewhere` is how many cores other processes kept busy meanwhile, on average.

    Args:
        row: the row.
        rounds: how many turns count.
        peers: who is asked, of those that the row has.

    Raises:
        ValueError: if somebody's network is not the one described.
    """
    asked, left_out = [], {}
    for name in (name for name in row.peers if name in peers):
        if name in OTHER_WAYS or PEERS[name].installed:
            asked.append(name)
        else:
            left_out[name] = "not installed"
    ready: dict[str, Contestant] = {}
    records: dict[str, dict[str, Any]] = {}
    flops: dict[int, tuple[int, int]] = {}
    for name, make in row.makers(asked).items():
        try:
            contestant, seconds = prepared(name, make)
            first = timed(contestant.turn, _before(row))()
            memory = None if row.forgets else machine.memory_of(contestant.turn)
        except Unsuited as reason:
            left_out[name] = str(reason)
            continue
        except ValueError:
            raise
        except Exception as error:  # a failing peer is left out; a failure of ours ends the row
            if name not in PEERS:
                raise
            left_out[name] = said(error)
            continue
        ready[name] = contestant
        records[name] = {"made": seconds, "first": first, "memory": memory, **counts(row, contestant, flops)}
        print(f"  {name:<24} ready in {seconds:.1f} s, first turn {first:.1f} s", file=sys.stderr, flush=True)
    faults: dict[str, list[int]] = {name: [] for name in ready}
    turns = {name: _counted(timed(each.turn, _before(row)), faults[name]) for name, each in ready.items()}
    began, others = time.perf_counter(), machine.others_seconds()
    for name, seconds in interleaved(turns, rounds=rounds, warm=False).items():
        records[name] |= {"seconds": seconds.tolist(), "page_faults": sorted(faults[name])[len(faults[name]) // 2]}
    elsewhere = max(0.0, machine.others_seconds() - others) / (time.perf_counter() - began)
    return {"rounds": rounds, "contestants": records, "left_out": left_out, "elsewhere": elsewhere}


def said(error: Exception) -> str:
    """Return what an error says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def prepared(name: str, make: Any) -> tuple[Contestant, float]:
    """Return a contestant whose network is the one described, and the seconds it took to make.

    Raises:
        ValueError: if it is another network.
    """
    began = time.perf_counter()
    contestant = make()
    try:
        contestant.check()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return contestant, time.perf_counter() - began


def counts(row: Row, contestant: Contestant, flops: dict[int, tuple[int, int]]) -> dict[str, Any]:
    """Return what a contestant's turn consists of; `flops` keeps what was counted, by the work's identity."""
    work = contestant.work
    per = {"epoch": work.epochs, "step": work.steps, "call": work.steps, "trial": contestant.trials}
    per = (per | {"token": work.tokens * len(work.x)}).get(row.unit, 1)
    if row.unit in ("initialization", "token"):
        flops[id(work)] = 0, 0
    elif id(work) not in flops:  # most contestants of a row share their work
        train = row.unit != "call"
        flops[id(work)] = ours.flops(work, train=train), 2 * ours.multiply_adds(work, train=train)
    total, products = (contestant.trials * each for each in flops[id(work)])
    return {
        "units": per, "steps": work.steps, "trials": contestant.trials, "flops": total, "products": products,
        "examples": contestant.trials * work.epochs * len(work.x),
        "parameters": contestant.parameters, "multiply_adds": contestant.multiply_adds, "precision": work.precision,
    }  # fmt: skip


def _before(row: Row) -> Any:
    if row.unit in ("call", "token"):
        # A turn is short, and the threads of the contestant before wait for more work, busily, for a while.
        return partial(time.sleep, 0.3)
    return jax.clear_caches if row.forgets else lambda: None


def _counted(turn: Any, faults: list[int]) -> Any:
    def seconds() -> float:
        before = machine.page_faults()
        took = turn()
        faults.append(machine.page_faults() - before)
        return took

    return seconds


def main(request: str) -> None:
    """Measure what was asked for and print it."""
    asked = json.loads(request)
    if asked["row"] == "machine":
        found = machine.description() | {"matmul_peak": machine.matmul_peak()}
    else:
        found = measure(ROWS[asked["row"]], rounds=asked["rounds"], peers=asked["peers"])
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
