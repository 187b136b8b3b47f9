"""The record that `summary` returns: a row for each layer, as text, Markdown or a list of dicts."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxnets.core.errors import require
from jaxnets.core.markup import table

COLUMNS = {
    "kind": "kind",
    "output": "output",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "flops": "FLOPs",
    "memory": "memory",
    "receptive_field": "field",
    "connections": "connections",
    "train_flops": "training FLOPs",
    "train_memory": "residuals",
}


@dataclass(frozen=True)
class Row:
    """The counts of a layer, including the layers inside it; a column that was not requested is `None`.

    Attributes:
        path: slash-joined path; "" for the whole model.
        times: number of copies in sequence (`repeat`) or side by side (`ensemble`).
        kind: kind of layer, `conv`; "" if it is not a `Net`.
        output: shapes of its outputs, batch axis first; empty if it does not run.
        parameters: number of parameters.
        multiply_adds: multiply-adds of a forward pass, see `jn.inspect.multiply_adds`.
        flops: FLOPs of a forward pass, see `jn.inspect.flops`.
        memory: bytes of the layers' outputs, `activations` of `jn.inspect.Memory`.
        receptive_field: number of positions of the input that a unit sees along each spatial axis.
        connections: number of connections, see `jn.inspect.connections`.
        train_flops: FLOPs of a forward and a backward pass.
        train_memory: bytes of the residuals, which the forward pass stores for the backward pass.
        unsure: whether a count is a lower bound; the notes of the summary say why.
    """

    path: str
    times: int = 1
    kind: str = ""
    output: tuple[tuple[int, ...], ...] = ()
    parameters: int = 0
    multiply_adds: int | None = None
    flops: int | None = None
    memory: int | None = None
    receptive_field: tuple[int, ...] | None = None
    connections: int | None = None
    train_flops: int | None = None
    train_memory: int | None = None
    unsure: bool = False


@dataclass(frozen=True)
class Summary:
    """A model layer by layer. It prints as a table, in color with `rich.print`.

    Attributes:
        label: name of the model.
        rows: the layers, each before the layers inside it.
        total: the whole model.
        columns: names of the columns to show.
        notes: what could not be counted, and why.
    """

    label: str
    rows: tuple[Row, ...]
    total: Row
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def records(self) -> list[dict[str, Any]]:
        """Return a dict of exact numbers for each layer, followed by one for the whole model, with the path ""."""
        return [
            {name: getattr(row, name) for name in ("path", "times", *self.columns)} for row in (*self.rows, self.total)
        ]

    def markdown(self) -> str:
        """Return the table as Markdown, with exact numbers."""
        lines = [self._cells(row, row.path or "total", exact=True) for row in (*self.rows, self.total)]
        rule = ["---", *("---" if name in _TEXT else "--:" for name in self.columns)]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in (self._head(), rule, *lines))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # IPython and notebooks show the table.
        printer.text(str(self))

    def _repr_html_(self) -> str:
        # Notebooks prefer this.
        *rows, total = self._lines()
        names = ("", *self.columns)
        shown = table(self.label, self._head(), rows, total, left=lambda n: not names[n] or names[n] in _TEXT)
        return shown + "".join(f"<div>{html.escape(reason)}</div>" for reason in self._reasons())

    def __str__(self) -> str:
        lines = [self._head(), *self._lines()]
        widths = [max(map(len, column)) for column in zip(*lines)]
        to_left = [True, *(name in _TEXT for name in self.columns)]
        text = []
        for line in lines:
            cells = (cell.ljust(n) if left else cell.rjust(n) for cell, n, left in zip(line, widths, to_left))
            text.append("  ".join(cells).rstrip())
        head, *rows, total = text
        rule = "─" * max(map(len, text))
        body = [*rows, rule] if rows else []
        return "\n".join([self.label, rule, head, rule, *body, total, *self._reasons()])

    def __rich__(self) -> Any:
        require("rich", "experiments")
        from rich.box import SIMPLE
        from rich.table import Table

        caption = "\n".join(self._reasons()) or None
        table = Table(title=self.label, caption=caption, box=SIMPLE, show_footer=True)
        *lines, total = self._lines()
        for head, foot, name in zip(self._head(), total, ["", *self.columns]):
            table.add_column(head, foot, justify="left" if not name or name in _TEXT else "right", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        return table

    def _head(self) -> list[str]:
        return ["layer", *(COLUMNS[name] for name in self.columns)]

    def _reasons(self) -> list[str]:
        return [f"≥: {note}" for note in self.notes]

    def _lines(self) -> list[list[str]]:
        lines = []
        for row in self.rows:
            *outer, name = row.path.split("/")
            times = f" ×{row.times}" if row.times > 1 else ""
            lines.append(self._cells(row, "  " * len(outer) + name + times, exact=False))
        return [*lines, self._cells(self.total, "total", exact=False)]

    def _cells(self, row: Row, name: str, *, exact: bool) -> list[str]:
        return [name, *(_cell(row, column, exact) for column in self.columns)]


_TEXT = ("kind", "output", "receptive_field")
# Counts that loops of unknown length and operations without a rule do not affect.
_CERTAIN = ("parameters", "memory", "connections", "train_memory")


def _cell(row: Row, column: str, exact: bool) -> str:
    value = getattr(row, column)
    if column == "output":
        shapes = [str(shape) for shape in row.output[:2]] + ["…"] * (len(row.output) > 2)
        return ", ".join(shapes)
    if column == "receptive_field":
        return "×".join(map(str, value or ()))
    if value is None or column == "kind":
        return value or ""
    bound = "≥ " if row.unsure and column not in _CERTAIN else ""
    if exact or column in ("parameters", "connections"):
        return f"{bound}{value:,}"
    return bound + (_scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB")) if "memory" in column else _scaled(value))


def _scaled(value: float, step: int = 1000, units: Sequence[str] = ("", "k", "M", "G", "T", "P")) -> str:
    """Return a number with three significant digits and its unit.

    >>> _scaled(4_089_184_256), _scaled(999_999), _scaled(1536, 1024, ("B", "KiB"))
    ('4.09 G', '1.00 M', '1.50 KiB')
    """
    place = 0
    while place < len(units) - 1 and max(value, float(f"{value:.3g}")) >= step:
        value, place = value / step, place + 1
    digits = 0 if place == 0 else max(0, 3 - len(str(int(float(f"{value:.3g}")))))
    return f"{value:.{digits}f} {units[place]}".rstrip()
