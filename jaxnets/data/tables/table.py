"""Tables of mixed columns as parts of inputs and targets."""

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, shown
from jaxnets.data.labels import Labels
from jaxnets.data.labels import labels as labels_of
from jaxnets.data.scaling import standardize as measure
from jaxnets.data.splits import split_indices
from jaxnets.data.tables.cells import KINDS, Cells, as_kind, holds_dates
from jaxnets.data.tables.columns import DATE_PARTS, Categories, Numbers, fit_categories, fit_numbers
from jaxnets.data.tables.encoder import TableEncoder, check_target
from jaxnets.data.tables.reading import read

Part = tuple[Any, np.ndarray]
# An integer target of more distinct values may be a number; a text with a value of its own in each of as many rows
# may be a name.
MANY_CLASSES, MANY_NAMES = 100, 20


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """The parts of a table, made by `jn.data.table`.

    Attributes:
        train: inputs and targets `(x, y)`.
        validation: likewise; `None` if not split off.
        test: likewise; `None` if not split off.
        encoder: the function from rows to inputs, fitted on the training part.
        rows: the row numbers of each part in the table.
    """

    train: Part
    validation: Part | None
    test: Part | None
    encoder: TableEncoder
    rows: tuple[np.ndarray, ...] = field(default=())

    def __repr__(self) -> str:
        sizes = " + ".join(str(len(rows)) for rows in self.rows)
        classes = f", {len(self.encoder.classes)} classes" if self.encoder.classes else ""
        inputs = f"{len(self.encoder.inputs)} columns as {len(self.encoder.columns)} features"
        return f"Table({sizes} rows, {inputs}, target {self.encoder.target}{classes})"


def table(
    data: Any,
    target: str,
    *,
    split: Sequence[Any] | None = (0.8, 0.2),
    seed: int = 0,
    drop: Iterable[str] = (),
    kinds: Mapping[str, Literal["number", "category", "boolean", "date"]] = {},
    one_hot: bool = True,
    standardize: bool = True,
    missing: Literal["mean", "median"] = "mean",
    date_parts: Sequence[str] = ("days", "month", "weekday"),
    unknown: Literal["own", "error"] = "own",
    min_count: int = 1,
    classes: bool | None = None,
    standardize_target: bool = False,
) -> Table:
    """Convert a table of numbers, categories, booleans and dates to parts of inputs and targets.

    The table is split first; all statistics and categories are those of the training part alone. The encoder of the
    result converts further rows in the same way.

    | column | features |
    | --- | --- |
    | number | standardized, z = (x - mean) / deviation |
    | boolean | 0 or 1 |
    | date | the numbers of `date_parts`, standardized each |
    | text | 0 or 1 for each category; without `one_hot` one integer, for `jn.embed_columns` |

    A missing number is filled with the mean or median, and one more feature says where, if some were missing in
    training. Missing categories are a category of their own. Text in which every value is a date such as 2024-02-29
    is a date.

    Args:
        data: a data frame of pandas or polars, a table of pyarrow, a dict of columns, or the path of a CSV or Parquet
            file, which pandas reads.
        target: the column to predict. Text, booleans and integers are classes, other numbers are to be predicted.
        split: the fractions of the training part and, if wanted, of a validation and a test part, stratified by class;
            or the row numbers of each, as `jn.data.split_groups` and `split_in_time` return them; `None` for training
            alone.
        seed: the seed of the split.
        drop: columns to leave out, such as row numbers and names.
        kinds: what columns hold, for those where it is not clear: `{"zip": "category"}`.
        one_hot: whether each category becomes a feature.
        standardize: whether to standardize numbers and dates.
        missing: what stands for missing numbers, after which they are standardized.
        date_parts: any of `"days"` since 1970, `"year"`, `"month"`, `"day"`, `"day_of_year"`, `"weekday"` (0 is Monday)
            and `"hour"`.
        unknown: whether a category that training does not have gets its own code (zeros in all features of `one_hot`)
            or is an error.
        min_count: the number of training rows below which a category counts as unknown.
        classes: whether the target is a class. Default: by its type; for integers of more than 100 values say it.
        standardize_target: whether to standardize the target of a regression; `encoder.decode` undoes it.

    Returns:
        A `Table` of `train`, `validation` and `test`, each `(x, y)`: x `(rows, features)` float32, without `one_hot` a
        dict of `numbers` float32 and `categories` int32; y `(rows,)`, classes int32 or numbers float32. And its
        `encoder`, a `TableEncoder`.

    Raises:
        FileNotFoundError: if a file does not exist.
        ModuleNotFoundError: if a file is to be read without pandas.
        NetError: for a column that is unknown, holds values of several kinds or none at all in training, or has another
            text in every row; for a target with missing values; for a number that is infinite; for an option that is
            none of those listed.

    >>> irises = {"width": [0.2, 0.4, None, 1.8], "color": ["blue", "red", "red", "blue"], "kind": ["a", "a", "b", "b"]}
    >>> parts = table(irises, target="kind", split=None)
    >>> parts.encoder.columns
    ('width', 'width missing', 'color=blue', 'color=red')
    >>> parts.train[0].shape, parts.train[1].tolist(), parts.encoder.classes
    ((4, 4), [0, 0, 1, 1], ('a', 'b'))
    """
    with labeled_as("table"):
        for name, value, known in (
            ("missing", missing, ("mean", "median")),
            ("unknown", unknown, ("own", "error")),
            *(("date_parts", part, DATE_PARTS) for part in date_parts),
            *(("kinds", kind, [each for each in KINDS if each != "nothing"]) for kind in kinds.values()),
        ):
            if value not in known:
                raise NetError(f"expects {name} from {', '.join(map(repr, known))}, got {value!r}")
        check_count("min_count", min_count)
        columns = read(data)
        drop = [drop] if isinstance(drop, str) else list(drop)
        for name in (target, *drop, *kinds):
            if name not in columns:
                close = difflib.get_close_matches(name, columns, 1, 0.6)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                if len(columns) == 1 and (sep := next((each for each in ";\t|" if each in next(iter(columns))), "")):
                    hint = f"; read it by pandas.read_csv(file, sep={sep!r})"
                raise NetError(f"finds no column {name!r}, but {', '.join(map(repr, columns))}{hint}")
        if target in drop:
            raise NetError(f"expects other columns in drop than the target {target!r}")
        check_target(target, columns[target])
        labels = _labels(target, columns[target], classes)
        rows = _rows(split, seed, labels, columns[target])
        fitted = []
        for name, column in columns.items():
            if name == target or name in drop:
                continue
            column = _kind_of(name, column, kinds.get(name), rows[0])
            columns[name], part = column, column[rows[0]]
            if part.kind == "category":
                fitted.append(fit_categories(name, part, min_count=min_count, unknown=unknown))
            else:
                parts = tuple(date_parts)
                fitted.append(fit_numbers(name, part, missing=missing, parts=parts, standardize=standardize))
        if not fitted:
            raise NetError(f"expects a column beside the target {target!r}, got none")
        encoder = _encoder(fitted, target, columns[target], labels, one_hot, rows[0] if standardize_target else None)
        chosen = [{name: column[part] for name, column in columns.items()} for part in rows]
        found = [(encoder.encode(part), encoder.encode_target(part[target])) for part in chosen]
    return Table(*found, *[None] * (3 - len(found)), encoder=encoder, rows=tuple(rows))


