"""A drawing of a network: its layers as nested boxes, and the lines along which values go."""

import itertools
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.plot.flow import Box, traced, untraced
from jaxnets.plot.layout import STACK, Placed, place

CHARACTER, MARGIN = 6.7, 10.0  # pixels of one at 11 px, and around the drawing
ACROSS, DOWN, LINE = 26, 3, 14.0  # characters and lines of how a layer was written, and pixels of a line
STRIPES = {
    "conv": "#0072b2",
    "dense": "#d55e00",
    "pool": "#009e73",
    "norm": "#cc79a7",
    "recurrent": "#e69f00",
}  # apart for every kind of color vision (Okabe and Ito)
STYLE = """
.jn { font: 11px ui-monospace, Menlo, Consolas, monospace }
.jn .box { fill: #f4f6f8; stroke: #9aa4af } .jn .leaf { fill: #ffffff; stroke: #9aa4af }
.jn .name { fill: #16191d; font-weight: 600 } .jn .soft { fill: #56606b } .jn .sign { fill: #16191d; font-size: 13px }
.jn .line { fill: none; stroke: #56606b; stroke-width: 1.3 } .jn .head { fill: #56606b }
@media (prefers-color-scheme: dark) {
.jn .box { fill: #1b2129; stroke: #5d6875 } .jn .leaf { fill: #262e38; stroke: #5d6875 }
.jn .name, .jn .sign { fill: #f0f3f6 } .jn .soft { fill: #a9b4c0 }
.jn .line { stroke: #a9b4c0 } .jn .head { fill: #a9b4c0 }
}
"""


@dataclass(frozen=True)
class Drawing:
    """A drawing as text, which a notebook shows.

    Attributes:
        svg: the whole file.
    """

    svg: str

    def __str__(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the file, and return its path.

        Raises:
            FileExistsError: if there is one already, and `overwrite` is not set.
        """
        path = Path(path).expanduser()
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(self.svg)
        return path


def diagram(model: Any, x: Any = None, *, depth: int | None = None) -> Drawing:
    """Draw a network: every layer a box in the box of its parent, and a line from each output to what reads it.

    The lines are found by tracing the program in evaluation, so that they hold for any network, Flax module or
    function with named scopes: branches stand side by side, a shortcut goes round what it skips, and what is merged
    outside of any layer meets in a circle with its sign (+ for a sum, ‖ for a concatenation). A box in front of others
    stands for the copies of a `repeat` or an `ensemble`. Each box has its name, how it was written, and the shape of
    its output without the batch; a `serial` that is not opened names what is in it. Layers that only run in training
    are left out.

    Args:
        model: a `Net`, a Flax module or a function.
        x: an array or its spec. Without it a `Net` is drawn without shapes, and with the lines that its kind tells.
        depth: how many levels of boxes to open; all of them if not given.

    Returns:
        The drawing as SVG, light or dark as the reader's system is; the same for the same network. Notebooks show
        it, `.save("net.svg")` writes it, `str` gives the text.

    Raises:
        NetError: for a negative depth, or for something that is no `Net` without `x`; by the layer, for `x` of a
            wrong shape.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> drawing = diagram(jn.models.lenet5(), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32))
    >>> drawing.svg.count("<rect"), "28×28×6" in drawing.svg
    (20, True)
    """
    if depth is not None and depth < 1:
        raise NetError(f"expects a depth of at least 1, got {depth}", label="diagram")
    if x is None and not isinstance(model, Net):
        raise NetError(f"expects an input x to trace {type(model).__name__}", label="diagram")
    box = untraced(model, depth=depth) if x is None else traced(model, x, depth=depth)
    placed = place(box, _measure)
    placed.x, placed.y = MARGIN, MARGIN
    width, height = (f"{side + 2 * MARGIN:.0f}" for side in (placed.width, placed.height))
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="jn" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img"><title>{escape(box.name)}</title><style>{STYLE}</style>\n'
        + "\n".join(filter(None, _drawn(placed, 0.0, 0.0)))
        + "\n</svg>\n"
    )


def _texts(box: Box) -> tuple[str, list[str], str]:
    """Return a box's name, how it was written in lines if that says more, and its shape."""
    lines = [] if box.written == box.name else _wrapped(box.written, 1 if box.children else DOWN)
    return box.name + (f" × {box.copies}" if box.copies else ""), lines, box.shape


