"""Models of any library, traced on shapes alone: nothing is compiled or allocated."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net, spec
from jaxnets.core.paths import paths
from jaxnets.tracing.flatten import Rolled
from jaxnets.tracing.layers import totals
from jaxnets.tracing.operation import Path, Program, Value


@dataclass(frozen=True)
class Model:
    """A model of any library as a function of shapes.

    Attributes:
        call: `(params, state, key, *inputs, train) -> (y, state)`.
        params: a tree of `jax.ShapeDtypeStruct`; `None` for a function whose parameters are not known.
        state: a tree of `jax.ShapeDtypeStruct`.
        inputs: a tree of `jax.ShapeDtypeStruct` for each input.
        net: the network, if the model is one.
        name: the name to show.
        scope: the named scopes in which the whole model runs.
    """

    call: Callable[..., Any]
    params: Any
    state: Any
    inputs: tuple[Any, ...]
    net: Net | None = None
    name: str = "function"
    scope: Path = ()

    @functools.cached_property
    def parameters(self) -> dict[Path, int]:
        """The number of parameters of each layer with the layers inside it."""
        # Flax NNX stores an array as the value of a variable.
        leaves = ((name.removesuffix("/value").split("/"), leaf) for name, leaf in paths(self.params).items())
        return totals(((*self.scope, *names[:-1]), leaf.size) for names, leaf in leaves)


def model_of(model: Any, *inputs: Any, params: Any = None, state: Any = None) -> Model:
    """Return a network, a Flax module or a plain function as a `Model`.

    An input is an array, its spec, or a shape of float32.

    Raises:
        NetError: if the model can't be called, or a network does not get exactly one input.
    """
    inputs, key = spec(tuple(map(input_of, inputs))), jax.eval_shape(lambda: jax.random.key(0))
    homes = {cls.__module__.rpartition(".")[0] for cls in type(model).__mro__}  # recognizes Flax without importing it
    if isinstance(model, Net):
        if len(inputs) != 1:
            raise NetError(f"takes one input, got {len(inputs)}", label=model.label)
        own, rest = jax.eval_shape(model.init, key, *inputs) if params is None else (spec(params), spec(state or {}))
        return Model(
            lambda p, s, k, x, train: model.apply(p, s, x, key=k, train=train), own, rest, inputs, model, model.kind
        )
    name, scope = type(model).__name__, ()
    if "flax.linen" in homes:
        variables = None if params is None else {"params": params, **(state or {})}
        function, own, rest = _linen(model, key, inputs, variables)
        scope = (getattr(model, "name", None) or name,)  # Linen's own scope for the whole
    elif "flax.nnx" in homes:
        function, own, rest = _nnx(model)
    elif callable(model):
        function: Any = (lambda p, s, *xs: model(*xs)) if params is None else lambda p, s, *xs: model(p, *xs)
        own, rest, name = spec(params), {}, getattr(model, "__name__", name).strip("<>")
    else:
        raise NetError(f"expects a net, a Flax module or a function, got {name} {model!r}")
    return Model(lambda p, s, k, *xs, train: (function(p, s, *xs), s), own, rest, inputs, None, name, scope)


def _linen(module: Any, key: Any, inputs: tuple[Any, ...], variables: Mapping[str, Any] | None) -> tuple[Any, Any, Any]:
    """Return a Linen module as `function(params, state, *inputs)`, with its parameters and its state as specs."""
    rest = dict(jax.eval_shape(module.init if variables is None else lambda *_: variables, key, *inputs))
    params = rest.pop("params", {})
    return lambda params, state, *xs: module.apply({"params": params, **state}, *xs), params, rest


def _nnx(module: Any) -> tuple[Any, Any, Any]:
    """Return an NNX module as `function(params, state, *inputs)`, with its parameters and its state as specs."""
    from flax import nnx

    graph, *parts = nnx.split(module, nnx.Param, ...)
    params, state = jax.eval_shape(lambda: tuple(parts))
    return lambda params, state, *xs: _scoped(nnx.merge(graph, params, state))(*xs), params, state


def _scoped(model: Any) -> Any:
    """Make each submodule of a model run in a named scope, which Linen does itself but NNX does not."""
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


def input_of(x: Any) -> Any:
    """Return a shape such as `(1, 28, 28, 1)` as the spec of a float32 array, and any other input unchanged.

    Raises:
        NetError: for a shape that contains `None`.

    >>> input_of((1, 28, 28, 1))
    ShapeDtypeStruct(shape=(1, 28, 28, 1), dtype=float32)
    """
    if isinstance(x, tuple | list) and x and all(n is None or type(n) is int for n in x):
        if None in x:
            sizes = tuple(1 if n is None else n for n in x)
            raise NetError(f"expects a whole shape, got {tuple(x)}; use a batch of one, {sizes}")
        return jax.ShapeDtypeStruct(tuple(x), jnp.float32)
    return x


def forward(model: Model, *, train: bool = False, trips: int | None = None) -> Program:
    """Trace the forward pass; the outputs of the program are those of the model, without its state."""
    return _program(model, lambda *args: model.call(*args, train=train)[0], train=train, trips=trips)


def residuals(model: Model, *, trips: int | None = None) -> Program:
    """Trace the forward pass in training; the outputs of the program are the residuals for the backward pass."""
    return _program(model, lambda *args: jax.tree.leaves(_pull(model, *args)[1]), train=True, trips=trips)


def training_step(model: Model, *, trips: int | None = None) -> Program:
    """Trace the forward and the backward pass in training, from the sum of all outputs to all parameters."""

    def gradients(*args: Any) -> Any:
        outputs, pull = _pull(model, *args)
        return pull([jnp.ones_like(leaf) for leaf in outputs])

    return _program(model, gradients, train=True, trips=trips)


def _pull(model: Model, params: Any, *rest: Any) -> tuple[list[Any], Any]:
    """Return the floating-point outputs in training, and their pullback to the parameters."""
    if not jax.tree.leaves(params):
        raise NetError("has no parameters to train; pass those of a function by params=")

    def outputs(params: Any) -> tuple[list[Any], Any]:
        y, state = model.call(params, *rest, train=True)
        return [leaf for leaf in jax.tree.leaves(y) if jnp.issubdtype(leaf.dtype, jnp.inexact)], state

    return jax.vjp(outputs, params, has_aux=True)[:2]


def _program(model: Model, function: Callable[..., Any], *, train: bool, trips: int | None) -> Program:
    key = jax.eval_shape(lambda: jax.random.key(0)) if train else None
    args = (model.params, model.state, key, *model.inputs)
    closed = jax.make_jaxpr(function)(*args)
    sources = ("params", "constant", *["input"] * (len(args) - 2))
    leaves = [source for source, arg in zip(sources, args, strict=True) for _ in jax.tree.leaves(arg)]
    inputs = [Value(var.aval, (), source) for var, source in zip(closed.jaxpr.invars, leaves, strict=True)]
    return Rolled(trips).program(closed, inputs)
