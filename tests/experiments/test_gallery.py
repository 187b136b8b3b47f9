"""The gallery of models: its page is what the command writes, and no model is left out."""

import inspect
from pathlib import Path

import pytest

import jaxnets as jn
from experiments.framework import gallery
from jaxnets import Net, models
from tests.models.test_every_model import ROWS

pytestmark = pytest.mark.promotes


@pytest.mark.slow
def test_the_page_is_what_the_command_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    """Counts that papers and other libraries state are taken from there, the others are counted."""
    known = {(repr(row.make()), str(row.x)): row for row in ROWS if row.multiply_adds is not None}
    counted, taken = gallery.counts, []

    def counts(entry: gallery.Entry) -> tuple[int, int]:
        row = known.get((repr(entry.net), str(entry.x)))
        if row is None or row.multiply_adds is None:
            return counted(entry)
        taken.append(row.name)
        return row.parameters, row.multiply_adds

    monkeypatch.setattr(gallery, "counts", counts)
    monkeypatch.chdir(tmp_path)
    assert gallery.main(check=True) == 0, capsys.readouterr().out
    assert len(taken) >= 30


def test_what_is_out_of_date_is_named_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    page = tmp_path / "models.md"
    names = ("small", "net", "inception3a")
    page.write_text("# Page\n" + "".join(f"\n<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in names))
    entry = gallery.Entry("mlp((5,), 3)", (4,), "nobody 2000")
    monkeypatch.setattr(gallery, "PAGE", page)
    monkeypatch.setattr(gallery, "TABLES", {"small": [entry]})
    monkeypatch.setattr(gallery, "DIAGRAMS", {"net": (entry, 1)})
    before = page.read_text()
    assert gallery.main(check=True) == 1
    assert capsys.readouterr().out == "out of date: docs/models.md\n"
    assert page.read_text() == before
    assert gallery.main(check=False) == 0
    assert capsys.readouterr().out == "written: docs/models.md\n"
    text = page.read_text()
    assert "| `mlp((5,), 3)` | 4 | 43 | 35 | nobody 2000 |\n" in text  # 4·5 + 5 + 5·3 + 3, 4·5 + 5·3
    assert f"<!-- net -->\n\n```mermaid\n{jn.plot.diagram(entry.net, entry.x, depth=1)}```\n\n<!-- /net -->" in text
    assert "old" not in text
    assert gallery.main(check=True) == 0


def test_every_model_is_on_the_page():
    page = gallery.PAGE.read_text(encoding="utf-8")
    made = [name for name in models.__all__ if _gives_a_net(name)]
    assert len(made) > 45
    assert not [name for name in made if f"`{name}(" not in page and f"`{name}`" not in page]


def _gives_a_net(name: str) -> bool:
    model = getattr(models, name)
    return inspect.isfunction(model) and inspect.signature(model).return_annotation is Net
