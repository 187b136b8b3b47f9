"""Diagrams of networks as Mermaid flowcharts, which GitHub, Jupyter and MkDocs render."""

import itertools
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.inspect import trace
from jaxnets.inspect.report import Row
from jaxnets.inspect.summary import summary
from jaxnets.plot.flow import INPUT, OUTPUT, flow, sizes
from jaxnets.tracing.operation import Path

# Words in the kinds of layers, and the colors of outline and fill, from the color-blind-safe palette of Okabe and Ito.
COLORS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "conv": (("conv",), "#0072b2", "#d9eaf5"),
    "dense": (("dense", "maxout", "embed"), "#d55e00", "#fae5d6"),
    "pool": (("pool",), "#009e73", "#d6f0e8"),
    "norm": (("norm",), "#cc79a7", "#f8e8f1"),
    "recurrent": (("recurrent", "cell"), "#e69f00", "#fcf0d6"),
}
INDENT = "    "
# Mermaid's codes for characters that end a label, or that it reads as HTML or Markdown.
ESCAPES = str.maketrans({character: f"#{ord(character)};" for character in '"#&<>`*[]{}|\\'})


@dataclass(frozen=True)
class Diagram:
    """A diagram as the text of a Mermaid flowchart. Notebooks render it.

    Attributes:
        mermaid: the flowchart.
    """

    mermaid: str

    def __str__(self) -> str:
        return self.mermaid

    def _repr_markdown_(self) -> str:
        return f"```mermaid\n{self.mermaid}```\n"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.mermaid, "text/markdown": self._repr_markdown_(), "text/vnd.mermaid": self.mermaid}

    def save(self, path: str | File, *, overwrite: bool = False) -> File:
        """Write the flowchart to a `.mmd` file, or to a `.md` file as a fenced block, and return the path.

        Raises:
            NetError: for another suffix.
            FileExistsError: if the file exists and `overwrite` is not set.
        """
        path = File(path).expanduser()
        if path.suffix not in (".mmd", ".md"):
            raise NetError(f"expects a path that ends in .mmd or .md, got {str(path)!r}", label="diagram")
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(self.mermaid if path.suffix == ".mmd" else self._repr_markdown_())
        return path


def diagram(model: Any, *inputs: Any, depth: int | None = None, train: bool = False) -> Diagram:
    """Draw a model as a Mermaid flowchart: a node for each layer, and an arrow from each layer to those that read it.

    The arrows are found by tracing the program on shapes, so they are correct for any network, Flax module or function
    with named scopes: branches are side by side, a shortcut bypasses the layers that it skips, and values that are
    combined outside of any layer meet in a node such as "add" or "concatenate". A layer with layers inside becomes a
    subgraph. Each node has the layer's name, how it was written, the shape of its output without the batch axis, and
    its number of parameters. "× 3" marks a `repeat` or an `ensemble` of three copies. A `serial` that is not opened
    lists its layers. Colors distinguish convolutions, dense layers, pools, normalization and recurrent layers.

    Args:
        model: a network; a Flax module, Linen or NNX; or any function JAX can trace.
        *inputs: arrays, `jax.ShapeDtypeStruct`s or shapes (of float32), batch axis first; one for a network.
        depth: how many levels of layers to open; default: all. Deep networks need it, as Mermaid draws at most 500
            arrows.
        train: whether to draw the forward pass of training. Layers that only run then, such as auxiliary heads, are
            left out otherwise.

    Returns:
        A `Diagram`, the same for equal networks: `str` is the text, and `.save("net.mmd")` writes it.

    Raises:
        NetError: for a negative depth; from the layer, for an input of a wrong shape.

    >>> import jax, jaxnets as jn
    >>> print(diagram(jn.serial(hidden=jn.dense(8), relu=jax.nn.relu, out=jn.dense(2)), (1, 4)))
    flowchart TB
        input0(["input 4"])
        subgraph n0["<b>serial</b> · 2 · 58 parameters"]
            n1["<b>hidden</b><br/>dense(8)<br/>8 · 40 parameters"]:::dense
            n2["<b>relu</b><br/>8"]
            n3["<b>out</b><br/>dense(2)<br/>2 · 18 parameters"]:::dense
        end
        output0(["output 2"])
        input0 --> n1
        n1 --> n2
        n2 --> n3
        n3 --> output0
        classDef dense fill:#fae5d6,stroke:#d55e00,color:#16191d
    <BLANKLINE>
    """
    known = trace.model_of(model, *inputs)
    table = summary(model, *inputs, depth=depth, columns=("kind", "output", "parameters"), train=train)
    rows = {(*known.scope, *filter(None, row.path.split("/"))): row for row in (table.total, *table.rows) if row.output}
    nets = {path: _net_at(known.net, path) for path in rows}
    edges, labels = flow(trace.forward(known, train=train), rows, _chains(nets))
    # Only layers on an edge and those around them are drawn. Ids are short and safe: "end", for one, is a keyword.
    root = next(iter(rows))
    drawn = {root} | {node[:depth] for edge in edges for node in edge for depth in range(len(node) + 1)}
    ids = {path: f"n{number}" for number, path in enumerate(path for path in rows if path in drawn)}
    ids |= {node: node[-1].replace("/", "") for node in labels}
    starts, ends = ([node for node in labels if node[-1].startswith(side)] for side in (INPUT, OUTPUT))
    colors = set()

    def lines(path: Path) -> list[str]:
        """Return the lines of a node, or of a subgraph with all its nodes."""
        if path in labels:
            left, right = ("([", "])") if path in starts or path in ends else ("(", ")")
            return [f'{ids[path]}{left}"{labels[path].translate(ESCAPES)}"{right}']
        inside = [inner for inner in ids if inner[:-1] == path != inner and inner not in starts and inner not in ends]
        name, *texts = _texts(table.label if path == root else path[-1], rows[path], nets[path], opened=bool(inside))
        if inside:
            body = "\n".join(line for inner in inside for line in lines(inner))
            return [f'subgraph {ids[path]}["{" · ".join([name, *texts])}"]', textwrap.indent(body, INDENT), "end"]
        colors.add(color := _color(nets[path]))
        return [f'{ids[path]}["{"<br/>".join([name, *texts])}"]{color and f":::{color}"}']

    body = [line for node in (*starts, root, *ends) for line in lines(node)]
    body += [f"{ids[start]} --> {ids[end]}" for start, end in edges]
    for color, (_, stroke, fill) in COLORS.items():
        if color in colors:
            body.append(f"classDef {color} fill:{fill},stroke:{stroke},color:#16191d")
    return Diagram("flowchart TB\n" + textwrap.indent("\n".join(body), INDENT) + "\n")


