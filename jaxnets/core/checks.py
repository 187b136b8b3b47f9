"""Checks shared by layers, losses and options, with the errors that they raise."""

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, known, shown


def check_floating(x: Any) -> None:
    """Check that an input is a floating array with at least one feature.

    Raises:
        NetError: if it is not an array, holds integers or booleans, or has a last axis of length 0.
    """
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise NetError(f"expects an array, got {type(x).__name__}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise NetError(
            f"expects floating input, got {x.dtype} {x.shape}; convert it, x.astype(jnp.float32) / 255 for images, "
            f"or use jn.embed for indices"
        )
    if len(x.shape) > 1 and x.shape[-1] == 0:
        raise NetError(f"expects at least one feature, got {x.shape}")


def check_params(params: Any, shapes: Mapping[str, tuple[int, ...]], x: Any) -> None:
    """Check that parameters have exactly these names and shapes.

    Raises:
        NetError: with the names that are missing or unexpected, or the shape given and the shape that `x` needs.
    """
    given = dict(params) if isinstance(params, Mapping) else {}
    if set(given) != set(shapes):
        have, want = (", ".join(names) or "none" for names in (given, shapes))
        raise NetError(f"needs the parameters {want}, got {have}", names_differ=True)
    for name, shape in shapes.items():
        if (have := np.shape(given[name])) != shape:
            raise NetError(
                f"has {name} {have}, but input {np.shape(x)} needs {name} {shape}; pass input of the "
                f"shape it was initialized for, or call init again"
            )


def check_state(state: Any, shapes: Mapping[str, tuple[int, ...]], x: Any) -> None:
    """Check that a layer's state has exactly these names and shapes.

    Raises:
        NetError: with the names that are missing or unexpected, or the shape given and the shape that `x` needs.
    """
    if not state:
        raise NetError(f"needs the state {', '.join(shapes)}, got none; pass the state that init returned")
    check_params(state, shapes, x)


def variables(state: Any) -> tuple[Any, Any]:
    """Return the parameters and the network state of a train state, a loaded file, or a pair `(params, state)`.

    Raises:
        NetError: for anything else.
    """
    if hasattr(state, "params") and hasattr(state, "state"):
        return state.params, state.state
    if isinstance(state, tuple) and len(state) == 2:
        return state
    raise NetError(f"expects a train state or a pair (params, state), got {shown(state)}")


def check_train_key(key: Any) -> None:
    """Check that a random layer is given a key in training.

    Raises:
        NetError: if `key` is `None`.
    """
    if key is None:
        raise NetError("is random in training and needs a key, got none; pass apply(..., key=key, train=True)")


def along_last(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Return an array with leading axes of length 1, so that a vector broadcasts along the last axis of `like`."""
    return vector.reshape((1,) * (like.ndim - vector.ndim) + vector.shape)


def refuse(x: Any, bad: Callable[[np.ndarray], Any], expects: str) -> None:
    """Check the values of an array, unless it is traced.

    Args:
        x: the array.
        bad: a function that returns true where a value is wrong.
        expects: the message of the error, with `{}` in place of the first wrong value.

    Raises:
        NetError: if a value is wrong.
    """
    values = known(x)
    if values is not None and np.any(wrong := bad(values)):
        raise NetError(expects.replace("{}", f"{np.extract(wrong, values)[0]:g}"))


def name_of(function: Any) -> str:
    """Return the name under which a loss or penalty is reported; a `functools.partial` has that of its function."""
    function = unwrapped(function)
    return getattr(function, "__name__", type(function).__name__).strip("<>")


def unwrapped(function: Any) -> Any:
    """Return the function inside a `functools.partial`, or the function itself."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def check_function(name: str, function: Any, form: str) -> None:
    """Check that an option is `None`, or a function that accepts the arguments it will get.

    Args:
        name: the name of the option.
        function: its value.
        form: the arguments and the result, such as `(key, example) -> example`.

    Raises:
        NetError: if it can't be called with these arguments.
    """
    if function is None:
        return
    wanted = [each for each in form.partition(") ->")[0].strip("(").split(", ") if each]
    fits = callable(function) and not isinstance(function, type) and not is_uncalled(function)
    if fits:
        try:
            inspect.signature(function).bind(*wanted)
        except TypeError:
            fits = False
        except ValueError:  # a function written in C has no signature
            fits = True
    if not fits:
        hint = f"; call it, {function.__name__}(...)" if is_uncalled(function) else ""
        raise NetError(f"expects for {name} a function {form}, got {shown(function)}{hint}")


def is_uncalled(thing: Any) -> bool:
    """Tell whether a value is a function of this library that was not called: `jn.data.flip` instead of `flip()`."""
    if not isinstance(thing, types.FunctionType):
        return False
    makers = ("jaxnets.models", "jaxnets.metrics", "jaxnets.data", "jaxnets.train")
    # A function returned by a call is not an attribute of its module.
    public = getattr(sys.modules.get(thing.__module__), thing.__name__, None)
    return (thing.__module__ or "").startswith(makers) and public is thing and not thing.__name__.startswith("_")
