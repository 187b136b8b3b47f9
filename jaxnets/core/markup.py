"""Networks and tables as HTML, which notebooks show."""

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

OPEN = 12
"""Up to this many layers, what is inside a network is unfolded."""


def foldable(net: Any, name: str = "", path: str = "") -> str:
    """Return a network as a tree of names and layers, whose branches fold; the path of a layer is its tooltip.

    Branches of more than `OPEN` layers are folded, except for the outermost.

    >>> import jaxnets as jn
    >>> print(foldable(jn.dense(2), "out", "head/out"))
    <div title="head/out"><b>out</b> <code>dense(2)</code></div>
    """
    text = (f"<b>{html.escape(name)}</b> " if name else "") + f"<code>{html.escape(net.label)}</code>"
    tip = f' title="{html.escape(path)}"' if path else ""
    if not net.children:
        return f"<div{tip}>{text}</div>"
    inside = "".join(foldable(child, each, f"{path}/{each}".lstrip("/")) for each, child in net.children.items())
    count = layers(net)
    fold = " open" if not path or count <= OPEN else ""
    return (
        f"<details{fold}><summary{tip}>{text} ({count} layer{'s' * (count != 1)})</summary>"
        f'<div style="margin-left: 1.5em">{inside}</div></details>'
    )


def layers(net: Any) -> int:
    """Return the number of layers without children in a network."""
    return sum(map(layers, net.children.values())) if net.children else 1


def table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str], *, left: Callable[[int], bool]
) -> str:
    """Return a table.

    Args:
        title: its caption.
        head: the names of its columns.
        rows: their cells; leading spaces indent.
        total: the cells of the last row.
        left: whether a column, by its number, is aligned to the left.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        shown = []
        for number, cell in enumerate(cells):
            indent = (len(cell) - len(cell.lstrip())) / 2
            pad = f"; padding-left: {1.2 * indent + 0.5:g}em" if indent else ""
            style = f"text-align: {'left' if left(number) else 'right'}; white-space: nowrap{pad}"
            shown.append(f'<{tag} style="{style}">{html.escape(cell.strip())}</{tag}>')
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (
        f"<table><caption>{html.escape(title)}</caption><thead>{line(head, 'th')}</thead>"
        f"<tbody>{body}</tbody><tfoot>{line(total, 'th')}</tfoot></table>"
    )
