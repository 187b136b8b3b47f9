"""Every study at its tiniest, and what judges it."""

import functools
import json
import re
from pathlib import Path

import jax
import pytest

import jaxnets as jn
from experiments.__main__ import main
from experiments.framework import report
from experiments.framework.study import Finding, above, below, judge, studies

pytestmark = pytest.mark.promotes


@pytest.mark.parametrize("name", studies())
@pytest.mark.slow
def test_study_runs_and_is_judged(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    judged(name, tmp_path, capsys)


def test_results_are_judged_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The whole way from the command to the verdict, of a study's committed results."""
    committed = json.loads((report.CLAIMS / "results" / "margins.json").read_text())["results"]
    monkeypatch.setattr(studies()["margins"].module, "run", lambda config: committed)
    judged("margins", tmp_path, capsys)


def judged(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a study at its smallest, and look at its files and its verdict."""
    main(["run", name, "--size", "tiny", "--root", str(tmp_path)])
    (folder,) = (tmp_path / name).iterdir()
    assert {file.name for file in folder.iterdir()} == {"config.json", "results.json", "figure.png", "figure.svg"}
    found = json.loads((folder / "results.json").read_text())
    assert found["size"] == "tiny"
    assert found["verdict"]["findings"]
    for each in found["verdict"]["findings"]:
        assert each["low"] <= each["value"] <= each["high"]
    assert found["verdict"]["outcome"] in capsys.readouterr().out


def test_every_study_says_what_would_refute_it_and_has_enough_seeds():
    for name, study in studies().items():
        assert study.about.refuted_by.endswith("."), name
        assert study.config("full").seeds >= 5, name


def finding(holds: bool, *, core: bool = True) -> Finding:
    return Finding("", 0.0, 0.0, 0.0, "", holds, core)


def test_a_verdict_follows_from_its_findings():
    assert judge(finding(True), finding(True, core=False)).outcome == "confirmed"
    assert judge(finding(True), finding(False, core=False)).outcome == "confirmed with conditions"
    assert judge(finding(False), finding(True)).outcome == "not confirmed"
    assert above("", [1.0, 2.0, 3.0], 0.5).holds
    assert not above("", [-9.0, 9.0, 9.0, 9.0], 0.0).holds  # the mean is above, its interval is not
    assert below("", [1.0, 2.0, 3.0], 3.5).holds
    with pytest.raises(ValueError, match=r"a number for each seed, got the shape \(2, 2\)"):
        above("", [[1.0, 2.0]] * 2)


def test_pages_are_what_the_results_give():
    for name, text in report.written_pages().items():
        assert (report.CLAIMS / name).read_text(encoding="utf-8") == text, name


def test_every_study_stands_with_a_concept_and_every_function_named_there_exists():
    text = (report.CLAIMS.parent / "concepts.md").read_text(encoding="utf-8")
    assert {*re.findall(r"claims/(\w+)\.md", text)} == {*studies()}
    named = {*re.findall(r"`(jn\.[\w.]+)", text)} | {
        name for study in studies().values() for name in study.about.concepts if name.startswith("jn.")
    }
    for name in named:
        functools.reduce(getattr, name.split(".")[1:], jn)


def test_the_list_names_every_study(capsys: pytest.CaptureFixture[str]):
    main(["list"])
    out = capsys.readouterr().out
    for study in studies().values():
        assert study.name in out
        assert study.about.claim in out


def test_a_study_takes_options_of_its_own_and_fails_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = next(iter(studies()))
    with pytest.raises(SystemExit):
        main(["run", "no_such_study"])
    module = studies()[name].module
    monkeypatch.setattr(module, "run", lambda config: 1 / 0)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # the tests that follow need them
    with pytest.raises(SystemExit, match=f"failed: {name}"):
        main(["all", "--tiny", "--only", name, "--root", str(tmp_path)])
    assert not (tmp_path / name).exists()
