"""A network as nested boxes with lines between them: who reads what, found out from the program itself."""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxnets.core.net import Net
from jaxnets.inspect.trace import forward, model_of
from jaxnets.tracing.layers import kinds
from jaxnets.tracing.operation import Operation, Program, Value

INPUT, OUTPUT = "input/", "output/"  # the two ends of a box; no layer has a name with a slash
SIGNS = {"add": "+", "add_any": "+", "sub": "−", "mul": "×", "div": "÷", "concatenate": "‖", "dot_general": "·"}


@dataclass
class Box:
    """A layer, or a place where values of several layers meet.

    Attributes:
        name: its own name.
        label: how it was written; for a meeting, the sign of what is done.
        kind: what sort of network it is, without `remat` and the like around it.
        one: the label of one copy where there are several.
        shape: that of what it gives, without the batch, for the outermost behind that of what it gets; "" where it is
            not known.
        children: the boxes in it by name, in order.
        lines: pairs of names of boxes in it, from what gives to what reads; `INPUT` and `OUTPUT` are its ends.
        copies: how many copies of itself it stands for; 0 for itself alone.
        meeting: whether it is no layer.
    """

    name: str
    label: str
    shape: str = ""
    children: "dict[str, Box]" = field(default_factory=dict)
    lines: dict[tuple[str, str], None] = field(default_factory=dict)
    copies: int = 0
    meeting: bool = False
    kind: str = ""
    one: str = ""

    @property
    def written(self) -> str:
        """The label, of one copy where there are several."""
        return self.one or self.label


def traced(model: Any, x: Any, *, depth: int | None) -> Box:
    """Return the boxes of a network, a Flax module or a function, with the lines that its program has in evaluation."""
    known = model_of(model, x)
    program = forward(known)
    root = _layers(known.net, known.name) if known.net is not None else _scopes(program, known.name)
    _Flow(root, program).follow()
    _prune(root, known.net)
    given = jax.tree.leaves(known.inputs)
    if len(given) == 1 and root.shape:
        root.shape = f"{_sizes(given[0])} → {root.shape}"
    _limit(root, depth)
    return root


def untraced(net: Net, *, depth: int | None) -> Box:
    """Return the boxes of a network by its kinds alone: lines only where the kind says which there are."""
    root = _layers(net, net.kind)
    _by_kind(root)
    _limit(root, depth)
    return root


def _layers(net: Net, name: str) -> Box:
    label, copies = net.label, net.copies
    children = {key: _layers(child, key) for key, child in net.children.items()}
    one = net.inner.label if net.inner is not None and net.kind in ("repeat", "ensemble") else ""
    while net.inner is not None:
        net = net.inner
    return Box(name, label, children=children, copies=copies, kind=net.kind, one=one)


def _scopes(program: Program, name: str) -> Box:
    root = Box(name, "")
    for operation in program.operations:
        box = root
        for part in operation.path:
            box = box.children.setdefault(part, Box(part, ""))
    return root