def _encoder(
    fitted: list[Numbers | Categories],
    target: str,
    column: Cells,
    labels: Labels | None,
    one_hot: bool,
    rows: np.ndarray | None,
) -> TableEncoder:
    if rows is None:
        return TableEncoder(tuple(fitted), target, labels, one_hot)
    if labels is not None:
        raise NetError(f"standardizes numbers, but the target {target!r} has classes; classes=False predicts a number")
    units = jax.tree.map(np.asarray, measure(as_kind(target, column, "number").values[rows]))
    return TableEncoder(tuple(fitted), target, units, one_hot)


def _labels(target: str, column: Cells, classes: bool | None) -> Labels | None:
    """Return the classes of a target, `None` if it is a number."""
    if column.kind == "date":
        raise NetError(f"expects classes or numbers as the target {target!r}, got dates, {column.first()}")
    whole = column.kind == "number" and bool((column.values == np.round(column.values)).all())
    if classes is None:
        classes = whole or column.kind != "number"
        count = len(np.unique(column.values)) if whole else 0
        if count > MANY_CLASSES:
            hint = "classes=False predicts a number, classes=True a class"
            raise NetError(f"finds {count} different integers in the target {target!r}; {hint}")
    if not classes and column.kind == "category":
        raise NetError(f"expects numbers in the target {target!r}, got text, {column.first()}")
    return labels_of(list(as_kind(target, column, "category").values)) if classes else None


def _rows(split: Sequence[Any] | None, seed: int, labels: Labels | None, column: Cells) -> list[np.ndarray]:
    """Return the row numbers of each part."""
    if split is None:
        return [np.arange(len(column))]
    if isinstance(split, str | float | int) or not 1 <= len(split) <= 3:
        raise NetError(
            f"expects split as one to three fractions, such as (0.8, 0.2), or row numbers, got {shown(split)}"
        )
    if np.ndim(split[0]) == 0:
        codes = np.zeros(len(column)) if labels is None else _codes(column)
        return split_indices(codes, split, seed=seed, stratify=labels is not None)
    rows = [np.arange(len(column))[np.asarray(part)] for part in split]
    if not all(map(len, rows)) or len(np.unique(np.concatenate(rows))) < sum(map(len, rows)):
        raise NetError("expects row numbers in split that are disjoint, and at least one in each part")
    return rows


def _codes(column: Cells) -> np.ndarray:
    return np.unique(column.values.astype(str), return_inverse=True)[1]


def _kind_of(name: str, column: Cells, kind: str | None, train: np.ndarray) -> Cells:
    """Return a column as what it holds, and check that the training rows show it."""
    if kind is not None:
        column = as_kind(name, column, kind)
    elif holds_dates(column):
        column = as_kind(name, column, "date")
    present = column[train].present
    if not len(present):
        raise NetError(f"finds no values in the column {name!r} in training; leave it out, drop=[{name!r}]")
    if kind is None and column.kind == "category" and len(set(present)) == len(present) >= MANY_NAMES:
        raise NetError(
            f"finds another text in each row of the column {name!r}, {column.first()}; leave it out, "
            f"drop=[{name!r}], or keep it by kinds={{{name!r}: 'category'}}"
        )
    if kind is None and column.kind == "category" and 2 * len(set(present)) > len(present) >= MANY_NAMES:
        warnings.warn(
            f"table finds {len(set(present))} different texts in {len(present)} rows of the column {name!r}, "
            f"{column.first()}; {_reading(name, str(present[0]))}, or keep it by kinds={{{name!r}: 'category'}}",
            stacklevel=3,
        )
    return column


def _reading(name: str, text: str) -> str:
    """Return what to do with a column of many different texts such as this one."""
    if re.fullmatch(r"[-+]?[\d.]*,\d+", text):
        return "convert it to numbers, pandas.read_csv(file, decimal=',')"
    if re.fullmatch(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}.*", text):
        return "convert it to dates, pandas.to_datetime(column, format=...)"
    return f"leave it out, drop=[{name!r}]"
