"""The command: what it takes, what it writes, and what the report makes of it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import analysis, report, suite
from experiments.benchmarks.goals import GOALS
from experiments.benchmarks.rows import ROWS
from experiments.benchmarks.rows.row import ALONE, LOOPED, OTHER_WAYS, OURS

MACHINE = {"system": "Linux on x86_64", "processor": "Some", "cores": 2, "platform": "cpu", "devices": ["cpu"]}


def turns(*seconds: float, flops: float = 1e9) -> dict[str, Any]:
    return {
        "made": 1.0, "first": 2.0, "memory": 3 * 2**20, "units": 2, "steps": 4, "trials": 1, "flops": flops,
        "products": flops, "examples": 8, "parameters": 5, "multiply_adds": 6, "precision": "float32",
        "seconds": list(seconds), "page_faults": 1234,
    }  # fmt: skip


def record(title: str, growth: str, contestants: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title, "unit": "epoch", "growth": growth, "matmul_peak": {"float32": 1e10}, "took": 1.0,
        "date": "2026-11-21",
        "command": "python -m experiments.benchmarks --full", "rounds": 3, "elsewhere": 0.0,
        "left_out": {"Haiku": "not installed"},
        "contestants": contestants,
    }  # fmt: skip


MLP = record(
    "MLP",
    "",
    {
        OURS: turns(0.5, 0.4, 0.6),
        LOOPED: turns(1.0, 1.0, 1.0),
        "PyTorch": turns(6.0, 6.0, 6.0),
        "PyTorch, compiled": turns(5.5, 5.5, 5.5),
        "Flax Linen": turns(0.4, 0.4, 0.4),
        "Equinox": turns(9.0, 9.0, 9.0),
    },
)
GROWTH = record("Nets", "width", {str(size): turns(2e-3 * size**1.5, flops=1e6 * size) for size in (1, 2, 4, 8)})
RESULTS = {
    "machine": MACHINE, "versions": {"jax": "0.10.2"},
    "rows": {"mlp": {"default": MLP, "tuned": MLP}, "growth-width": {"default": GROWTH}},
}  # fmt: skip


def test_ratios_goals_roofs_and_exponents():
    pytorch, jax = analysis.verdicts({"rows": {"mlp": {"default": MLP}}}, "default")
    assert (pytorch.peer, pytorch.times, pytorch.goal, pytorch.reached) == ("PyTorch, compiled", 11.0, 10, True)
    assert (pytorch.low, pytorch.high) == pytest.approx((5.5 / 0.6, 5.5 / 0.4))
    assert (jax.peer, jax.times, jax.reached) == ("Flax Linen", pytest.approx(0.8), False)
    assert analysis.median(MLP, OURS) == 0.25  # half a second for two epochs
    assert analysis.share_of_peak(MLP, OURS) == pytest.approx(0.2)  # 2e9 of 1e10
    scan = analysis.scan_over_loop(MLP)
    assert scan is not None
    assert scan[0] == 0.5
    assert analysis.scan_over_loop(GROWTH) is None
    assert analysis.exponent(analysis.growth(GROWTH)) == pytest.approx(1.5)


def test_the_page_says_where_a_peer_is_faster():
    page = report.page({"cpu": RESULTS})
    assert "jaxnets is slower than a peer in: MLP (Flax Linen takes 0.80 of our time)." in page
    assert "1 of 2 goals are reached." in page
    assert (
        "| MLP | 250 ms | 11.00 (9.17–13.75) PyTorch, compiled | ≥ 10: yes | 0.80 (0.67–1.00) Flax Linen | ≥ 3: no |"
        in page
    )
    assert "| MLP | 0.50 (0.40–0.60) | yes |" in page
    assert "| width | Nets | 1, 2, 4, 8 | 1.50 | no |" in page
    assert "Haiku in MLP: not installed" in page
    assert "### The allocator tuned" in page
    assert "Other processes" not in page
    better = copy.deepcopy(RESULTS)
    for each in better["rows"]["mlp"].values():
        each["elsewhere"] = 0.5
        each["contestants"] = {OURS: turns(0.1, 0.1, 0.1), "PyTorch": turns(2, 2, 2), "Haiku": turns(0.2, 0.2, 0.2)}
    page = report.page({"cpu": better})
    assert "No peer is faster in any row. Faster, but below the goal: MLP (2.00 of 3 beside Haiku)." in page
    assert "Other processes were active during: MLP." in page


def test_rows_of_language_models_are_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    named = {OURS: turns(1.0), "PyTorch": turns(1.3), "PyTorch, compiled": turns(0.9), "Keras": turns(1.5)}
    gpt = record("GPT", "", named)
    sweep = record("Sweep of GPTs", "", {OURS: turns(4.0), ALONE: turns(0.5)})
    for each in sweep["contestants"].values():
        each["units"] = 1
    decode = record("Decoding", "", {OURS: turns(1.0, flops=0), "transformers": turns(2.2, flops=0)})
    decode |= {"unit": "token"}
    rows = {"gpt": gpt, "sweep-gpt": sweep, "decode-1": decode}
    results = RESULTS | {"rows": {name: {"default": each} for name, each in rows.items()}}
    page = report.page({"cpu": results})
    assert (
        "| GPT | 500 ms | 0.90 (0.90–0.90) PyTorch, compiled | ≥ 1: no | 1.50 (1.50–1.50) Keras | ≥ 1.3: yes |" in page
    )
    assert "Sweep of GPTs: 8.00 (8.00–8.00) times as long as one network; the goal of 8.4 is reached." in page
    assert "| Decoding | 500 ms | 2.20 (2.20–2.20) transformers | ≥ 2: yes |" in page
    assert "2 tokens/s" in report.text(results)
    eager = [each for each in analysis.verdicts(results, "default") if each.group == analysis.EAGER]
    assert [(each.times, each.goal, each.reached) for each in eager] == [(1.3, 1.2, True)]
    del named["PyTorch, compiled"]
    goals = {each.group: each.goal for each in analysis.verdicts(results, "default") if each.row == "gpt"}
    assert goals == {"PyTorch": 1.2, "JAX": 1.3}
    for name, path in (("PAGE", "benchmarks.md"), ("FIGURES", "figures"), ("RESULTS", "results")):
        monkeypatch.setattr(report, name, tmp_path / path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cpu.json").write_text(json.dumps(results))
    assert command.main(["report"]) == 0
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"cpu-ratios.png"}


def test_the_command_writes_the_page_and_says_when_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cpu.json").write_text(json.dumps(RESULTS))
    for name, path in (("PAGE", "benchmarks.md"), ("FIGURES", "figures"), ("RESULTS", "results")):
        monkeypatch.setattr(report, name, tmp_path / path)
    assert command.main(["report", "--check"]) == 1
    assert capsys.readouterr().out == "out of date: docs/benchmarks.md\n"
    assert command.main(["report"]) == 0
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"cpu-ratios.png", "cpu-growth.png"}
    assert command.main(["report", "--check"]) == 0


def test_the_committed_page_is_what_the_command_writes():
    assert report.main(check=True) == 0


def test_goals_are_of_rows():
    assert set(GOALS) <= set(ROWS)


def test_rows_are_gathered_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    asked = []

    def child(request: dict[str, Any], allocator: str) -> dict[str, Any]:
        asked.append((request, allocator))
        if request["row"] == "machine":
            return MACHINE | {"matmul_peak": {"float32": 1e10}}
        return {name: MLP[name] for name in ("rounds", "contestants", "left_out", "elsewhere")}

    monkeypatch.setattr(suite, "child", child)
    file = tmp_path / "own.json"
    given = ["--json", str(file), "--rounds", "2", "--peers", "Haiku"]
    assert command.main([*given, "--only", "mlp"]) == 0
    assert asked[1] == ({"row": "mlp", "rounds": 2, "peers": ["Haiku"]}, "default")
    assert "PyTorch ≥ 10: reached\n  JAX ≥ 3: not reached" in capsys.readouterr().out
    assert command.main([*given, "--full", "--only", "compile-*", "lenet"]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [*rows] == ["mlp", "lenet", "compile-50", "compile-152"]
    settings = {"mlp": ["default"], "lenet": ["default", "tuned"], "compile-50": ["default"]}
    assert {name: [*rows[name]] for name in settings} == settings
    assert [request["peers"] for request, _ in asked if request["row"] == "lenet"] == [[*OTHER_WAYS, "Haiku"], []]

    monkeypatch.setitem(MACHINE, "cores", 3)
    assert command.main([*given, "--only", "mlp"]) == 1
    assert "is from another machine; choose another file" in capsys.readouterr().err
    assert json.loads(file.read_text())["machine"]["cores"] == 2


def test_wrong_arguments_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(suite, "child", lambda *_: MACHINE | {"matmul_peak": {}})
    for wrong, message in (
        (["--peers", "Sonnet"], "invalid choice: 'Sonnet'"),
        (["--rounds", "0"], "expects at least 1 round, got 0"),
        (["--quick", "--full"], "not allowed with"),
    ):
        with pytest.raises(SystemExit):
            command.main(wrong)
        assert message in capsys.readouterr().err
    assert command.main(["--only", "nothing*", "--json", str(tmp_path / "a.json")]) == 1
    assert "expects a row of this platform and size, got nothing*; there are mlp, " in capsys.readouterr().err
    assert command.main(["--only", "resnet50-gpu", "--json", str(tmp_path / "a.json")]) == 1
    assert not (tmp_path / "a.json").exists()


@pytest.mark.slow
def test_a_row_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match="row nonsense failed with code 1"):
        suite.child({"row": "nonsense", "rounds": 1, "peers": []}, "default")
