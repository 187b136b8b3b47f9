"""Every example in docstrings, README and docs is run, and every public name has one."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import jaxnets

ROOT = Path(__file__).parent.parent
MODULES = sorted(info.name for info in pkgutil.walk_packages(jaxnets.__path__, "jaxnets."))
PAGES = {
    str(page.relative_to(ROOT)): page
    for page in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
}
# Pages whose blocks are those of two libraries: `tests/coming_from/test_tasks.py` runs them.
COLUMNS = {name for name in PAGES if name.startswith("docs/coming-from-")}
# Of the pages with code, the quick suite runs those that a user reads first.
FIRST = ("README.md", "docs/serial.md", "docs/errors.md")
# Packages and modules whose examples compile many programs: they draw large networks, train, search or decode.
LONG = (
    "jaxnets.core.draws",
    "jaxnets.data.augment",
    "jaxnets.data.class_balance",
    "jaxnets.decoding",
    "jaxnets.combinators.fold",
    "jaxnets.combinators.repeat",
    "jaxnets.layers.batch_norm",
    "jaxnets.layers.cells",
    "jaxnets.layers.dropout",
    "jaxnets.layers.norm",
    "jaxnets.layers.recurrent",
    "jaxnets.losses.generative",
    "jaxnets.losses.margins",
    "jaxnets.losses.wrappers",
    "jaxnets.metrics.confusion",
    "jaxnets.models",
    "jaxnets.ops",
    "jaxnets.sweeps",
    "jaxnets.train.checkpoint",
    "jaxnets.train.debug",
    "jaxnets.train.ema",
    "jaxnets.train.loop",
    "jaxnets.train.optimizers",
    "jaxnets.train.pretrain",
)
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[^\S\n]*$", re.MULTILINE | re.DOTALL)


def slow_if(condition: bool) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if condition else []


def has_code(page: Path) -> bool:
    return any(kind in ("python", "pycon") for kind, _ in BLOCK.findall(page.read_text(encoding="utf-8")))


@pytest.mark.promotes
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=slow_if(f"{name}.".startswith(tuple(f"{one}." for one in LONG)))) for name in MODULES],
)
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
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=slow_if(name not in FIRST and has_code(page)))
        for name, page in PAGES.items()
        if name not in COLUMNS
    ],
)
def test_code_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Blocks of a page run in order, in one namespace and an empty folder; a `text` block right after is the output."""
    monkeypatch.chdir(tmp_path)
    page = PAGES[name]
    namespace: dict[str, object] = {"__name__": "__page__"}
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"^[ \t]+```py", text, re.MULTILINE), "an indented block would not be run"
    printed, end = None, 0  # what the block before printed, and where it ended
    for block in BLOCK.finditer(text):
        kind, code = block.groups()
        before = text[: block.start(2)].count("\n")
        if kind == "text" and printed is not None and not text[end : block.start()].strip():
            checked = doctest.OutputChecker().check_output(code, printed, doctest.ELLIPSIS)
            assert checked, f"{page.name}:{before} shows\n{code}\nbut the block above printed\n{printed}"
        printed, end = None, block.end()
        report = io.StringIO()
        if kind == "python":
            with contextlib.redirect_stdout(report):
                exec(compile("\n" * before + code, page.name, "exec"), namespace)
            printed = report.getvalue()
        elif kind == "pycon":
            example = doctest.DocTestParser().get_doctest(code, namespace, page.name, str(page), before)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            runner.run(example, out=report.write, clear_globs=False)
            namespace.update(example.globs)
            assert runner.failures == 0, report.getvalue()


def test_the_reference_is_written_from_the_docstrings():
    """It has every public name; `python docs/reference.py` writes it."""
    written = runpy.run_path(str(ROOT / "docs" / "reference.py"))["pages"]()
    found = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")}
    assert found == written


def test_what_is_read_first_exists():
    assert PAGES.keys() >= set(FIRST)
    assert {*MODULES} >= set(LONG)


def test_the_site_lists_every_page():
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
