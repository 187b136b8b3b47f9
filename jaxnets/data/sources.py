"""Sources of other libraries, for `stream`: rows with named columns, PyTorch's datasets, Parquet files."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, require, shown
from jaxnets.core.foreign import library
from jaxnets.data.arrays import Arrays
from jaxnets.data.reader import check_alike, read_example

Names = str | Sequence[str]


@dataclass(frozen=True, eq=False)
class Columns:
    """Examples `(x, y)` or `(x, y, weight)` from rows with named columns; `jn.data.columns` makes it.

    Attributes:
        rows: has a length, and returns a dict by number.
        inputs: the column of the inputs, or several.
        targets: the column of the targets, or several.
        weights: the column of the weights; `None` for none.
    """

    rows: Any
    inputs: Names
    targets: Names
    weights: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        row = self.rows[index]
        if not isinstance(row, Mapping):
            raise NetError(f"expects rows that are dicts, got {shown(row)}", label="columns")
        asked = (self.inputs, self.targets) if self.weights is None else (self.inputs, self.targets, self.weights)
        return tuple(_named(row, names) for names in asked)


def columns(rows: Any, inputs: Names, targets: Names, *, weights: str | None = None) -> Columns:
    """Make a source of examples of rows with named columns, such as a dataset of Hugging Face.

    `jn.data.stream` reads it in batches, and `jn.data.collect` into memory. Values become arrays: numbers, lists of
    equal length, images of Pillow and tensors; float64 becomes float32, and int64 int32.

    Args:
        rows: has a length and returns a dict by number: a `datasets.Dataset`, a list of dicts, `jn.data.parquet`, a
            dataset of PyTorch. Hugging Face's datasets stay in their memory-mapped files.
        inputs: the column of the inputs; or several, of which an example has a dict of arrays.
        targets: the column of the targets, or several.
        weights: the column of the example weights.

    Raises:
        NetError: for something without a length or numbered rows, or a column that is absent; while reading, for text,
            a missing value or lists of unequal length.

    >>> rows = [{"length": 1.5, "width": 0.5, "kind": 0}, {"length": 2.5, "width": 0.1, "kind": 1}]
    >>> source = columns(rows, ["length", "width"], "kind")
    >>> {name: x.tolist() for name, x in source[1][0].items()}, source[1][1].tolist()
    ({'length': 2.5, 'width': 0.10000000149011612}, 1)
    """
    with labeled_as("columns"):
        if isinstance(rows, Mapping):
            hint = f"choose a part of it, rows[{next(iter(rows), 'train')!r}]"
            raise NetError(f"expects rows by number, got {type(rows).__name__}; {hint}")
        if not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
            raise NetError(
                f"expects rows by number, with a length, got {shown(rows)}; an iterable is read by list(rows)"
            )
        if len(rows):
            Columns(rows, inputs, targets, weights)[0]
    return Columns(rows, inputs, targets, weights)


def _named(row: Mapping[str, Any], names: Names) -> Any:
    if isinstance(names, str):
        if names not in row:
            raise NetError(f"finds no column {names!r}, but {', '.join(map(repr, row))}", label="columns")
        return _array(f"the column {names!r}", row[names])
    return {name: _named(row, name) for name in names}


def _array(name: str, value: Any) -> np.ndarray:
    """Return a number, a nested list, an image or a tensor as an array."""
    x = value.detach().cpu() if library(value) == "torch" and hasattr(value, "detach") else value
    if x is None or isinstance(x, str | bytes):
        hint = "tokenize it first, by jn.data.tokenizer" if isinstance(x, str) else "leave such rows out"
        raise NetError(f"expects numbers in {name}, got {shown(x)}; {hint}", label="columns")
    try:
        found = np.asarray(x)
        # Parquet's nested lists are arrays of arrays.
        found = np.stack([_array(name, each) for each in found]) if found.dtype == object and found.size else found
    except ValueError:
        hint = "pad them, jn.data.pad, or cut them to one length"
        raise NetError(f"expects one array in {name}, got lists of unequal length; {hint}", label="columns") from None
    if found.dtype.kind not in "biuf":
        hint = "tokenize text first, by jn.data.tokenizer" if found.dtype.kind == "U" else "convert it to numbers"
        raise NetError(f"expects numbers in {name}, got {found.dtype}; {hint}", label="columns")
    narrow = {"float64": np.float32, "int64": np.int32}.get(found.dtype.name, found.dtype)
    if found.dtype.kind == "i" and found.size and not np.array_equal(found, cut := found.astype(narrow)):
        raise NetError(f"expects integers of 32 bits in {name}, got {found[found != cut].flat[0]}", label="columns")
    return found.astype(narrow)


@dataclass(frozen=True, eq=False)
class Tensors:
    """A map-style dataset of PyTorch, whose tensors become arrays."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        example = self.dataset[index]
        if isinstance(example, Mapping):
            return example
        found = jax.tree.map(lambda value: _array("an example", value), example, is_leaf=lambda x: x is None)
        return tuple(found) if isinstance(found, list) else found


def as_source(source: Any) -> Any:
    """Return a source of examples for arrays, a dataset of PyTorch, or a source."""
    if isinstance(source, tuple):
        return Arrays(source)
    return Tensors(source) if library(source) == "torch" and hasattr(source, "__getitem__") else source


