"""Preprocessing as JSON and arrays: records of a fixed table by their fields. A file can't import or run anything else.

A step is a frozen dataclass, callable on raw examples, whose fields are JSON values, arrays, other records of the
table, or tuples, lists and dicts of these.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import numpy as np

import jaxnets as jn
from jaxnets.core.errors import NetError, labeled_as, require
from jaxnets.data.characters import characters
from jaxnets.data.tables.columns import Categories, Numbers
from jaxnets.data.tokenizer import Tokenizer, wrapped


def table() -> dict[str, Any]:
    """Return the records that a file may name; a new kind of step is added here."""
    data = jn.data
    steps = data.Preprocess, data.Scaling, data.Image, data.Text, data.Labels, data.TableEncoder, Numbers, Categories
    return {each.__name__: each for each in steps}


def write(preprocess: Any, add: Callable[[str, Any], None]) -> Any:
    """Return a preprocessing as JSON values; `add(name, array)` takes its arrays.

    Raises:
        NetError: for a record outside the table, or a field that a file can't hold, with its path.
    """
    with labeled_as("save(preprocess=)", keep=True):
        return _encoded(preprocess, "preprocess", add)


def read(content: Any, arrays: Mapping[str, Any]) -> Any:
    """Return the preprocessing that `write` described.

    Raises:
        NetError: for anything else.
    """
    try:
        return _decoded(content, arrays)
    except (NetError, ModuleNotFoundError):
        raise
    except Exception as error:
        # A forged file may hold any fields, at which a constructor may raise any error.
        raise NetError(f"expects preprocessing that save wrote, got one that fails: {error!r}") from error


def _encoded(value: Any, path: str, add: Callable[[str, Any], None]) -> Any:
    def each(named: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _encoded(inner, f"{path}/{name}", add) for name, inner in named.items()}

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "UO" and all(isinstance(s, str) for s in value.flat):
        return {"texts": value.ravel().tolist(), "shape": [*value.shape], "dtype": value.dtype.kind}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        add(path, value)
        return {"array": path, "numpy": not isinstance(value, jax.Array)}
    if type(value) in (tuple, list):
        return {type(value).__name__: [*each({str(n): inner for n, inner in enumerate(value)}).values()]}
    if type(value) is dict and all(isinstance(name, str) and name and "/" not in name for name in value):
        return {"dict": each(value)}
    if isinstance(value, Tokenizer):
        if not value.source:
            raise NetError(f"can't write {value} at {path}; use jn.data.tokenizer or jn.data.characters")
        return {"tokenizer": [value.label, *value.source]}
    if table().get(type(value).__name__) is type(value) and is_dataclass(value):
        content = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        return {"step": type(value).__name__, "fields": each(content)}
    name = getattr(value, "__name__", type(value).__name__)
    raise NetError(f"can't write {name} at {path}; steps are {', '.join(table())}, Tokenizer")


def _decoded(content: Any, arrays: Mapping[str, Any]) -> Any:
    if content is None or isinstance(content, bool | int | float | str):
        return content
    match [*content.items()]:
        case [("step", str(name)), ("fields", dict(named))]:
            if name not in table():
                raise NetError(f"expects steps of this version of jaxnets, got {name!r}")
            return table()[name](**{key: _decoded(each, arrays) for key, each in named.items()})
        case [("array", str(name)), ("numpy", bool(numpy))]:
            return np.asarray(arrays[name]) if numpy else arrays[name]
        case [("texts", list(texts)), ("shape", list(shape)), ("dtype", "U" | "O" as kind)]:
            return np.array(texts, kind).reshape(shape)
        case [("tuple" | "list" as kind, list(values))]:
            found = [_decoded(each, arrays) for each in values]
            return tuple(found) if kind == "tuple" else found
        case [("dict", dict(named))]:
            return {key: _decoded(each, arrays) for key, each in named.items()}
        case [("float", "inf" | "-inf" | "nan" as number)]:
            return float(number)
        case [("tokenizer", [str(), "characters", str(names), str(unknown)])]:
            return characters(names, unknown=unknown or None)
        case [("tokenizer", [str(label), "tokenizers", str(made)])]:
            return wrapped(require("tokenizers", "text").Tokenizer.from_str(made), label)
    raise NetError(f"expects preprocessing that save wrote, got an entry {', '.join(map(str, content))}")
