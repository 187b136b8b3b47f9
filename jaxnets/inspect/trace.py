"""Any model, traced on shapes alone: nothing is compiled or allocated."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.errors import NetError
from jaxnets.inspect.operation import Operation, Value
from jaxnets.inspect.walk import Walk
from jaxnets.net import Net, spec


@dataclass(frozen=True)
class Model:
    """A model of any library as a function of shapes.

    Attributes:
        call: `(params, state, key, *inputs, train) -> (y, state)`.
        params: a tree of `jax.ShapeDtypeStruct`; `None` where the function hides what it has.
        state: likewise.
        inputs: likewise.
        net: the network, where it is one.
    """

    call: Callable[..., Any]
    params: Any
    state: Any
    inputs: tuple[Any, ...]
    net: Net | None = None


def model_of(model: Any, *inputs: Any, params: Any = None, state: Any = None) -> Model:
    """Return the function, the parameters and the state of a network, a Flax module or a plain function.

    Raises:
        NetError: if it can't be called, or a network gets another number of inputs than one.
    """
    inputs, key = spec(inputs), jax.eval_shape(lambda: jax.random.key(0))
    homes = {cls.__module__.rpartition(".")[0] for cls in type(model).__mro__}
    if isinstance(model, Net):
        if len(inputs) != 1:
            raise NetError(f"takes one input, got {len(inputs)}", label=model.label)
        own, rest = jax.eval_shape(model.init, key, *inputs) if params is None else (spec(params), spec(state or {}))
        return Model(lambda p, s, k, x, train: model.apply(p, s, x, key=k, train=train), own, rest, inputs, model)
    function: Any = model
    if "flax.linen" in homes:
        variables = function.init if params is None else lambda *_: {"params": params, **(state or {})}
        rest = dict(jax.eval_shape(variables, key, *inputs))
        own = rest.pop("params", {})
        return Model(lambda p, s, k, *xs, train: (function.apply({"params": p, **s}, *xs), s), own, rest, inputs)
    if "flax.nnx" in homes:
        nnx = importlib.import_module("flax.nnx")
        graph, *parts = nnx.split(function, nnx.Param, ...)
        own, rest = spec(parts)
        return Model(lambda p, s, k, *xs, train: (nnx.merge(graph, p, s)(*xs), s), own, rest, inputs)
    if not callable(function):
        raise NetError(f"expects a net, a Flax module or a function, got {type(model).__name__} {model!r}")
    if params is None:
        return Model(lambda p, s, k, *xs, train: (function(*xs), s), None, {}, inputs)
    return Model(lambda p, s, k, *xs, train: (function(p, *xs), s), spec(params), {}, inputs)


@dataclass(frozen=True)
class Program:
    """A traced function: its operations in order, and what it gives.

    Attributes:
        operations: every operation, calls and loops opened.
        inputs: the leaves of the parameters, the state, the key and the inputs.
        outputs: the values given, in the order of their leaves.
    """

    operations: list[Operation]
    inputs: list[Value]
    outputs: list[Value]


def forward(model: Model, *, train: bool = False, trips: int | None = None) -> Program:
    """Trace the forward pass; the program's outputs are those of the model, without its state."""
    return _program(model, lambda *args: model.call(*args, train=train)[0], train=train, trips=trips)


def residuals(model: Model, *, trips: int | None = None) -> Program:
    """Trace the forward pass in training; the program's outputs are what the backward pass gets from it."""
    return _program(model, lambda *args: jax.tree.leaves(_pull(model, *args)[1]), train=True, trips=trips)


def training_step(model: Model, *, trips: int | None = None) -> Program:
    """Trace the forward and the backward pass in training, from the sum of all outputs to all parameters."""

    def gradients(*args: Any) -> Any:
        outputs, pull = _pull(model, *args)
        return pull([jnp.ones_like(leaf) for leaf in outputs])

    return _program(model, gradients, train=True, trips=trips)


def _pull(model: Model, params: Any, *rest: Any) -> tuple[list[Any], Any]:
    """Return the floating outputs in training, and the function that pulls their cotangents back to the parameters."""
    if not jax.tree.leaves(params):
        raise NetError("has no parameters to train; those of a function are given by params=")

    def outputs(params: Any) -> tuple[list[Any], Any]:
        y, state = model.call(params, *rest, train=True)
        return [leaf for leaf in jax.tree.leaves(y) if jnp.issubdtype(leaf.dtype, jnp.inexact)], state

    return jax.vjp(outputs, params, has_aux=True)[:2]


def _program(model: Model, function: Callable[..., Any], *, train: bool, trips: int | None) -> Program:
    key = jax.eval_shape(lambda: jax.random.key(0)) if train else None
    args = (model.params, model.state, key, *model.inputs)
    closed = jax.make_jaxpr(function)(*args)
    kinds = ("params", "state", *["input"] * (len(args) - 2))
    sources = [kind for kind, arg in zip(kinds, args, strict=True) for _ in jax.tree.leaves(arg)]
    walk = Walk(trips)
    inputs = [Value(var.aval, (), source) for var, source in zip(closed.jaxpr.invars, sources, strict=True)]
    outputs = walk.open(closed, inputs, (), 1, True, False)
    return Program(walk.operations, inputs, outputs)
