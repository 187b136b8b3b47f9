"""Every page with code opens as a notebook whose cells are the blocks that `test_documentation.py` runs."""

import doctest
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.test_documentation import BLOCK, PAGES, ROOT, has_code

NOTEBOOKS = runpy.run_path(str(ROOT / "docs" / "notebooks.py"))
GUIDE = {name: page for name, page in PAGES.items() if re.fullmatch(r"docs/[\w-]+\.md", name) and has_code(page)}


def opened(text: str, linked: frozenset[str] = frozenset()) -> dict[str, Any]:
    return json.loads(NOTEBOOKS["notebook"](text, linked))


def sources(book: dict[str, Any], kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == kind]


def test_a_page_becomes_cells():
    page = """# Title

See [training](train.md#use), [claims](claims/depth.md), [here](#below) and [JAX](https://jax.dev).

```python
x = 1

print(x)
```

```text
1
```

```bash
pip install jaxnets
```

```pycon
>>> y = x + 1
>>> for i in range(y):
...     print(i)
0
1
>>> y
2
>>> z = 3
```
"""
    book = opened(page, frozenset({"train"}))
    assert sources(book, "code") == ["x = 1\n\nprint(x)", "y = x + 1\nfor i in range(y):\n    print(i)", "y", "z = 3"]
    first, between = sources(book, "markdown")
    assert first.startswith("# Title")
    assert first.endswith(
        "[training](train.ipynb#use), [claims](../claims/depth.md), [here](#below) and [JAX](https://jax.dev)."
    )
    assert between == "```text\n1\n```\n\n```bash\npip install jaxnets\n```"
    assert book["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDE)
def test_cells_are_the_blocks_that_are_run(name: str):
    text = GUIDE[name].read_text(encoding="utf-8")
    want = []
    for kind, code in BLOCK.findall(text):
        if kind == "pycon":
            want += [line for each in doctest.DocTestParser().get_examples(code) for line in each.source.splitlines()]
        elif kind == "python":
            want += code.strip("\n").splitlines()
    found = [line for source in sources(opened(text), "code") for line in source.splitlines()]
    assert found
    assert found == want


# What only notebooks show: a network as a tree, a summary as a table, and 1,000 epochs as one bar.
SHOWN = """
```python
import jax, jax.numpy as jnp, jaxnets as jn, optax, treescope

net = jn.serial(out=jn.dense(2))
net
```

```python
jn.summary(net, (1, 3))
```

```python
data = jnp.ones((8, 3)), jnp.zeros(8, int)
program = jn.train.program(net, jn.losses.cross_entropy, optax.sgd(0.1), data, epochs=1000, batch_size=8)
state, history = jn.train.run(program, key=jax.random.key(0), callbacks=[jn.train.progress()])
```

```python
treescope.display(state.params)
```
"""


@pytest.mark.slow
def test_a_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A page, and what only notebooks show, in a kernel of its own."""
    page = (ROOT / "docs" / "serial.md").read_text(encoding="utf-8")
    book = run(page + SHOWN, tmp_path, monkeypatch)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    net, summary, fit, parameters = (cell.outputs for cell in cells[-4:])
    assert net[0].data["text/html"].startswith("<details open>")
    assert summary[0].data["text/html"].startswith("<table>")
    bars = [each for each in fit if each.output_type == "display_data"]
    assert len(bars) == 1
    assert "1000/1000" in bars[0].data["text/html"]
    assert sum(len(str(each)) for each in fit) < 2000
    assert any("text/html" in each.data for each in parameters)


def run(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a page as a notebook in a kernel, and return it with its outputs."""
    import warnings

    import nbformat

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's client, about event loops
        from nbclient import NotebookClient

        book = nbformat.reads(NOTEBOOKS["notebook"](text), as_version=4)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return book
