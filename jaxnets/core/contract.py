"""Checks of what `init` and `apply` of a network take and return, made at every call."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.cache import parted
from jaxnets.core.errors import NetError, is_traced, labeled_as, shown
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded
from jaxnets.core.paths import paths

CALLS = {
    "init": "params, state = net.init(key, x)",
    "apply": "y, state = net.apply(params, state, x, key=key, train=True)",
}
_TAKES = {"init": "(key, x)", "apply": "(params, state, x, *, key=None, train=False)"}


def checked(function: Callable, name: str, label: str) -> Callable:
    """Wrap `init` or `apply` of a network in checks of its arguments and of what it returns."""
    if getattr(function, "checked", False):
        return function
    needs, allowed = (2, ()) if name == "init" else (3, ("key", "train"))
    fits = _misfit(function, *[None] * needs, **dict.fromkeys(allowed)) is None

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with labeled_as(label):
            well_formed = len(args) == needs and all(option in allowed for option in options)
            if not (well_formed and fits) and (error := _misfit(function, *args, **options)):
                if not well_formed:
                    raise NetError(f"is called as {CALLS[name]}; got a call with {error}")
                got, hint = inspect.signature(function), f"write {name}{_TAKES[name]}, if only to ignore them"
                raise NetError(f"expects {name} to take {_TAKES[name]}, got {name}{got}; {hint}")
            if well_formed:
                # An array needs no tree traversal.
                if not isinstance(x := args[-1], jax.Array | np.ndarray | jax.ShapeDtypeStruct):
                    check_input(x)
                if (key := options.get("key")) is not None:
                    check_key(key)
                if not isinstance(train := options.get("train", False), bool | np.bool_):
                    hint = "; jit with static_argnames='train'" if is_traced(train) else ""
                    raise NetError(f"expects train as True or False, got {shown(train)}{hint}")
        made = function(*args, **options)
        with labeled_as(label):
            if name == "init":
                _check_initialized(made)
            else:
                _check_applied(made, args[1] if well_formed else options.get("state"))
                if well_formed and isinstance(args[-1], Packed):
                    _check_documents(args[-1], made[0])
        return made

    # The functions of a network may be passed to another, which must not wrap them again.
    call.checked = True  # type: ignore[attr-defined]  # a function has attributes
    return call


def _check_initialized(made: Any) -> None:
    """Check that `init` has returned parameters and state."""
    if not (isinstance(made, tuple) and len(made) == 2 and all(isinstance(tree, Mapping) for tree in made)):
        got = f"({', '.join(map(shown, made))})" if isinstance(made, tuple) else shown(made)
        raise NetError(f"expects init to return (params, state), two dicts, got {got}; without state, params, {{}}")


def _check_applied(made: Any, state: Any) -> None:
    """Check that `apply` has returned outputs and a state like the one that it got, if that is known."""
    if not isinstance(made, tuple) or len(made) != 2:
        got = f"a tuple of {len(made)}" if isinstance(made, tuple) else shown(made)
        got = f"the array {_aval(made)} alone" if isinstance(made, jax.Array) else got
        raise NetError(f"expects apply to return (y, state), got {got}; without state, y, state")
    if made[1] is state or state is None:
        return
    # The caches of `jn.cached` grow.
    state, new = (parted(tree)[0] if isinstance(tree, Mapping) else tree for tree in (state, made[1]))
    wanted, given = ({path: _aval(leaf) for path, leaf in paths(tree).items()} for tree in (state, new))
    if wanted != given or jax.tree.structure(state) != jax.tree.structure(new):
        changed = [
            f"{path} {given.get(path, 'missing')} for {wanted.get(path, 'none')}"
            for path in sorted({*wanted, *given})
            if wanted.get(path) != given.get(path)
        ]
        got = ", ".join(changed) or f"{shown(made[1])} for {shown(state)}"
        hint = "keep its names and shapes, and cast, value.astype(dtype)"
        raise NetError(f"expects apply to return a state like the one it got, got {got}; {hint}")


def _check_documents(x: Packed, y: Any) -> None:
    """Check that outputs with the lengths of packed rows are packed, too."""
    if isinstance(y, Padded) and not isinstance(y, Packed) and y.lengths is x.lengths:
        raise NetError("expects apply to return Packed for Packed, got Padded; return x.with_values(values)")


def _misfit(function: Callable, *args: Any, **options: Any) -> TypeError | None:
    """Return the error that a call raises if its arguments do not fit the signature, otherwise `None`."""
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        return error
    except ValueError:  # a function written in C has no signature
        pass
    return None


def _aval(leaf: Any) -> str:
    aval = jax.typeof(leaf)
    return f"{aval.shape} {aval.dtype}"


def check_input(x: Any) -> None:
    """Check that an input is a pytree of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
        NetError: if it is a list, a tensor of another library or anything else.
    """
    for leaf in jax.tree.leaves(x):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
            hint = "; np.asarray(x) makes one" if isinstance(x, list) or hasattr(x, "__array__") else ""
            if isinstance(x, list | tuple) and isinstance(leaf, int):
                hint = "; for a shape take jax.ShapeDtypeStruct(shape, jnp.float32), for values np.asarray(x)"
            raise NetError(f"expects an array, got {shown(x)}{hint}")


def check_key(key: Any) -> None:
    """Check that `key` is a random key, of the old style or the new.

    Raises:
        NetError: if it is not.
    """
    dtype, rank = getattr(key, "dtype", None), getattr(key, "ndim", None)
    # An old-style key is a uint32 array with an extra axis.
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and (dtype != jnp.uint32 or rank == 0):
        raise NetError(f"expects a key such as jax.random.key(0), got {shown(key)}")
    if rank != (0 if typed else 1):
        raise NetError(f"expects one key, got {key.shape if typed else key.shape[:-1]} of them; jax.vmap maps several")
