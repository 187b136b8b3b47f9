"""A plain `pip install jaxnets`: what needs more names an extra that exists and installs it."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
# Packages that are installed under another name than they are imported by.
INSTALLED_AS = {"PIL": "pillow", "sklearn": "scikit-learn", "orbax": "orbax-checkpoint", "huggingface_hub": "huggingface-hub"}


def needs() -> set[tuple[str, str]]:
    """Return the packages and extras of all calls of `require` and `missing`."""
    found = set()
    for path in (ROOT / "jaxnets").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("require", "missing")
            ):
                values = [each.value for each in node.args if isinstance(each, ast.Constant)]
                if len(values) == 2:
                    found.add((str(values[0]).partition(".")[0], str(values[1])))
    return found


def test_every_extra_that_an_error_names_installs_what_is_missing():
    pairs = needs()
    assert len(pairs) >= 10
    for package, extra in pairs:
        named = {re.split(r"[\[>=<]", each)[0] for each in EXTRAS[extra]}
        assert INSTALLED_AS.get(package, package) in named, f"{extra} does not install {package}"


# Runs the examples of modules where only what a plain install brings can be imported.
PLAIN = r"""
import doctest, importlib, importlib.abc, importlib.metadata, re, sys

def closure(name, seen):
    try:
        requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for each in requires:
        found = re.match(r"[\w.-]+", each)[0].lower().replace("_", "-")
        if "extra ==" not in each and found not in seen:
            seen.add(found)
            closure(found, seen)

installed = {"jax", "jaxlib", "flax", "optax", "chex"}
for name in list(installed):
    closure(name, installed)
hidden = {
    module for module, owners in importlib.metadata.packages_distributions().items()
    if not any(owner.lower().replace("_", "-") in installed for owner in owners)
} - {"jaxnets", "tests"}

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
extras, named = sys.argv[1].split(","), set()

class Runner(doctest.DocTestRunner):
    def report_unexpected_exception(self, out, test, example, exc_info):
        text = re.search(r"pip install 'jaxnets\[(\w+)\]'", str(exc_info[1]))
        if isinstance(exc_info[1], ModuleNotFoundError) and text and text[1] in extras:
            named.add(text[1])
        else:
            print("WRONG", test.name, example.source, repr(exc_info[1]))

    def report_failure(self, out, test, example, got):
        print("WRONG", test.name, example.source, got)

for name in sys.argv[2:]:
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        Runner(optionflags=doctest.ELLIPSIS | doctest.FAIL_FAST, verbose=False).run(test)
print("NAMED", *sorted(named))
"""


@pytest.mark.slow
def test_what_a_plain_install_lacks_is_named(tmp_path: Path):
    """The examples of all modules that ask for a package work, or name the extra."""
    asks = re.compile(r"\b(require|missing)\(\"|find_spec|_repr_html_|import (sklearn|mlxtend|statsmodels|sktime)")
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "jaxnets").rglob("*.py"))
        if path.name != "__init__.py" and asks.search(path.read_text(encoding="utf-8"))
    ]
    plots = [f"jaxnets.plot.{path.stem}" for path in sorted((ROOT / "jaxnets" / "plot").glob("[a-z]*.py"))]
    datasets = [
        f"jaxnets.data.datasets.{path.stem}" for path in sorted((ROOT / "jaxnets/data/datasets").glob("[a-z]*.py"))
    ]
    command = [sys.executable, "-c", PLAIN, ",".join(EXTRAS), *sorted({*modules, *plots, *datasets})]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    wrong = [line for line in ran.stdout.splitlines() if line.startswith("WRONG")]
    assert not wrong, "\n".join(wrong)
    last = ran.stdout.splitlines()[-1].split()
    assert last[0] == "NAMED"
    assert {"experiments", "text"} <= set(last[1:])  # some examples do need them
