"""What is measured: rows of made-up contestants, memory, page faults."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from experiments.benchmarks import data, machine, measure, networks
from experiments.benchmarks.peers import PEERS, Peer
from experiments.benchmarks.rows import ROWS
from experiments.benchmarks.rows.row import OTHER_WAYS, OURS, Row
from experiments.benchmarks.work import Contestant, Unsuited, Work

WORK = Work(networks.mlp(4, classes=3), data.noise(4, 6), data.classes(4, 3), 2, epochs=3)
PARAMETERS, MULTIPLY_ADDS = 6 * 4 + 4 + 4 * 3 + 3, 2 * (6 * 4 + 4 * 3)


def contestant(seconds: float) -> Contestant:
    return Contestant(WORK, lambda: time.sleep(seconds), PARAMETERS, MULTIPLY_ADDS, {})


def row(**makers) -> Row:
    def taking_part(names):
        return {OURS: lambda: contestant(0.01)} | {name: makers[name] for name in names}

    return Row("made-up", "Made up", "epoch", taking_part, tuple(makers))


def fail(error: Exception):
    raise error


def test_a_row_has_everybodys_turns_and_who_was_left_out(monkeypatch: pytest.MonkeyPatch):
    for name in ("slow", "absent", "unsuited", "broken", "unasked"):
        monkeypatch.setitem(PEERS, name, Peer("none", "no_such_package" if name == "absent" else "jax", {}))
    made = row(
        slow=lambda: contestant(0.03),
        absent=lambda: fail(AssertionError("is not made")),
        unsuited=lambda: fail(Unsuited("in float32 alone")),
        broken=lambda: fail(RuntimeError("no compiler\nand more")),
        unasked=lambda: fail(AssertionError("is not made")),
    )
    record = measure.measure(made, rounds=3, peers=["slow", "absent", "unsuited", "broken"])
    assert record["left_out"] == {
        "absent": "not installed", "unsuited": "in float32 alone", "broken": "RuntimeError: no compiler",
    }  # fmt: skip
    assert set(record["contestants"]) == {OURS, "slow"}
    slow = record["contestants"]["slow"]
    assert len(slow["seconds"]) == record["rounds"] == 3
    assert min(slow["seconds"]) >= 0.03
    assert (slow["units"], slow["steps"], slow["parameters"], slow["multiply_adds"]) == (3, 6, 43, 72)
    assert slow["flops"] > 3 * 2 * 36 * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"parameters": 44}, "43 parameters, got 44"), ({"multiply_adds": 1}, "72 multiply-adds, got 1")],
)
def test_another_network_is_named_and_never_timed(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, int], message: str):
    monkeypatch.setitem(PEERS, "other", Peer("none", "jax", {}))
    with pytest.raises(ValueError, match=f"other: expects {message}"):
        measure.measure(row(other=lambda: replace(contestant(0.0), **wrong)), rounds=1, peers=["other"])


def test_decoding_is_measured_by_the_token():
    work = replace(WORK, tokens=7)
    decoding = replace(row(), unit="token")
    counted = measure.counts(decoding, replace(contestant(0), work=work), {})
    assert (counted["units"], counted["flops"]) == (7 * 4, 0)


def test_our_own_failure_is_raised():
    made = Row("made-up", "Made up", "step", lambda _: {OURS: lambda: fail(RuntimeError("we fail"))})
    with pytest.raises(RuntimeError, match="we fail"):
        measure.measure(made, rounds=1, peers=[])


def test_what_others_do_is_seen():
    """A process that computes for half a second, beside one that sleeps."""
    before, own = machine.others_seconds(), os.times()
    code = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert machine.others_seconds() - before > 0.4
    assert os.times().user - own.user < 0.2


def test_memory_is_what_a_turn_needs():
    needed = machine.memory_of(lambda: np.ones(2**23).sum())  # 64 MiB
    assert needed is not None
    assert 60 * 2**20 < needed < 80 * 2**20


def test_the_tuned_allocator_gives_pages_once():
    """Ten arrays of 32 MiB one after another: 8,192 pages each by default, none but the first tuned."""
    code = """
import resource, numpy as np
np.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): np.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"""
    faults = {}
    for name, tuning in machine.ALLOCATORS.items():
        environment = os.environ | ({"GLIBC_TUNABLES": tuning} if tuning else {})
        shown = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
        )
        faults[name] = int(shown.stdout)
    assert faults["tuned"] < 100 < faults["default"]


def test_rows_have_names_of_their_own_and_known_peers():
    assert all(name == made.name for name, made in ROWS.items())
    assert {peer for made in ROWS.values() for peer in made.peers} == {*PEERS, *OTHER_WAYS}
    titles = [made.title for made in ROWS.values() if not made.growth]
    assert len(set(titles)) == len(titles)