class _Flow:
    """Follows the values of a program from box to box, at every depth at once."""

    def __init__(self, root: Box, program: Program) -> None:
        self.root, self.program = root, program
        self.met: dict[Value, str] = {}  # what box beside it made a value that no child made
        self.sources: dict[tuple[Value | tuple[str, ...], str], tuple[str, ...]] = {}

    def follow(self) -> None:
        live = {value for value, kind in kinds(self.program).items() if kind == "input"}
        self.root.shape = ""
        for operation in self.program.operations:
            read = [value for value in dict.fromkeys(operation.inputs) if value in live]
            if not read:
                continue
            for value in read:
                self._read(value, operation.path)
            self._meet(operation, read)
        for value in dict.fromkeys(self.program.outputs):
            if value in live:
                self._read(value, ())
                self._line((), self._origin((), value), OUTPUT)
                self.root.shape = _shape(value)

    def _read(self, value: Value, reader: tuple[str, ...]) -> None:
        """Draw the lines from the maker of a value to its reader, in and out of boxes."""
        shared = 0
        while shared < min(len(value.path), len(reader)) and value.path[shared] == reader[shared]:
            shared += 1
        for depth in range(len(value.path), shared, -1):
            self._line(value.path[:depth], self._origin(value.path[:depth], value), OUTPUT)
            if (box := self._box(value.path[:depth])) is not None:
                box.shape = _shape(value)
        for depth in range(shared, len(reader)):
            self._line(reader[:depth], self._origin(reader[:depth], value), reader[depth])

    def _origin(self, path: tuple[str, ...], value: Value) -> str:
        """Return which box in the one at `path` a value comes from."""
        if value.path[: len(path)] != path or value.source:
            return INPUT
        return value.path[len(path)] if len(value.path) > len(path) else self.met[value]

    def _meet(self, operation: Operation, read: Iterable[Value]) -> None:
        """Note where the outputs of an operation come from that stands in no child; several origins meet in a box."""
        path = operation.path
        origins = tuple(dict.fromkeys(self._origin(path, value) for value in read))
        (name, *others), box = origins, self._box(path)
        if others and box is not None:
            made = [origin for origin in origins if (path, origin) in self.sources]
            inside = [origin for origin in made if set(origins) - {origin} <= set(self.sources[path, origin])]
            if inside:  # a second step of the same meeting, such as where(a > b, a, b)
                name = inside[0]
            else:
                name = f"meeting/{len(box.children)}"
                sign = SIGNS.get(operation.name, operation.name)
                box.children[name] = Box(name, sign, _shape(operation.outputs[0]), meeting=True)
                self.sources[path, name] = origins
                for origin in origins:
                    self._line(path, origin, name)
        self.met |= dict.fromkeys(operation.outputs, name)

    def _line(self, path: tuple[str, ...], start: str, end: str) -> None:
        box = self._box(path)
        if box is not None and start != end and (start == INPUT or start in box.children):
            box.lines[start, end] = None

    def _box(self, path: tuple[str, ...]) -> Box | None:
        box: Box | None = self.root
        for part in path:
            box = None if box is None else box.children.get(part)
        return box


def _prune(box: Box, net: Net | None) -> None:
    """Put layers that did nothing between those around them, and leave out boxes that did not run."""
    before = INPUT
    for name, child in list(box.children.items()):
        if any(name in line for line in box.lines):
            before = before if child.meeting else name
        elif not child.children and box.lines and net is not None and net.cut is not None:
            for start, end in [line for line in box.lines if line[0] == before]:
                if before != INPUT or not (end == OUTPUT or box.children[end].meeting):
                    del box.lines[start, end]
                    box.lines[name, end] = None
            box.lines[before, name] = None
            child.shape = box.children[before].shape if before != INPUT else ""
            before = name
        else:
            del box.children[name]
            continue
        _prune(child, None if net is None or child.meeting else net[name])


def _limit(box: Box, depth: int | None) -> None:
    if depth == 0:
        if box.label == "serial":  # which by itself says nothing
            box.label = _contents(box)
            box.kind = next((child.kind for child in box.children.values()), "")
        box.children, box.lines = {}, {}
    for child in box.children.values():
        _limit(child, None if depth is None else depth - 1)


def _contents(box: Box) -> str:
    """Return how the boxes in a chain were written, without options: "conv(64, 3), batch_norm, relu"."""
    briefs = []
    for child in box.children.values():
        brief = re.split(r",? ?\b\w+=", child.written)[0]
        brief = (brief + ")" * (brief.count("(") - brief.count(")"))).removesuffix("()")
        briefs.append(f"{brief} × {child.copies}" if child.copies else brief)
    runs = [(brief, len(list(run))) for brief, run in itertools.groupby(briefs)]
    return ", ".join(f"{brief} × {count}" if count > 1 else brief for brief, count in runs)


def _by_kind(box: Box) -> None:
    kind = box.kind
    names = [name for name in box.children if name != "downsample" or kind != "residual"]
    if kind in ("serial", "residual"):
        chain = [INPUT, *names]
        box.lines |= dict.fromkeys(itertools.pairwise(chain))
        end = chain[-1]
        if kind == "residual":
            side = [(INPUT, "downsample")] if "downsample" in box.children else []
            end = "meeting/sum"
            box.lines |= dict.fromkeys([(chain[-1], end), *side, ("downsample" if side else INPUT, end)])
            box.children[end] = Box(end, "+", meeting=True)
        box.lines[end, OUTPUT] = None
    elif kind == "branches":
        box.children["meeting/all"] = Box("meeting/all", "merge", meeting=True)
        box.lines |= dict.fromkeys([(INPUT, name) for name in names] + [(name, "meeting/all") for name in names])
        box.lines["meeting/all", OUTPUT] = None
    for child in box.children.values():
        if not child.meeting:
            _by_kind(child)


def _shape(value: Value) -> str:
    return _sizes(value.aval)


def _sizes(array: Any) -> str:
    return "×".join(map(str, array.shape[1:]))
