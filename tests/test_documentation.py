"""Every example in docstrings, README and docs is run, and every public name has one."""

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
from pathlib import Path

import pytest

import jaxnets

ROOT = Path(__file__).parent.parent
MODULES = sorted(info.name for info in pkgutil.walk_packages(jaxnets.__path__, "jaxnets."))
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(python|pycon)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.promotes
@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str):
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0, report.getvalue()


@pytest.mark.parametrize("name", ["jaxnets", *MODULES])
def test_public_names_are_documented_with_an_example(name: str):
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        thing = getattr(module, public)
        if callable(thing):
            document = getattr(thing, "__doc__", None) or ""
            assert ">>>" in document or isinstance(thing, type), f"{name}.{public} has no example"
            assert re.match(r"[A-Z`0-9].*\.", document.strip(), re.DOTALL), f"{name}.{public} opens with no sentence"


@pytest.mark.promotes
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Blocks of a page run in order, in one namespace and an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__page__"}
    text = page.read_text(encoding="utf-8")
    for kind, code in BLOCK.findall(text):
        where = f"{page.name}:{text[: text.index(code)].count(os.linesep) + 1}"
        if kind == "python":
            exec(compile(code, where, "exec"), namespace)
        else:
            report = io.StringIO()
            example = doctest.DocTestParser().get_doctest(code, namespace, where, str(page), 0)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            with contextlib.redirect_stdout(report):
                runner.run(example, out=report.write, clear_globs=False)
                namespace.update(example.globs)
            assert runner.failures == 0, report.getvalue()
