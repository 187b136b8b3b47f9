"""Objects of other libraries, recognized by the module of their class without importing it."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets.core.errors import NetError, shown

_FLAX = "jn.from_flax_module(module) makes a Net of it; or build it from jn's layers and take over its weights by "
_WEIGHTS = "build it from jn's layers and take over its weights by "
NETWORKS = {
    "flax.linen": ("a Flax Linen module", _FLAX + "jn.interop.from_flax(net, variables, x)"),
    "flax.nnx": ("a Flax NNX module", _FLAX + "jn.interop.from_flax(net, nnx.to_pure_dict(nnx.state(module)), x)"),
    "torch": ("of PyTorch", _WEIGHTS + "jn.interop.from_torch(net, module, x)"),
    "equinox": ("an Equinox module", _WEIGHTS + "jn.interop.from_equinox(net, module, x)"),
    "haiku": ("of Haiku", _WEIGHTS + "jn.interop.from_haiku(net, params, x)"),
    "keras": ("of Keras", _WEIGHTS + "jn.interop.from_keras(net, model, x)"),
    "tensorflow": ("of TensorFlow", "build it from jn's layers"),
}
# Libraries whose functions take their own arrays, not JAX's.
_TENSORS = ("torch", "keras", "tensorflow")


def library(x: Any) -> str:
    """Return the library in `NETWORKS` that an object or a class comes from, "" for none.

    >>> import flax.linen as nn
    >>> library(nn.Dense(3)), library(nn.Dense), library(nn.relu)
    ('flax.linen', 'flax.linen', '')
    """
    modules = [kind.__module__ for kind in (x.__mro__ if isinstance(x, type) else type(x).__mro__)]
    own = str(getattr(x, "__module__", None) or "")
    for name in NETWORKS:
        if any(f"{each}.".startswith(f"{name}.") for each in (*modules, *([own] if name in _TENSORS else []))):
            return name
    return ""


def refuse_network(x: Any) -> None:
    """Refuse a network, a layer or a function of another library.

    Raises:
        NetError: with a hint on how to convert it.
    """
    own = x.__name__ if hasattr(x, "__name__") else type(x).__name__
    if isinstance(x, np.ufunc):
        raise NetError(f"expects a function of JAX arrays, got NumPy's {own}; take jax.numpy.{own}")
    if name := library(x):
        what, way = NETWORKS[name]
        way = f"take jax.nn.{own}" if hasattr(jax.nn, own) else way
        raise NetError(f"expects a Net or a function of JAX arrays, got {own}, {what}; {way}")


def arrays(name: str, tree: Any) -> Any:
    """Convert every list, table, series and tensor of another library in some data to an array.

    Dicts and tuples are trees of arrays. A list is one array, as `np.asarray` makes it.

    Args:
        name: the name of the data in errors.
        tree: the data.

    Raises:
        NetError: for text, dates, mixed columns, sequences of unequal length, paths, and anything else that is not an
            array.

    >>> arrays("inputs", {"a": [[1.0, 2.0]], "b": np.ones(3)})["a"].shape
    (1, 2)
    """
    return jax.tree.map(partial(_array, name), tree, is_leaf=lambda x: x is None or isinstance(x, list))


def _array(name: str, given: Any) -> Any:
    # NumPy reads PyTorch's tensors on the CPU, without gradients.
    x: Any = given.detach().cpu() if library(given) == "torch" and hasattr(given, "detach") else given
    if isinstance(x, np.ma.MaskedArray):
        hint = "fill them by .filled(value), or leave such examples out"
        raise NetError(f"expects arrays in {name}, got {shown(x)} with {np.ma.count_masked(x)} masked values; {hint}")
    if isinstance(x, jax.Array | jax.ShapeDtypeStruct) or (isinstance(x, np.ndarray) and x.dtype.kind not in "OUSMm"):
        return x
    if isinstance(x, str | bytes | Path):
        raise NetError(f"expects numbers in {name}, got {shown(x)}; read the file first, by np.load or np.loadtxt")
    if x is None or not (hasattr(x, "__array__") or isinstance(x, list | int | float | complex)):
        raise NetError(f"expects arrays in {name}, got {shown(x)}")
    try:
        found = np.asarray(x)
    except (ValueError, TypeError) as error:
        if isinstance(x, list):
            raise _ragged(name, x) from None
        raise NetError(f"expects arrays in {name}, got {shown(x)}, which NumPy can't read: {error}") from None
    if found.dtype.kind not in "OUSMm":
        return found
    # A table of pandas or polars: name the columns that hold no numbers.
    if (columns := getattr(x, "columns", None)) is not None:
        table: Any = x
        wrong = [str(column) for column in columns if np.asarray(table[column]).dtype.kind not in "biuf"]
        hint = "jn.data.table(table, target=...) converts them, and its encoder further rows"
        raise NetError(f"expects numbers in {name}, got a table with other values in {', '.join(wrong)}; {hint}")
    first = found.ravel()[0] if found.size else None
    if isinstance(first, str):
        hint = "number the classes, jn.data.labels(y).encode(y)"
        if name == "x" or "inputs" in name:
            hint = "tokenize it, jn.data.Text(jn.data.characters(...), length)"
        raise NetError(f"expects numbers in {name}, got text such as {str(first)!r}; {hint}")
    if found.dtype.kind == "O" and isinstance(first, list | np.ndarray):
        raise _ragged(name, list(found))
    raise NetError(f"expects numbers in {name}, got {found.dtype}, such as {shown(first)}; convert it, .astype(float)")


def _ragged(name: str, rows: list[Any]) -> NetError:
    lengths = sorted({len(row) for row in rows if hasattr(row, "__len__")})
    found = f" of {', '.join(map(str, lengths[:5]))}{', …' if len(lengths) > 5 else ''} values" if lengths[1:] else ""
    hint = "jn.data.pad(sequences) pads them"
    return NetError(f"expects an array in {name}, got sequences{found}, whose lengths differ; {hint}")