def _net_at(net: Net | None, path: Path) -> Net | None:
    """Return the network at a path below another one; `None` where the layer is a scope or a submodule."""
    for name in path:
        net = None if net is None else net.children.get(name)
    return net


def _chains(nets: Mapping[Path, Net | None]) -> dict[Path, list[Path]]:
    """Return the children of each network that runs its children in order."""
    chains: dict[Path, list[Path]] = {path: [] for path, net in nets.items() if net is not None and net.cut is not None}
    for path in nets:
        # A "downsample" is the layer of a shortcut, beside the chain.
        if path and path[:-1] in chains and path[-1] != "downsample":
            chains[path[:-1]].append(path)
    return chains


def _texts(name: str, row: Row, net: Net | None, *, opened: bool) -> list[str]:
    """Return a layer's name, how it was written, and its output's shape with its parameters, escaped."""
    written = "" if net is None else _written(net)
    if net is not None and (one := _one(net)).kind == "serial" and one.children:
        written = "" if opened else _contents(one)
    shapes = [sizes(shape) for shape in row.output[:2]] + ["…"] * (len(row.output) > 2)
    numbers = ", ".join(filter(None, shapes)), f"{row.parameters:,} parameters" if row.parameters else ""
    times = f" × {row.times}" if row.times > 1 else ""
    texts = ["" if written == name else written, " · ".join(filter(None, numbers))]
    return [f"<b>{(name + times).translate(ESCAPES)}</b>", *(text.translate(ESCAPES) for text in texts if text)]


def _one(net: Net) -> Net:
    """Return one copy of a `repeat` or an `ensemble`; any other network unchanged."""
    return net.inner if net.copies and net.inner is not None else net


def _written(net: Net) -> str:
    return _one(net).label.removesuffix("()")


def _contents(net: Net) -> str:
    """Return how the layers of a `serial` were written, without options: "conv(64, 3), batch_norm, relu"."""
    briefs = []
    for child in net.children.values():
        # Cut at the first option and close the parentheses: "conv(64, 3, padding=1)" becomes "conv(64, 3)".
        brief = re.split(r",? ?\b\w+=", _written(child))[0]
        brief = (brief + ")" * (brief.count("(") - brief.count(")"))).removesuffix("()")
        briefs.append(f"{brief} × {child.copies}" if child.copies else brief)
    counts = [(brief, len(list(equal))) for brief, equal in itertools.groupby(briefs)]
    return ", ".join(f"{brief} × {count}" if count > 1 else brief for brief, count in counts)


def _color(net: Net | None) -> str:
    """Return the color of a layer, for a `serial` that of its first layer; "" for none."""
    while net is not None and (net.inner is not None or (net.kind == "serial" and net.children)):
        net = net.inner or next(iter(net.children.values()))
    matches = (color for color, (words, *_) in COLORS.items() for word in words if net is not None and word in net.kind)
    return next(matches, "")
