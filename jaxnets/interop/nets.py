"""A network as JSON: the calls that make it, by names of a fixed table; a file has nothing else imported or run."""

import inspect
import math
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Net
from jaxnets.core.value import Call, Name, portable
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
_OURS = (
    "Policy concatenate flatten global_avg_pool global_max_pool hard_shrink hard_sigmoid hard_tanh scaled_tanh selu "
    "soft_shrink tanh_shrink threshold"
)


@cache
def table() -> dict[str, Any]:
    """Return what a file may name: constructors of networks, activations, and initializers."""
    found: dict[str, Any] = {"partial": partial, "dict": dict, "jn.Net.upto": Net.upto, "jn.models.fires": fires}
    for prefix, module in (("jn", jn), ("jn.models", jn.models)):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing) and inspect.signature(thing).return_annotation in (Net, jn.Cell):
                found[f"{prefix}.{name}"] = thing
    for prefix, module, names in (
        ("jn", jn, _OURS),
        ("jax.nn", jax.nn, _ACTIVATIONS),
        ("jnp", jnp, _ELEMENTWISE),
        ("jax.nn.initializers", jax.nn.initializers, _INITIALIZERS),
    ):
        found |= {f"{prefix}.{name}": getattr(module, name) for name in names.split() if hasattr(module, name)}
    return found


def write(net: Net) -> Any:
    """Return a network as JSON holds it.

    Raises:
        NetError: for a function outside of the table, an array, or what else JSON does not hold, with its place.

    >>> write(jn.serial(fc=jn.dense(3), act=jax.nn.relu))["kwargs"]["act"]
    {'name': 'jax.nn.relu'}
    >>> read(write(jn.dense(3))) == jn.dense(3)
    True
    """
    with labeled_as("save(net=)", keep=True):
        return _encoded(portable(net))


def read(content: Any) -> Net:
    """Return the network that `write` wrote.

    Raises:
        NetError: for anything else.
    """
    try:
        net = _decoded(content)
    except NetError:
        raise
    except Exception as error:  # whatever a constructor says of arguments that nobody gave it
        raise NetError(f"finds a network that save did not write: {error!r}") from error
    if not isinstance(net, Net):
        raise NetError(f"finds a network that save did not write: {type(net).__name__}")
    return net


@cache
def _names() -> dict[int, str]:
    return {id(thing): name for name, thing in reversed(table().items())}


def _encoded(thing: Any) -> Any:
    if thing is None or isinstance(thing, bool | int | str):
        return thing
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else {"float": str(thing)}
    if isinstance(thing, Name):
        return {"name": _name(thing)}
    if isinstance(thing, Call):
        args = [_inside(place, each) for place, each in enumerate(thing.args)]
        return {"call": _name(thing.function), "args": args, "kwargs": _each(thing.kwargs)}
    if isinstance(thing, tuple | list) and type(thing) in (tuple, list):
        return {type(thing).__name__: [_inside(place, each) for place, each in enumerate(thing)]}
    if type(thing) is dict and all(isinstance(name, str) for name in thing):
        return {"dict": _each(thing)}
    if isinstance(thing, jn.Policy):
        return {"call": "jn.Policy", "args": [], "kwargs": _each(vars(thing))}
    if isinstance(thing, np.generic) and thing.dtype.kind in "biuf":
        return _encoded(thing.item())
    if id(thing) in _names():
        return {"name": _names()[id(thing)]}
    if isinstance(thing, type | np.dtype) and (dtype := _dtype(thing)) is not None:
        return {"dtype": dtype}
    hint = "; make such a network in code, and keep params and state alone" if hasattr(thing, "shape") else ""
    raise NetError(f"can't write {type(thing).__name__} {str(thing)[:40]!r} of a network into a file{hint}")


def _decoded(content: Any) -> Any:
    if not isinstance(content, Mapping):
        if content is None or isinstance(content, bool | int | float | str):
            return content
        raise NetError(f"finds a network that save did not write: {type(content).__name__}")
    match dict(content):
        case {"call": str(name), "args": list(args), "kwargs": dict(kwargs), **rest} if not rest:
            given = {key: _decoded(each) for key, each in kwargs.items()}
            return _found(name)(*map(_decoded, args), **given)
        case {"name": str(name), **rest} if not rest:
            return _found(name)
        case {"tuple": list(each), **rest} if not rest:
            return tuple(map(_decoded, each))
        case {"list": list(each), **rest} if not rest:
            return list(map(_decoded, each))
        case {"dict": dict(each), **rest} if not rest:
            return {key: _decoded(value) for key, value in each.items()}
        case {"float": "inf" | "-inf" | "nan" as number, **rest} if not rest:
            return float(number)
        case {"dtype": str(name), **rest} if not rest and _dtype(getattr(jnp, name, None)) == name:
            return getattr(jnp, name)
    raise NetError(f"finds a network that save did not write: {', '.join(map(str, content))}")


def _inside(place: Any, thing: Any) -> Any:
    with labeled_as(child=str(place)):
        return _encoded(thing)


def _each(things: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _inside(name, each) for name, each in things.items()}


def _name(name: Name) -> str:
    found = _names().get(id(name.find()))
    if found is None:
        hint = "; functions of jax.nn and jn will do, and of such a network params and state alone can be saved"
        raise NetError(f"can't write the function {name.module}.{name.name} into a file{hint}")
    return found


def _found(name: str) -> Any:
    if name not in table():
        raise NetError(f"finds a network of {name!r}, which this version does not have")
    return table()[name]


def _dtype(thing: Any) -> str | None:
    """Return the name of a dtype, where `jnp` has one of that name."""
    try:
        name = jnp.dtype(thing).name if thing is not None else ""
    except TypeError:
        return None
    return name if hasattr(jnp, name) and not inspect.isfunction(thing) else None
