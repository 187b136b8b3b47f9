"""Leaf networks: `layer` makes one from two functions, `as_net` from a callable; `labeled` labels constructors."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.contract import check_key
from jaxnets.core.dtypes import to_dtype
from jaxnets.core.errors import NetError, is_traced, labeled_as, shown
from jaxnets.core.foreign import refuse_network
from jaxnets.core.keywords import check_initializers, explained
from jaxnets.core.net import Key, Net, Params, State, described, spec
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded, check_padded, step_check
from jaxnets.core.paths import paths
from jaxnets.core.value import made_by, recorded

P = ParamSpec("P")
R = TypeVar("R")


@recorded
def layer(
    init: Callable[[Key, Any], Params] | None,
    apply: Callable[[Params, Any], Any],
    *,
    label: str | None = None,
) -> Net:
    """Make a stateless layer from two functions.

    Floating parameters are cast to the dtype of a floating `x`, so that a layer computes in the precision of its
    input. For `Padded` sequences, `apply` gets the values and the layer returns a `Padded`. For a layer with state, or
    with randomness in training, write `Net(init, apply, label)`.

    Args:
        init: `(key, x) -> params`, a dict of arrays made from `x.shape` and `x.dtype`; `None` for a layer
            without parameters.
        apply: `(params, x) -> y`.
        label: the name to print; default: the name of the function around `apply`.

    >>> import jax, jax.numpy as jnp
    >>> def scale_shift():
    ...     def init(key, x):
    ...         return {"scale": jnp.ones(x.shape[1:]), "bias": jnp.zeros(x.shape[1:])}
    ...     def apply(params, x):
    ...         return x * params["scale"][None] + params["bias"][None]
    ...     return layer(init, apply)
    >>> scale_shift().init(jax.random.key(0), jnp.ones((2, 3)))[0]["scale"].shape
    (3,)
    """
    return _leaf(init, apply, label or _name(apply), apply)


def _leaf(
    init: Callable[[Key, Any], Params] | None, apply: Callable[[Params, Any], Any], name: str, written: Any
) -> Net:
    """Make a stateless layer; `written` is the function that `apply` wraps, of the user or of this library."""
    check_steps = step_check(lambda params, x: _call(apply, params, x), written)

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        with labeled_as(name):
            check_key(key)
            params = {} if init is None else init(key, spec(x.values if isinstance(x, Padded) else x))
            if not isinstance(params, Mapping):
                hint = "a layer with state is jn.Net(init, apply)"
                raise NetError(f"expects init to return a dict of arrays, got {shown(params)}; {hint}")
            return params, {}

    def apply_fn(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        with labeled_as(name):
            if init is None and params:
                raise NetError(f"has no parameters, got {', '.join(paths(params))}", names_differ=True)
            if not isinstance(x, Padded):
                return _call(apply, params, x), state
            check_padded(x)
            check_steps(params, x.values, apart=isinstance(x, Packed))
            # Padding becomes 0: a NaN there would reach gradients as 0 · NaN.
            values = _call(apply, params, x.zeroed())
            if np.shape(values)[:2] != np.shape(x.values)[:2]:
                raise NetError(
                    f"turns Padded values {np.shape(x.values)} into {np.shape(values)}: it must keep batch and "
                    f"time; take the last step with jn.recurrent(..., return_sequences=False)"
                )
            return x.with_values(values), state

    return Net(init_fn, apply_fn, name)


def _call(apply: Callable[[Params, Any], Any], params: Params, x: Any) -> Any:
    if isinstance(x, np.ndarray):
        x = jnp.asarray(x)
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating):
        params = to_dtype(params, x.dtype)
    try:
        return apply(params, x)
    except KeyError as error:
        if isinstance(params, dict) and error.args and error.args[0] not in params:
            have = ", ".join(paths(params)) or "none"
            raise NetError(f"finds no parameter {error.args[0]!r}, got {have}", names_differ=True) from error
        raise


def as_net(function: Any) -> Net:
    """Return a network for a plain callable `x -> y`; a `Net` is returned unchanged.

    Raises:
        TypeError: for anything else, or a constructor that was not called (`jn.dense` for `jn.dense(10)`).
        NetError: for a layer, a network or a function of another library.

    >>> import jax, jax.numpy as jnp
    >>> net = as_net(jax.nn.relu)
    >>> net.init(jax.random.key(0), jnp.ones(3))
    ({}, {})
    >>> print(net.apply({}, {}, jnp.array([-1.0, 2.0]))[0])
    [0. 2.]
    """
    if isinstance(function, Net):
        return function
    if getattr(function, "makes_net", False):
        raise TypeError(f"expected a layer, got the constructor {_name(function)}: call it, {_name(function)}(...)")
    refuse_network(function)
    if not callable(function):
        hint = "; unpack it with *" if isinstance(function, list | tuple) else ""
        hint = "; jax.nn has activations, jn has layers" if isinstance(function, str) else hint
        hint = f"; jn.recurrent({function}) runs it over time" if hasattr(function, "initial_carry") else hint
        raise TypeError(f"expected a Net or a callable x -> y, got {shown(function)}{hint}")
    net = _leaf(None, lambda _, x: function(x), _name(function), function)
    return made_by(net, as_net, {"function": function})


def labeled(factory: Callable[P, R]) -> Callable[P, R]:
    """Decorate a constructor of layers, cells or functions: its results are labeled by the call, `conv(64, 3)`.

    The label is printed, and put in front of errors. A `Net` or a `Cell` also holds the constructor and the arguments:
    those made by equal calls are equal, so that equal programs compile once, and they can be pickled if the constructor
    is defined in a module. For a function, such as an augmentation, the label becomes its name. The error for an
    unknown keyword names the right one.

    >>> import jaxnets as jn
    >>> @labeled
    ... def scaled(by):
    ...     return jn.layer(None, lambda params, x: by * x)
    >>> scaled(2.0), scaled(2.0) == scaled(2.0), scaled(2.0) == scaled(3.0)
    (scaled(2.0), True, False)
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def build(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        label = f"{factory.__name__}({', '.join(_shown(given, signature.parameters))})"
        with labeled_as(label):
            check_initializers({name: x for name, x in given.items() if x is not signature.parameters[name].default})
            made: Any = factory(*args, **kwargs)

        def claim(function: Callable, *, keep: bool = False) -> Callable:
            def call(*args: Any, **kwargs: Any) -> Any:
                with labeled_as(label, keep=keep):
                    return function(*args, **kwargs)

            return call

        if not hasattr(made, "constructor"):
            made = claim(made, keep=True)  # an error in a composition names the part that failed
            made.__name__ = made.__qualname__ = label
            return made
        functions = {name: claim(getattr(made, name)) for name in ("init", "apply", "step") if hasattr(made, name)}
        kind = {"kind": factory.__name__} if hasattr(made, "kind") else {}
        named = replace(made, label=label, **kind, **functions)
        if isinstance(made, Net):
            described(named, made.wiring, made.remake)
        return named

    make = explained(build)
    make.makes_net = True  # type: ignore[attr-defined]  # read by `as_net`
    return make


def _name(function: Any) -> str:
    if isinstance(function, functools.partial):
        options = ", ".join([*map(_show, function.args), *(f"{k}={_show(v)}" for k, v in function.keywords.items())])
        return f"{_name(function.func)}({options})"
    qualified = getattr(function, "__qualname__", type(function).__name__).split(".")
    if len(qualified) > 2 and qualified[-2] == "<locals>" and qualified[-1] in ("apply", "apply_fn", "<lambda>"):
        return qualified[-3]
    return getattr(function, "__name__", qualified[-1]).strip("<>")


def _show(value: Any) -> str:
    if isinstance(value, jax.Array):
        return "traced" if is_traced(value) or value.ndim else f"{value.item():g}"
    if isinstance(value, Net):
        return value.label
    return _name(value) if callable(value) and not isinstance(value, type) else repr(value)


def _shown(given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Return the arguments of a call as text, without those at their defaults: `["64", "3"]` for `conv(64, 3)`."""
    shown: list[str] = []
    for place, (key, value) in enumerate(given.items()):
        if key.endswith("_init"):
            continue  # initial values do not belong to a layer's name
        parameter = parameters[key]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            shown += map(_show, value)
        elif value is not parameter.default and repr(value) != repr(parameter.default):
            # The first argument, and the second if it follows, are shown without their names.
            second = len(shown) == place == 1 and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            plain = parameter.default is parameter.empty or second
            shown.append(_show(value) if plain else f"{key}={_show(value)}")
    return shown
