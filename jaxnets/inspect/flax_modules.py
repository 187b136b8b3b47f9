"""Flax modules as functions of their variables, each submodule in a scope of its name."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax


def linen(module: Any, key: Any, inputs: tuple[Any, ...], variables: Mapping[str, Any] | None) -> tuple[Any, Any, Any]:
    """Return a Linen module as `function(params, state, *inputs)`, with its parameters and its state as specs."""
    rest = dict(jax.eval_shape(module.init if variables is None else lambda *_: variables, key, *inputs))
    params = rest.pop("params", {})
    return lambda params, state, *xs: module.apply({"params": params, **state}, *xs), params, rest


def nnx(module: Any) -> tuple[Any, Any, Any]:
    """Return an NNX module as `function(params, state, *inputs)`, with its parameters and its state as specs."""
    from flax import nnx

    graph, *parts = nnx.split(module, nnx.Param, ...)
    params, state = jax.eval_shape(lambda: tuple(parts))
    return lambda params, state, *xs: _scoped(nnx.merge(graph, params, state))(*xs), params, state


def _scoped(model: Any) -> Any:
    """Let each submodule of a custom model run in a scope of its name, which Linen opens but NNX does not."""
    from flax import nnx

    modules = dict(nnx.iter_modules(model))
    for path, module in modules.items():
        if path and callable(module):
            caller = next(k for k in reversed(range(len(path))) if not k or callable(modules.get(path[:k])))
            cls: Any = type(module)
            call = _call_under([str(name) for name in path[caller:]], cls.__call__)
            meta: Any = type(cls)  # NNX has its own metaclass
            module.__class__ = meta(cls.__name__, (cls,), {"__call__": call})
    return model


def _call_under(names: list[str], call: Callable[..., Any]) -> Callable[..., Any]:
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as scopes:
            for name in names:
                scopes.enter_context(jax.named_scope(name))
            return call(self, *args, **kwargs)

    return __call__
