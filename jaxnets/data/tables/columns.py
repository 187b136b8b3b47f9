"""Columns of a table as numbers: each is fitted on training rows, and then a function of a column's values."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.data.tables.cells import Cells, as_kind, cells

DAY = np.timedelta64(1, "D")


def _since(dates: np.ndarray, unit: str) -> np.ndarray:
    """Return the time since the beginning of the unit, in days."""
    return (dates - dates.astype(f"datetime64[{unit}]")) / DAY


DATE_PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "days": lambda dates: (dates - np.datetime64("1970-01-01", "us")) / DAY,
    "year": lambda dates: dates.astype("datetime64[Y]").astype(float) + 1970,
    "month": lambda dates: dates.astype("datetime64[M]").astype(int) % 12 + 1.0,
    "day": lambda dates: np.floor(_since(dates, "M")) + 1,
    "day_of_year": lambda dates: np.floor(_since(dates, "Y")) + 1,
    # 1970-01-01 was a Thursday; Monday is 0.
    "weekday": lambda dates: (dates.astype("datetime64[D]").astype(int) + 3) % 7.0,
    "hour": lambda dates: np.floor(_since(dates, "D") * 24),
}


@dataclass(frozen=True)
class Numbers:
    """A column of numbers, booleans or dates as features, z = (x - offset) / scale, with missing values filled.

    Attributes:
        name: the column.
        kind: `"number"`, `"boolean"` or `"date"`.
        parts: for dates the part of each feature, a key of `DATE_PARTS`; else `("",)`.
        fill: what stands for a missing value, for each part, in the units of x.
        offset: the value that becomes 0, for each part.
        scale: the difference that becomes 1, for each part.
        indicator: whether one more feature is 1 where the value is missing, else 0.

    >>> age = Numbers("age", "number", ("",), (40.0,), (40.0,), (10.0,), True)
    >>> age([50, None]).tolist(), age.features
    ([[1.0, 0.0], [0.0, 1.0]], ('age', 'age missing'))
    """

    name: str
    kind: str
    parts: tuple[str, ...]
    fill: tuple[float, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    indicator: bool

    @property
    def features(self) -> tuple[str, ...]:
        """The name of each feature."""
        parts = tuple(f"{self.name} {part}".rstrip() for part in self.parts)
        return (*parts, f"{self.name} missing") if self.indicator else parts

    def __call__(self, column: Any) -> np.ndarray:
        """Return the features of a column's values, `(rows, features)` float32.

        Raises:
            NetError: for values of another kind, or infinite ones.
        """
        held = _held(self.name, column, self.kind)
        check_finite(self.name, held)
        x = np.where(held.missing[:, None], self.fill, measured(held, self.parts))
        z = (x - self.offset) / self.scale
        missing = [held.missing[:, None].astype(np.float64)] if self.indicator else []
        return np.concatenate([z, *missing], 1).astype(np.float32)


@dataclass(frozen=True)
class Categories:
    """A column of categories as integers: 0 to k - 1 for those of training, k for missing, k + 1 for any other.

    Attributes:
        name: the column.
        categories: the k categories, sorted; texts, numbers or booleans.
        indicator: whether values were missing in training: `one_hot` then has a feature for them.
        unknown: `"own"` gives other categories the code k + 1; with `"error"` they are an error.

    >>> color = Categories("color", ("blue", "red"), False, "own")
    >>> color(["red", None, "green"]).tolist(), color.one_hot(["red", None, "green"]).tolist()
    ([1, 2, 3], [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    """

    name: str
    categories: tuple[Any, ...]
    indicator: bool
    unknown: str

    @property
    def size(self) -> int:
        """The number of codes, k + 2."""
        return len(self.categories) + 2

    @property
    def features(self) -> tuple[str, ...]:
        """The name of each feature of `one_hot`."""
        known = tuple(f"{self.name}={category}" for category in self.categories)
        return (*known, f"{self.name} missing") if self.indicator else known

    def __call__(self, column: Any) -> np.ndarray:
        """Return the codes of a column's values, `(rows,)` int32.

        Raises:
            NetError: for values of another type than in training, or, with `unknown="error"`, another category.
        """
        held = _held(self.name, column, "category")
        text = isinstance(self.categories[0], str)
        given = cells(self.name, column) if not isinstance(column, Cells) else column
        if given.kind != "nothing" and text != (given.kind == "category" and isinstance(given.present[0], str)):
            want = "text" if text else "numbers or booleans"
            hint = f"convert it, {'.astype(str)' if text else '.astype(int)'}"
            raise NetError(f"expects {want} in the column {self.name!r}, as in training, got {given.first()}; {hint}")
        numbers = {category: number for number, category in enumerate(self.categories)}
        other = len(numbers) + 1
        codes = np.array([numbers.get(value, other) for value in held.values], np.int32)
        codes[held.missing] = len(numbers)
        strange = codes == other if self.indicator else codes >= len(numbers)
        if self.unknown == "error" and strange.any():
            row = int(strange.argmax())
            what = "a missing value" if held.missing[row] else f"the category {held.values[row]!r}"
            hint = 'which training does not have; unknown="own" gives it a code of its own'
            raise NetError(f"finds {what} in row {row} of the column {self.name!r}, {hint}")
        return codes

    def one_hot(self, column: Any) -> np.ndarray:
        """Return one feature for each category and, if some were missing in training, one for these.

        Other categories are zero in all features.
        """
        codes = np.arange(len(self.features), dtype=np.int32)
        return (self(column)[:, None] == codes).astype(np.float32)


def _held(name: str, column: Any, kind: str) -> Cells:
    return as_kind(name, column if isinstance(column, Cells) else cells(name, column), kind)


def check_finite(name: str, column: Cells) -> None:
    """Check that no number is infinite.

    Raises:
        NetError: if one is, with its row.
    """
    if column.kind == "number" and (infinite := np.isinf(column.values)).any():
        row = int(infinite.argmax())
        raise NetError(f"expects finite numbers in the column {name!r}, got {column.values[row]} in row {row}")


def measured(column: Cells, parts: tuple[str, ...]) -> np.ndarray:
    """Return the numbers of a column in their own units, `(rows, parts)` float64; NaN where they are missing."""
    if column.kind == "date":
        dates = np.where(column.missing, np.datetime64("1970-01-01", "us"), column.values)
        x = np.stack([DATE_PARTS[part](dates) for part in parts], 1)
        return np.where(column.missing[:, None], np.nan, x)
    return column.values[:, None]


def fit_numbers(name: str, column: Cells, *, missing: str, parts: tuple[str, ...], standardize: bool) -> Numbers:
    """Measure the mean or median, and the mean and deviation after filling, of the training rows."""
    parts = parts if column.kind == "date" else ("",)
    check_finite(name, column)
    x = measured(column, parts)
    fill = (np.nanmedian if missing == "median" else np.nanmean)(x, 0)
    filled = np.where(np.isnan(x), fill, x)
    scaled = standardize and column.kind != "boolean"
    offset, scale = (filled.mean(0), filled.std(0)) if scaled else (np.zeros(len(parts)), np.ones(len(parts)))
    constant = filled.max(0) == filled.min(0)
    offset, scale = np.where(constant & scaled, filled[0], offset), np.where(constant | (scale == 0), 1.0, scale)
    fill, offset, scale = (tuple(each.tolist()) for each in (fill, offset, scale))
    return Numbers(name, column.kind, parts, fill, offset, scale, bool(column.missing.any()))


def fit_categories(name: str, column: Cells, *, min_count: int, unknown: str) -> Categories:
    """Collect the categories of the training rows that appear often enough.

    Raises:
        NetError: if none does.
    """
    counts = Counter(column.present)
    kept = sorted(category for category, count in counts.items() if count >= min_count)
    if not kept:
        raise NetError(f"finds no category in the column {name!r} with min_count={min_count} training rows; lower it")
    return Categories(name, tuple(kept), bool(column.missing.any()), unknown)