def collect(source: Any) -> tuple[Any, ...]:
    """Read all examples of a source into memory, as the arrays that training takes.

    Args:
        source: has a length and returns examples `(x, y)` or `(x, y, weight)` by number: `jn.data.columns`, an image
            folder, `jn.data.parquet`, a dataset of PyTorch, a list.

    Returns:
        A tuple `(x, y)` or `(x, y, weights)`, pytrees of NumPy arrays with the examples along the first axis.

    Raises:
        NetError: for a source without examples, or examples that differ in structure, shape or dtype.

    >>> x, y = collect(columns([{"x": [1, 2], "y": 0}, {"x": [3, 4], "y": 1}], "x", "y"))
    >>> x.tolist(), y.tolist()
    ([[1, 2], [3, 4]], [0, 1])
    """
    with labeled_as("collect"):
        held = as_source(source)
        if not (hasattr(held, "__len__") and hasattr(held, "__getitem__")) or not len(held):
            raise NetError(f"expects a source of at least one example by number, got {shown(source)}")
        if isinstance(held, Arrays):
            return held.data
        examples = [read_example(held, number) for number in range(len(held))]
        check_alike(examples)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(each.example for each in examples))


class Parquet:
    """Rows of Parquet files by number, each a dict of its columns; `jn.data.parquet` makes it.

    Attributes:
        files: the files, in order.
        columns: the columns to read.
        groups: the number of row groups kept in memory.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str], groups: int) -> None:
        self.files: tuple[Path, ...] = tuple(files)
        self.columns: tuple[str, ...] = tuple(columns)
        self.groups: int = groups
        read = require("pyarrow.parquet", "tables").read_metadata
        every = [(file, read(file)) for file in self.files]
        self._places = [(file, group) for file, held in every for group in range(held.num_row_groups)]
        rows = [held.row_group(group).num_rows for _, held in every for group in range(held.num_row_groups)]
        self._ends = np.cumsum(rows, dtype=np.int64)
        self._fresh()

    def _fresh(self) -> None:
        self._lock, self._kept = Lock(), OrderedDict[int, dict[str, Any]]()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = range(len(self))[index]
        group = int(np.searchsorted(self._ends, number, side="right"))
        row = number - (int(self._ends[group - 1]) if group else 0)
        return {name: column[row] for name, column in self._group(group).items()}

    def _group(self, group: int) -> dict[str, Any]:
        with self._lock:
            if group not in self._kept:
                file, place = self._places[group]
                parquet = require("pyarrow.parquet", "tables")
                with parquet.ParquetFile(file) as opened:
                    held = opened.read_row_group(place, columns=list(self.columns))
                # The columns in one array each: nested lists are arrays of arrays.
                self._kept[group] = {name: held.column(name).to_numpy() for name in self.columns}
                if len(self._kept) > self.groups:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle for a worker process, without what was read."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._fresh()


def parquet(
    files: str | Path | Sequence[str | Path],
    inputs: Names,
    targets: Names,
    *,
    weights: str | None = None,
    groups: int = 8,
) -> Columns:
    """Make a source of the rows of Parquet files, read when they are needed, for `jn.data.stream`.

    A file consists of row groups, each of which is read at once. In shuffled order the rows of a batch are in many
    groups, so `groups` should cover the data; where it can't, write small groups (`row_group_size` of pandas and
    pyarrow) or read in order, with `shuffle=False`.

    Args:
        files: a file, several, or a folder of files `*.parquet`, which are read in the order of their names.
        inputs: the column of the inputs; or several, of which an example has a dict of arrays. A column of lists is an
            array, if these are of equal length.
        targets: the column of the targets, or several.
        weights: the column of the example weights.
        groups: the number of row groups kept in memory, at least 1; those used last.

    Returns:
        A source of examples `(x, y)` or `(x, y, weight)` by number.

    Raises:
        FileNotFoundError: if there is no such file, or none in the folder.
        ModuleNotFoundError: if pyarrow is not installed.
        NetError: for a column that a file lacks.

    >>> import pathlib, tempfile
    >>> import pandas
    >>> file = pathlib.Path(tempfile.mkdtemp(), "two.parquet")
    >>> pandas.DataFrame({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [0, 1]}).to_parquet(file)
    >>> source = parquet(file, "x", "y")
    >>> len(source), source[1][0].tolist()
    (2, [3.0, 4.0])
    """
    with labeled_as("parquet"):
        check_count("groups", groups)
        given = [files] if isinstance(files, str | Path) else list(files)
        paths: list[Path] = []
        for path in (Path(each).expanduser() for each in given):
            found = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
            if not found:
                raise FileNotFoundError(f"there is no Parquet file {path}" + ("/*.parquet" if path.is_dir() else ""))
            paths += found
        asked = [inputs, targets, *([] if weights is None else [weights])]
        names = [name for each in asked for name in ([each] if isinstance(each, str) else each)]
        schema = require("pyarrow.parquet", "tables").read_schema
        for path in paths:
            have = schema(path).names
            if absent := [name for name in names if name not in have]:
                raise NetError(f"finds no column {absent[0]!r} in {path}, but {', '.join(map(repr, have))}")
        return columns(Parquet(paths, names, groups), inputs, targets, weights=weights)
