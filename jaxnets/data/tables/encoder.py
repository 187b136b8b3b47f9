"""The fitted encoder of a table: from rows to the inputs of a network, and from its outputs back to names."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.data.labels import Labels
from jaxnets.data.scaling import Scaling
from jaxnets.data.tables.cells import Cells, as_kind
from jaxnets.data.tables.columns import Categories, Numbers
from jaxnets.data.tables.reading import read

Inputs = Any  # an array, or a dict of arrays


@dataclass(frozen=True, eq=False)
class TableEncoder:
    """A function from the rows of a table to a network's inputs, made by `jn.data.table`, with the target's names.

    Its fields are numbers, texts, arrays and records of these, so that it can be saved in a file.

    Attributes:
        inputs: the fitted columns, in the order of the table.
        target: the column to predict.
        names: `Labels` if the target is a class; a `Scaling` if it is a standardized number; else `None`.
        one_hot: whether categories become features of 0 and 1; otherwise they are integers, for embeddings.

    >>> import jaxnets as jn
    >>> rows = {"width": [1.0, 3.0], "color": ["red", "blue"], "kind": ["a", "b"]}
    >>> encoder = jn.data.table(rows, target="kind", split=None).encoder
    >>> encoder.columns, encoder([{"width": 2.0, "color": "red"}]).tolist(), encoder.decode([[0.2, 0.1]]).tolist()
    (('width', 'color=blue', 'color=red'), [[0.0, 0.0, 1.0]], ['a'])
    """

    inputs: tuple[Numbers | Categories, ...]
    target: str
    names: Labels | Scaling | None
    one_hot: bool

    def __call__(self, table: Any) -> Inputs:
        """Return the inputs of a network for a table, which needs no target; other columns are ignored.

        Args:
            table: any table that `jn.data.table` takes, or a list of dicts, one for each row.

        Returns:
            `(rows, features)` float32; without `one_hot` a dict of `numbers` `(rows, features)` float32 and
            `categories` `(rows, columns)` int32.

        Raises:
            NetError: for a column that is absent, or holds values of another kind than in training.
        """
        with labeled_as("TableEncoder"):
            return self.encode(read(table))

    def encode(self, columns: Mapping[str, Cells]) -> Inputs:
        """Return the inputs of a network for columns that are read already."""
        if absent := [each.name for each in self.inputs if each.name not in columns]:
            close = difflib.get_close_matches(absent[0].lower(), [name.lower() for name in columns], 1, 0.6)
            like = next((name for name in columns if close and name.lower() == close[0]), None)
            have = ", ".join(map(repr, list(columns)[:10])) + (", …" if len(columns) > 10 else "")
            hint = f"rename {like!r}" if like is not None else "give it, with None for missing values"
            raise NetError(f"expects the column{'s' * (len(absent) > 1)} {', '.join(absent)}, got {have}; {hint}")
        rows = len(next(iter(columns.values())))
        numbers = [each(columns[each.name]) for each in self.inputs if isinstance(each, Numbers)]
        if self.one_hot:
            encoded = (each.one_hot if isinstance(each, Categories) else each for each in self.inputs)
            return np.concatenate([encode(columns[each.name]) for encode, each in zip(encoded, self.inputs)], 1)
        codes = [each(columns[each.name])[:, None] for each in self.inputs if isinstance(each, Categories)]
        return {
            "numbers": np.concatenate([np.zeros((rows, 0), np.float32), *numbers], 1),
            "categories": np.concatenate([np.zeros((rows, 0), np.int32), *codes], 1),
        }

    def examples(self, table: Any) -> tuple[Inputs, np.ndarray]:
        """Return inputs and targets `(x, y)` of another table with the target, such as a test set in its own file.

        Raises:
            NetError: as for a call; for a target that is absent or missing in a row, or a class that is not known.
        """
        with labeled_as("TableEncoder"):
            columns = read(table)
            if self.target not in columns:
                raise NetError(f"expects the target {self.target}, got {', '.join(columns)}; encoder(table) needs none")
            return self.encode(columns), self.encode_target(columns[self.target])

    def encode_target(self, column: Cells) -> np.ndarray:
        """Return targets of known rows: class numbers int32 or numbers float32, `(rows,)`."""
        check_target(self.target, column)
        if isinstance(self.names, Labels):
            return self.names.encode(list(as_kind(self.target, column, "category").values))
        y = as_kind(self.target, column, "number").values
        return (y if self.names is None else self.names(y)).astype(np.float32)

    def decode(self, outputs: Any) -> np.ndarray:
        """Return class names for a network's outputs, or numbers in the units of the table.

        Args:
            outputs: of a classifier as `Labels.decode` takes them; else numbers of any shape.
        """
        if isinstance(self.names, Labels):
            return self.names.decode(outputs)
        values = np.asarray(outputs)
        return values if self.names is None else self.names.inverse(values)

    @property
    def classes(self) -> tuple[Any, ...]:
        """The names of the classes; empty if the target is a number."""
        return self.names.classes if isinstance(self.names, Labels) else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The name of each feature of the inputs; without `one_hot`, of the numbers and then of the categories."""
        if self.one_hot:
            return tuple(name for each in self.inputs for name in each.features)
        numbers = (name for each in self.inputs if isinstance(each, Numbers) for name in each.features)
        return (*numbers, *self.sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of codes of each column of categories, for `jn.embed_columns`."""
        return {each.name: each.size for each in self.inputs if isinstance(each, Categories)}


def check_target(name: str, column: Cells) -> None:
    """Check that no target is missing or infinite.

    Raises:
        NetError: if one is, with its row.
    """
    if column.missing.any():
        row, count = int(column.missing.argmax()), int(column.missing.sum())
        hint = f"leave such rows out, table.dropna(subset=[{name!r}])"
        raise NetError(f"finds {count} missing values in the target {name!r}, the first in row {row}; {hint}")
    if column.kind == "number" and np.isinf(column.values).any():
        raise NetError(f"finds infinite values in the target {name!r}")