def _wrapped(label: str, most: int) -> list[str]:
    """Return a label in as few lines as it takes, and those as short as can be."""
    ways = [textwrap.wrap(label, across, break_long_words=across == ACROSS) for across in range(8, ACROSS + 1)]
    lines = min(ways, key=lambda lines: (max(map(len, lines), default=0) > ACROSS, len(lines)))
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1]} …"]


def _measure(box: Box) -> tuple[float, float]:
    name, lines, shape = _texts(box)
    if box.children:
        return CHARACTER * len("  ".join(filter(None, (name, *lines, shape)))) + 28, 0.0
    widest = max(8, len(name) + (2 + len(shape) if shape else 0), *map(len, lines))
    return CHARACTER * widest + 24, 26.0 + LINE * len(lines)


def _drawn(placed: Placed, x: float, y: float) -> list[str]:
    """Return the elements of a box at a place, and of all in it."""
    box, x, y = placed.box, x + placed.x, y + placed.y
    width, height = placed.width, placed.height
    if box.meeting:
        radius = width / 2
        wide = len(box.label) > 2
        text = f'<text class="{"soft" if wide else "sign"}" text-anchor="{"start" if wide else "middle"}" '
        text += f'x="{x + (width + 4 if wide else radius):.1f}" y="{y + radius + 4:.1f}">{escape(box.label)}</text>'
        return [f'<circle class="leaf" cx="{x + radius:.1f}" cy="{y + radius:.1f}" r="{radius:.1f}"/>', text]
    kind = "box" if box.children else "leaf"
    parts = [
        _rect(kind, x + STACK * back, y - STACK * back, width, height) for back in ((2, 1, 0) if box.copies else (0,))
    ]
    name, lines, shape = _texts(box)
    if box.children:
        parts += [_text("name", x + 10, y + 16, name, *lines), _text("soft", x + width - 10, y + 16, shape, right=True)]
    else:
        color = next((color for word, color in STRIPES.items() if word in _word(box.kind)), None)
        if color is not None:
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="4" height="{height:.1f}" rx="1.5" fill="{color}"/>')
        parts += [_text("name", x + 12, y + 17, name), _text("soft", x + width - 10, y + 17, shape, right=True)]
        parts += [_text("soft", x + 12, y + 32 + LINE * below, line) for below, line in enumerate(lines)]
    for child in placed.inside.values():
        parts += _drawn(child, x, y)
    for line in placed.lines:
        parts += _line([(x + a, y + b) for a, b in line])
    return parts


def _word(kind: str) -> str:
    """Return the kind of a layer by a word of `STRIPES`."""
    return {"bidirectional": "recurrent", "depthwise_conv": "conv", "maxout": "dense", "embed": "dense"}.get(kind, kind)


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>'


def _text(kind: str, x: float, y: float, text: str, more: str = "", *, right: bool = False) -> str:
    if not text:
        return ""
    added = f'<tspan class="soft" font-weight="400" dx="8">{escape(more)}</tspan>' if more else ""
    anchor = ' text-anchor="end"' if right else ""
    return f'<text class="{kind}"{anchor} x="{x:.1f}" y="{y:.1f}">{escape(text)}{added}</text>'


def _line(points: list[tuple[float, float]]) -> list[str]:
    """Return a line through points with round corners, and its head."""
    (x, y), *rest = points
    path = [f"M{x:.1f} {y:.1f}"]
    for (a, b), after in itertools.pairwise(rest):
        turn = min(6.0, (abs(a - x) + abs(b - y)) / 2, (abs(after[0] - a) + abs(after[1] - b)) / 2)
        before, behind = _towards((a, b), (x, y), turn), _towards((a, b), after, turn)
        path.append(f"L{before[0]:.1f} {before[1]:.1f}Q{a:.1f} {b:.1f} {behind[0]:.1f} {behind[1]:.1f}")
        x, y = a, b
    a, b = rest[-1]
    path.append(f"L{a:.1f} {b:.1f}")
    down = abs(a - x) < abs(b - y)
    head = f"M{a:.1f} {b:.1f}l-3.5 -6h7z" if down else f"M{a:.1f} {b:.1f}l6 -3.5v7z"
    return [f'<path class="line" d="{"".join(path)}"/>', f'<path class="head" d="{head}"/>']


def _towards(start: tuple[float, float], end: tuple[float, float], distance: float) -> tuple[float, float]:
    length = abs(end[0] - start[0]) + abs(end[1] - start[1]) or 1.0
    share = distance / length
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
