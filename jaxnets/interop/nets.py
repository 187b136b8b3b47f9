"""A network as JSON: the calls that make it, by names of a fixed table. A file can't import or run anything else."""

import inspect
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from jaxnets.combinators.fold import folded
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.foreign import NETWORKS, library
from jaxnets.core.net import Net
from jaxnets.core.value import SAVE_ALONE, Call, Name, portable
from jaxnets.models.perceptron import fires

_ACTIVATIONS = (
    "celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu log_sigmoid log_softmax mish "
    "relu relu6 selu sigmoid silu soft_sign softmax softplus sparse_plus sparse_sigmoid squareplus "
    "standardize swish tanh"
)
_ELEMENTWISE = "abs cos exp log sign sin sqrt square tanh"
_INITIALIZERS = (
    "constant delta_orthogonal normal ones orthogonal truncated_normal uniform variance_scaling zeros "
    "lecun_normal lecun_uniform he_normal he_uniform glorot_normal glorot_uniform"
)
_FUNCTIONS = "Policy concatenate flatten global_avg_pool global_max_pool"


def table() -> dict[str, Any]:
    """Return all functions that a file may name: constructors of networks and cells, activations, and initializers."""
    found: dict[str, Any] = {"partial": partial, "dict": dict, "jn.Net.upto": Net.upto, "jn.models.fires": fires}
    found["jn.fold_batch_norm"] = folded
    for prefix, module in (("jn", jn), ("jn.models", jn.models)):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) and inspect.signature(value).return_annotation in (Net, jn.Cell):
                found[f"{prefix}.{name}"] = value
    for prefix, module in (("jn.activations", jn.activations), ("jn.initializers", jn.initializers)):
        for name, value in inspect.getmembers(module, inspect.isfunction):
            if value.__module__ == module.__name__ and not name.startswith("_"):
                found[f"{prefix}.{name}"] = value
    for prefix, module, names in (
        ("jn", jn, _FUNCTIONS),
        ("jax.nn", jax.nn, _ACTIVATIONS),
        ("jnp", jnp, _ELEMENTWISE),
        ("jax.nn.initializers", jax.nn.initializers, _INITIALIZERS),
    ):
        found |= {f"{prefix}.{name}": getattr(module, name) for name in names.split() if hasattr(module, name)}
    return found


def write(net: Net) -> Any:
    """Return a network as JSON values.

    Raises:
        NetError: for a function outside the table, an array, or another value that JSON can't hold, with its path.

    >>> write(jn.serial(fc=jn.dense(3), act=jax.nn.relu))["kwargs"]["act"]
    {'name': 'jax.nn.relu'}
    >>> read(write(jn.dense(3))) == jn.dense(3)
    True
    """
    # Reversed, so that the first of several names of an object is used.
    names = {id(value): name for name, value in reversed(table().items())}
    with labeled_as("save(net=)", keep=True):
        return _encoded(portable(net), names)


def read(content: Any) -> Net:
    """Return the network that `write` described.

    Raises:
        NetError: for anything else.
    """
    try:
        net = _decoded(content, table())
    except NetError:
        raise
    except Exception as error:
        # A forged file may call a constructor with any arguments, and so raise any error.
        raise NetError(f"expects a network that save wrote, got one that fails: {error!r}") from error
    if not isinstance(net, Net):
        raise NetError(f"expects a network that save wrote, got {type(net).__name__}")
    return net


def _encoded(value: Any, names: Mapping[int, str]) -> Any:
    def each(values: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        found = {}
        for key, inner in values:
            # Errors name the key.
            with labeled_as(child=str(key)):
                found[key] = _encoded(inner, names)
        return found

    def name_of(function: Name) -> str:
        if (found := names.get(id(function.find()))) is None:
            hint = f"; use functions of jax.nn and jn, or {SAVE_ALONE}"
            raise NetError(f"can't write the function {function.module}.{function.name} into a file{hint}")
        return found

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Name):
        return {"name": name_of(value)}
    if isinstance(value, Call):
        args = [*each(enumerate(value.args)).values()]
        return {"call": name_of(value.function), "args": args, "kwargs": each(value.kwargs.items())}
    if type(value) in (tuple, list):
        return {type(value).__name__: [*each(enumerate(value)).values()]}
    if type(value) is dict and all(isinstance(name, str) for name in value):
        return {"dict": each(value.items())}
    if isinstance(value, jn.Policy):
        return {"call": "jn.Policy", "args": [], "kwargs": each(vars(value).items())}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return _encoded(value.item(), names)
    if id(value) in names:
        return {"name": names[id(value)]}
    if isinstance(value, type | np.dtype) and (dtype := _dtype(value)) is not None:
        return {"dtype": dtype}
    if other := library(value):
        raise NetError(f"can't write {NETWORKS[other][0]} into a file; {SAVE_ALONE}")
    hint = f"; {SAVE_ALONE}" if hasattr(value, "shape") else ""
    raise NetError(f"can't write {type(value).__name__} {str(value)[:40]!r} of a network into a file{hint}")


def _decoded(content: Any, known: Mapping[str, Any]) -> Any:
    def look_up(name: str) -> Any:
        if name not in known:
            raise NetError(f"expects names of this version of jaxnets, got {name!r}")
        return known[name]

    if content is None or isinstance(content, bool | int | float | str):
        return content
    if not isinstance(content, Mapping):
        raise NetError(f"expects a network that save wrote, got {type(content).__name__}")
    match [*content.items()]:
        case [("call", str(name)), ("args", list(args)), ("kwargs", dict(kwargs))]:
            given = {key: _decoded(each, known) for key, each in kwargs.items()}
            return look_up(name)(*(_decoded(each, known) for each in args), **given)
        case [("name", str(name))]:
            return look_up(name)
        case [("tuple" | "list" as kind, list(values))]:
            found = [_decoded(each, known) for each in values]
            return tuple(found) if kind == "tuple" else found
        case [("dict", dict(values))]:
            return {key: _decoded(each, known) for key, each in values.items()}
        case [("float", "inf" | "-inf" | "nan" as number)]:
            return float(number)
        case [("dtype", str(name))] if _dtype(getattr(jnp, name, None)) == name:
            return getattr(jnp, name)
    raise NetError(f"expects a network that save wrote, got an entry {', '.join(map(str, content))}")


def _dtype(value: Any) -> str | None:
    """Return the name of a dtype if `jnp` has it, otherwise `None`."""
    try:
        name = jnp.dtype(value).name if value is not None else ""
    except TypeError:
        return None
    return name if hasattr(jnp, name) and not inspect.isfunction(value) else None
