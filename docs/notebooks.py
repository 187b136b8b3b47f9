"""A hook of MkDocs that turns every page with code into a notebook, `notebooks/<page>.ipynb` of the site.

The pages are the only source: nothing is stored. `tests/test_notebooks.py` compares the cells with the blocks that
`tests/test_documentation.py` runs.
"""

import doctest
import re
from collections.abc import Iterator
from typing import Any

BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[^\S\n]*$", re.MULTILINE | re.DOTALL)
HEADER = re.compile(r"---\n.*?^---\n", re.MULTILINE | re.DOTALL)  # settings of the site
LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)\s#]+)")


def has_code(text: str) -> bool:
    """Tell whether a page has a block that runs."""
    return any(kind in ("python", "pycon") for kind, _ in BLOCK.findall(text))


def notebook(text: str, linked: frozenset[str] = frozenset()) -> str:
    """Return a page as a notebook.

    Args:
        text: the page, in Markdown.
        linked: the names of pages that are notebooks, too; other links are relative to the page's folder.
    """
    import jupytext

    def relative(link: re.Match[str]) -> str:
        stem = link[2].removesuffix(".md")
        return link[1] + (f"{stem}.ipynb" if link[2].endswith(".md") and stem in linked else f"../{link[2]}")

    cells = []
    for is_code, source in _cells(text):
        if is_code:
            cells.append(f"```python\n{source}\n```\n")
        else:
            # In a region, blocks of other languages stay text.
            cells.append(f"<!-- #region -->\n{LINK.sub(relative, source)}\n<!-- #endregion -->\n")
    book = jupytext.reads("\n".join(cells), fmt="md")
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return jupytext.writes(book, fmt="ipynb")


def _cells(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the cells of a page: whether each is code, and its source."""
    end = header.end() if (header := HEADER.match(text)) else 0
    for block in BLOCK.finditer(text):
        if block[1] not in ("python", "pycon"):
            continue
        if before := text[end : block.start()].strip():
            yield False, before
        end = block.end()
        if block[1] == "python":
            yield True, block[2].strip("\n")
            continue
        source = ""
        for example in doctest.DocTestParser().get_examples(block[2]):
            source += example.source
            # A cell shows the value of its last line.
            if example.want:
                yield True, source.strip("\n")
                source = ""
        if source:
            yield True, source.strip("\n")
    if rest := text[end:].strip():
        yield False, rest


def on_files(files: Any, config: Any) -> Any:
    """Add the notebook of each page with code to the site."""
    from mkdocs.structure.files import File

    texts = {file.src_uri.removesuffix(".md"): file.content_string for file in files.documentation_pages()}
    linked = frozenset(name for name, text in texts.items() if "/" not in name and has_code(text))
    for name in sorted(linked):
        files.append(File.generated(config, f"notebooks/{name}.ipynb", content=notebook(texts[name], linked)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    """Link to the notebook under the title of its page."""
    name = f"notebooks/{page.file.src_uri.removesuffix('.md')}.ipynb"
    if files.get_file_from_path(name) is None:
        return markdown
    title, _, rest = markdown.lstrip().partition("\n")
    return f"{title}\n\n[Open as a notebook]({name}){{ .notebook download }}\n{rest}"
