"""The cells of one column of a table, whatever library holds it: numbers, booleans, categories or dates."""

import datetime
import numbers
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, shown

KINDS = {"number": "numbers", "boolean": "booleans", "category": "text", "date": "dates", "nothing": "no values"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")


@dataclass(frozen=True, eq=False)
class Cells:
    """One column: what it holds, its values, and which of them are missing.

    Attributes:
        kind: a key of `KINDS`; "nothing" if all values are missing.
        values: `(rows,)`: float64 for numbers and booleans, datetime64[us] for dates, objects for categories.
        missing: booleans `(rows,)`.
    """

    kind: str
    values: np.ndarray
    missing: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: np.ndarray) -> "Cells":
        return Cells(self.kind, self.values[rows], self.missing[rows])

    @property
    def present(self) -> np.ndarray:
        """The values that are not missing."""
        return self.values[~self.missing]

    def first(self) -> str:
        """Return the first value with its row, for a message."""
        row = int((~self.missing).argmax())
        return f"{plain(self.values[row])!r} in row {row}"


def is_missing(value: Any) -> bool:
    """Tell whether a value is `None`, NaN, or the missing value of pandas."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def plain(value: Any) -> Any:
    """Return a Python value for a NumPy scalar, and an integer for a whole number."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def cells(name: str, column: Any) -> Cells:
    """Read a column: a series of pandas, polars or pyarrow, an array or a list.

    Raises:
        NetError: for values of several kinds, or that are none of `KINDS`.
    """
    if isinstance(column, str) or not hasattr(column, "__len__"):
        raise NetError(f"expects a list of values in the column {name!r}, got {shown(column)}")
    # A list is kept as it is: NumPy would turn [1, "a"] into texts.
    held = column if hasattr(column, "__array__") else _objects(list(column))
    values = np.asarray(held)
    if values.ndim != 1:
        raise NetError(f"expects one value per row in the column {name!r}, got an array {values.shape}")
    if values.dtype.kind in "fiu":
        values = values.astype(np.float64)
        missing = np.isnan(values)
        found = Cells("nothing" if missing.all() else "number", values, missing)
        # Numbers that pandas holds as categories are categories.
        return as_kind(name, found, "category") if str(getattr(column, "dtype", "")) == "category" else found
    if values.dtype.kind == "b":
        return Cells("boolean" if len(values) else "nothing", values.astype(np.float64), np.zeros(len(values), bool))
    if values.dtype.kind == "M":
        missing = np.isnat(values)
        return Cells("nothing" if missing.all() else "date", values.astype("datetime64[us]"), missing)
    return _inferred(name, values.astype(object))


def _objects(values: list[Any]) -> np.ndarray:
    filled = np.empty(len(values), object)
    filled[:] = values
    return filled


def _inferred(name: str, values: np.ndarray) -> Cells:
    """Find the kind of Python objects by their types."""
    missing = np.array([is_missing(value) for value in values], bool)
    present = values[~missing]
    kinds: dict[str, Any] = {}
    for kind, value in {type(value): value for value in present[::-1]}.items():
        kinds.setdefault(_kind(kind, value, name), value)
    if len(kinds) > 1:
        found = " and ".join(f"{KINDS[kind]} such as {value!r}" for kind, value in sorted(kinds.items()))
        raise NetError(f"finds {found} in the column {name!r}; convert it to one type, for text by .astype(str)")
    kind = next(iter(kinds), "nothing")
    if kind == "date":
        dates = np.full(len(values), np.datetime64("NaT", "us"), "datetime64[us]")
        dates[~missing] = [_date(value) for value in present]
        return Cells(kind, dates, missing)
    if kind in ("number", "boolean", "nothing"):
        floats = np.full(len(values), np.nan)
        floats[~missing] = [float(value) for value in present]
        return Cells(kind, floats, missing)
    return Cells(kind, values, missing)


def _kind(kind: type, value: Any, name: str) -> str:
    for types, found in (
        ((bool, np.bool_), "boolean"),
        ((numbers.Real, Decimal), "number"),
        (str, "category"),
        ((datetime.date, np.datetime64), "date"),
    ):
        if issubclass(kind, types):
            return found
    hint = "convert it to numbers, text or dates, or leave it out by drop="
    raise NetError(f"expects numbers, text, booleans or dates in the column {name!r}, got {shown(value)}; {hint}")


def _date(value: Any) -> np.datetime64:
    if isinstance(value, datetime.datetime):
        value = value.replace(tzinfo=None) if value.tzinfo is None else value.astimezone(datetime.UTC)
        value = value.replace(tzinfo=None)
    return np.datetime64(value, "us")


def holds_dates(column: Cells) -> bool:
    """Tell whether a column of text holds dates, such as 2024-02-29 or 2024-02-29 12:30."""
    return column.kind == "category" and all(_DATE.fullmatch(str(value)) for value in column.present)


def as_kind(name: str, column: Cells, kind: str) -> Cells:
    """Return a column as one of another kind, where that is clear: numbers or booleans as categories, text as dates.

    Raises:
        NetError: for any other change, with the first value that can't be read.
    """
    if column.kind == kind:
        return column
    values, missing = column.values, column.missing
    if column.kind == "nothing":
        empty = {"category": np.full(len(values), None), "date": np.full(len(values), "NaT", "datetime64[us]")}
        return Cells(kind, empty.get(kind, np.full(len(values), np.nan)), missing)
    if kind == "category":
        if column.kind == "number" and len(large := column.present[np.abs(column.present) > 2**53]):
            hint = "convert it to text, .astype(str)"
            raise NetError(f"can't tell integers above 2**53 apart in the column {name!r}, got {large[0]:.0f}; {hint}")
        read = bool if column.kind == "boolean" else plain if column.kind == "number" else str
        return Cells(kind, _objects([None if gone else read(value) for value, gone in zip(values, missing)]), missing)
    if kind == "boolean" and column.kind == "number" and np.isin(column.present, (0, 1)).all():
        return Cells(kind, values, missing)
    if kind == "number" and column.kind == "boolean":
        return Cells(kind, values, missing)
    if kind == "date" and column.kind == "category":
        dates = np.full(len(values), np.datetime64("NaT", "us"), "datetime64[us]")
        for row in np.flatnonzero(~missing):
            try:
                dates[row] = _date(datetime.datetime.fromisoformat(str(values[row])))
            except ValueError:
                hint = "pandas.to_datetime(column, format=...) reads other formats"
                raise NetError(
                    f"expects dates such as 2024-02-29 in the column {name!r}, got {values[row]!r} in row {row}; {hint}"
                ) from None
        return Cells(kind, dates, missing)
    raise NetError(
        f"expects {KINDS[kind]} in the column {name!r}, got {KINDS[column.kind]}, {column.first()}; convert it, or "
        f"correct that row"
    )
