"""The pages of ten tasks: both columns print what the page shows, wherever the library is installed."""

import contextlib
import doctest
import importlib.util
import io
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests.test_documentation import BLOCK, ROOT

PAGES = {page.stem.removeprefix("coming-from-"): page for page in sorted((ROOT / "docs").glob("coming-from-*.md"))}
MODULES = {"pytorch": "torch", "scikit-learn": "sklearn"}
COLUMNS = re.compile(
    r'^<div class="columns" markdown>\n\n```python title="([^"\n]+)"\n(.*?)^```\n\n'
    r'```python title="jaxnets"\n(.*?)^```\n\n'
    r"</div>\n\n```text\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
pytestmark = [pytest.mark.promotes, pytest.mark.slow]


@dataclass(frozen=True)
class Page:
    """What both columns begin with, the columns, and what each task prints."""

    shared: str
    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    shown: tuple[str, ...]


def read(name: str) -> Page:
    text = PAGES[name].read_text(encoding="utf-8")
    tasks = COLUMNS.findall(text)
    assert text.count("\n## ") == len(tasks) == 10
    first = BLOCK.search(text)
    assert first is not None
    _, theirs, ours, shown = zip(*tasks, strict=True)
    return Page(first[2], theirs, ours, shown)


RAN: dict[Page, list[str]] = {}


def printed(shared: str, blocks: tuple[str, ...], folder: Path) -> list[str]:
    """Run blocks one after another, and return what each printed."""
    names: dict[str, Any] = {"__name__": "__page__"}
    found = []
    with contextlib.chdir(folder):
        exec(shared, names)
        for block in blocks:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(block, names)
            found.append(out.getvalue())
    return found


def check(found: list[str], page: Page) -> None:
    for number, (got, want) in enumerate(zip(found, page.shown, strict=True), start=1):
        assert doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS), f"{number}: {got} is not {want}"


@pytest.mark.parametrize("name", PAGES)
def test_ours_prints_what_is_shown(name: str, tmp_path: Path):
    """Most pages have the same column of ours, which is run once."""
    page = read(name)
    ours = Page(page.shared, (), page.ours, page.shown)
    if ours not in RAN:
        RAN[ours] = printed(page.shared, page.ours, tmp_path)
    check(RAN[ours], page)


INSTALLED = [name for name in PAGES if importlib.util.find_spec(MODULES.get(name, name)) is not None]


@pytest.mark.parametrize("name", INSTALLED)
def test_theirs_prints_what_is_shown(name: str, tmp_path: Path):
    page = read(name)
    settings = {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)} if name == "keras" else {}
    with patch.dict(os.environ, settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their own code
        check(printed(page.shared, page.theirs, tmp_path), page)


def test_there_is_a_page_for_each_library():
    assert set(PAGES) == {"equinox", "flax", "keras", "pytorch", "scikit-learn"}
