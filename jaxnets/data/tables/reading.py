"""Tables of any library, or in files, as columns by name."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, require, shown
from jaxnets.data.tables.cells import Cells, cells

_PARQUET = (".parquet", ".pq")
_TEXT = {".csv": ",", ".tsv": "\t"}


def read(table: Any) -> dict[str, Cells]:
    """Return the columns of a table by name.

    Args:
        table: a data frame of pandas or polars, a table of pyarrow, a dict of columns, a list of dicts, or the path of
            a CSV or Parquet file.

    Raises:
        FileNotFoundError: if a file does not exist.
        ModuleNotFoundError: if a file is to be read and pandas is not installed.
        NetError: for anything else, no rows or columns, columns of one name, or columns of unequal length.
    """
    columns = _columns(_opened(table) if isinstance(table, str | Path) else table)
    found = {name: cells(name, column) for name, column in columns.items()}
    lengths = {len(column) for column in found.values()}
    if len(lengths) > 1:
        raise NetError(
            f"expects columns of one length, got { ({name: len(column) for name, column in found.items()}) }"
        )
    if not lengths or lengths == {0}:
        raise NetError("expects a table with at least one column and one row, got none")
    return found


def _opened(path: str | Path) -> Any:
    file = Path(path).expanduser()
    ending = (file.with_suffix("") if file.suffix in (".gz", ".zip", ".bz2", ".xz") else file).suffix.lower()
    if ending not in (*_PARQUET, *_TEXT):
        raise NetError(f"expects a file named .csv, .tsv or .parquet, got {file.name}; read it into a data frame first")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    pandas = require("pandas", "tables")
    if ending in _PARQUET:
        require("pyarrow", "tables")
        return pandas.read_parquet(file)
    try:
        return pandas.read_csv(file, sep=_TEXT[ending])
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise NetError(f"can't read {file}: {error}") from None


def _columns(table: Any) -> dict[str, Any]:
    if isinstance(table, list | tuple) and table and all(isinstance(row, Mapping) for row in table):
        # The columns of all rows, in the order in which they appear.
        names = list(dict.fromkeys(name for row in table for name in row))
        _check_names(names)
        return {str(name): [row.get(name) for row in table] for name in names}
    if isinstance(table, Mapping):
        if table and not any(
            isinstance(column, list | tuple) or getattr(column, "ndim", hasattr(column, "__array__"))
            for column in table.values()
        ):
            raise NetError("expects a column of values for each name, got single values; put the row in a list, [row]")
        _check_names(table)
        return {str(name): column for name, column in table.items()}
    # The names of a data frame are its `columns`, those of pyarrow its `column_names`.
    names = getattr(table, "column_names", None) or getattr(table, "columns", None)
    if names is None or not hasattr(table, "__getitem__") or isinstance(table, np.ndarray):
        hint = "arrays of numbers need no encoder, jn.data.split((x, y), ...)" if hasattr(table, "shape") else ""
        raise NetError(
            f"expects a data frame, a dict of columns, a list of dicts, or the path of a CSV or Parquet file, got "
            f"{shown(table)}" + (f"; {hint}" if hint else "")
        )
    _check_names(names)
    return {str(name): table[name] for name in names}


def _check_names(names: Iterable[Any]) -> None:
    """Check that columns have different names as text."""
    named = [str(name) for name in names]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise NetError(f"expects columns of different names, got {twice[0]!r} twice; rename one")
