"""The command for a GPU, tried out on a CPU: its rows and their states, its time limit, what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import gpu, ours, report, suite
from experiments.benchmarks.analysis import per_second
from experiments.benchmarks.peers import PEERS, Peer
from experiments.benchmarks.rows.gpu import ONE_BY_ONE, resnet50, rows
from experiments.benchmarks.rows.row import OTHER_WAYS, OURS

ALL = ["mlp-gpu", "lstm-gpu", "lstm-2-gpu", "resnet50-gpu", "population-2-mlps", "population-2-cnns"]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine that is described without being measured."""
    found = {"system": "Linux", "processor": "Some", "cores": 2, "platform": "cpu", "devices": ["NVIDIA H200"]}
    monkeypatch.setattr(suite, "child", lambda *_: found | {"matmul_peak": {"float32": 1e10, "bfloat16": 1e10}})
    return found


def told(file: Path, *given: str) -> tuple[int, Any]:
    """Return the exit code of the command, and its file."""
    code = command.main(["--gpu", "--rounds", "1", "--json", str(file), *given])
    return code, json.loads(file.read_text())


@pytest.mark.slow
def test_the_cheapest_row_is_measured(tmp_path: Path, capsys):
    code, results = told(tmp_path / "a.json", "--tiny", "--only", "mlp-gpu", "--peers")
    assert code == 0
    assert results["states"] == {"mlp-gpu": "measured"}
    record = results["rows"]["mlp-gpu"]["default"]
    assert [*record["contestants"]] == [OURS, OTHER_WAYS[1]]
    shown = capsys.readouterr().out
    assert "MLP, batch 32, epoch of 1,797 (tiny)" in shown
    assert f"{per_second(record, OURS, 'examples'):,.0f} examples/s" in shown
    assert "not measured" not in shown


def test_what_does_not_fit_is_listed_as_not_measured(tmp_path: Path, capsys):
    """The process is ended by an alarm, here before the first row."""
    code, results = told(tmp_path / "new" / "a.json", "--tiny", "--limit", "0.01")
    assert code == 0
    assert results["states"] == dict.fromkeys(ALL, "not measured: the 0.01 s are over")
    assert results["rows"] == {}
    assert "population-2-cnns: not measured: the 0.01 s are over" in capsys.readouterr().out


def test_an_existing_file_and_a_machine_without_gpu_are_refused(tmp_path: Path, capsys):
    file = tmp_path / "a.json"
    assert command.main(["--gpu", "--json", str(file)]) == 1
    assert "expects a GPU; with --tiny" in capsys.readouterr().err
    assert not file.exists()
    file.write_text("{}")
    assert told(file, "--tiny") == (1, {})
    assert f"{file} exists; choose another file" in capsys.readouterr().err


def test_every_row_has_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """A row that fails leaves the others; a process that ends early leaves the rest."""

    def measure(row: Any, *, rounds: int, peers: Any) -> dict[str, Any]:
        if row.name == "lstm-gpu":
            raise RuntimeError("out of memory\nand more")
        if row.name == "resnet50-gpu":
            raise KeyboardInterrupt
        assert (rounds, peers) == (1, [*OTHER_WAYS, *PEERS])
        return {"rounds": 1, "contestants": {}, "left_out": {}, "elsewhere": 0.0}

    def run(arguments: list[str], check: bool) -> Any:
        with pytest.raises(KeyboardInterrupt):
            gpu.main(Path(arguments[-2]), float(arguments[-1]))
        return type("Ended", (), {"returncode": 2})

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu.signal, "setitimer", lambda *_: None)
    monkeypatch.setattr(gpu.subprocess, "run", run)
    code, results = told(tmp_path / "a.json", "--tiny")
    lost = "failed: the process ended with code 2"
    states = ["measured", "failed: RuntimeError: out of memory", "measured", lost, lost, lost]
    assert (code, results["states"]) == (1, dict(zip(ALL, states, strict=True)))
    assert [*results["rows"]] == ["mlp-gpu", "lstm-2-gpu"]
    assert "lstm-gpu: failed: RuntimeError: out of memory" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.promotes
def test_a_population_is_trained_side_by_side_and_one_by_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PEERS, "PyTorch", Peer("none", "no_such_package", {}))
    row = next(row for row in rows(tiny=True) if row.name == "population-2-mlps")
    record = gpu.measure(row, rounds=1, peers=[*PEERS])
    assert record["left_out"] == {"PyTorch": "not installed"}
    assert {name: each["units"] for name, each in record["contestants"].items()} == {OURS: 2, ONE_BY_ONE: 2}


def test_operations_are_the_products_of_a_step():
    """Backwards, a convolution and a dense layer do twice the products, but the first needs no input's gradient."""
    work = resnet50(tiny=True)
    first, last = 8 * 8 * 3 * 3 * 3 * 8, 8 * 10
    assert ours.multiply_adds(work) == len(work.x) * (2 * first + 3 * last)


def test_the_share_of_the_peak_is_shown(machine: dict[str, Any]):
    each = {"seconds": [2.0], "units": 4, "first": 9.0, "precision": "bfloat16", "products": 989e12, "examples": 512}
    record = {"title": "Net", "unit": "step", "contestants": {OURS: each}, "left_out": {}, "elsewhere": 0.0}
    results = {"peak": 989e12, "rows": {"net": {"default": record}}, "states": {"net": "measured"}}
    assert report.text(results).endswith("500 ms    1.00 times ours (1.00 to 1.00); first turn 9.0 s; "
                                         "256 examples/s; 50 % of the GPU's peak")  # fmt: skip
    assert "peak" not in report.text(results | {"peak": None})


def test_full_sizes_are_those_of_the_titles():
    made = {row.name: row for row in rows()}
    assert [name for name in made if name.startswith("population")] == [
        *(f"population-{trials}-mlps" for trials in (64, 256, 1024)),
        *(f"population-{trials}-cnns" for trials in (8, 16, 32, 64)),
    ]
