"""Totals of a model, by tracing: parameters, multiply-adds, floating-point operations, memory."""

from dataclasses import dataclass
from typing import Any

import jax

from jaxnets.core.errors import NetError
from jaxnets.core.net import spec
from jaxnets.core.paths import Pattern, select
from jaxnets.inspect import trace
from jaxnets.tracing import jaxprs, layers
from jaxnets.tracing.costs import assumed, flops_of, multiply_adds_of


def count_parameters(model: Any, *inputs: Any, on: Pattern = "**") -> int:
    """Return how many parameters a model has: the elements of its parameter tree.

    Args:
        model: a network or Flax module, with its input; or a tree of parameters alone.
        *inputs: arrays, `jax.ShapeDtypeStruct`s or shapes (of float32); only shapes and dtypes are read.
        on: which parameters, a pattern over their paths (see `jn.paths`).

    Raises:
        NetError: for a function, whose parameters are not known, or a pattern that matches nothing.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> x = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    >>> count_parameters(jn.models.lenet5(), x), count_parameters(jn.models.lenet5(), x, on="fc3/*")
    (61706, 850)
    >>> count_parameters({"kernel": jnp.ones((5, 10)), "bias": jnp.ones(10)})
    60
    """
    params = trace.model_of(model, *inputs).params if inputs else spec(model)
    if params is None:
        raise NetError("has parameters that are not known: it is a function; give the tree of its parameters alone")
    leaves = jax.tree.leaves(params) if on == "**" else select(params, on).values()
    return sum(leaf.size for leaf in leaves)


def multiply_adds(
    model: Any, *inputs: Any, params: Any = None, state: Any = None, train: bool = False, trips: int | None = None
) -> int:
    """Return the multiply-adds of a forward pass: those of its convolutions and matrix products, and of nothing else.

    This is what the usual tables list, some under the name of FLOPs. A matrix product of (m, k) and (k, n) has m k n; a
    convolution has (places of the output) · (window) · (channels / groups) · (features), for each image of the batch.

    The model is traced on shapes alone, and all that it calls is opened: a scan counts its length, a branch the dearest
    of its cases, and a formulation for one platform the one for all others, so that the count depends on no machine.

    Args:
        model: a network; a Flax module, Linen or NNX; or any function JAX can trace.
        *inputs: arrays, `jax.ShapeDtypeStruct`s or shapes (of float32).
        params: a tree of parameters or of their shapes. A network or module is initialized, abstractly, if it is not
            given; a function gets it as its first argument.
        state: the state of a network with `params`, or the other collections of a Linen module.
        train: whether the network runs in training mode.
        trips: how often a loop of unknown length (`jax.lax.while_loop`) runs.

    Raises:
        NetError: if the count is not known, because there is such a loop and no `trips`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> multiply_adds(jn.models.lenet5(), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32))
    416520
    >>> multiply_adds(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 4)))
    24
    """
    program = trace.forward(trace.model_of(model, *inputs, params=params, state=state), train=train, trips=trips)
    return layers.total(program, multiply_adds_of)


def flops(
    model: Any,
    *inputs: Any,
    params: Any = None,
    state: Any = None,
    train: bool = False,
    train_step: bool = False,
    trips: int | None = None,
) -> int:
    """Return the floating-point operations of a forward pass, or of a forward and a backward pass.

    A multiply-add is two. Arithmetic, comparisons and elementary functions (one each, `exp` too) are one for each
    element of their output; a reduction of n numbers is n - 1; moving data, converting types, random bits and
    arithmetic of integers are none; `jaxnets.tracing.costs` has the whole table. The program is counted as it is
    written, before a compiler simplifies it, and with the formulations described at `multiply_adds`. A primitive of JAX
    that the table lacks counts as one for each element if it works element by element, with a warning.

    Args:
        model: as for `multiply_adds`.
        *inputs: likewise.
        params: likewise.
        state: likewise.
        train: likewise.
        train_step: whether to count a forward and a backward pass in training, from the sum of all outputs to all
            parameters, recomputation under `remat` included. A loss and an optimizer come on top.
        trips: as for `multiply_adds`.

    Raises:
        NetError: if the count is not known: a loop of unknown length, or an operation that has no rule; or if a
            training step is asked for and there are no parameters.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> x = jnp.ones((32, 100))
    >>> flops(jn.dense(10), x)  # 2 · 32 · 100 · 10 and 32 · 10 for the bias
    64320
    >>> flops(jn.dense(10), x, train_step=True)  # and as much again for the kernel's gradient, 31 · 10 for the bias's
    128630
    """
    model = trace.model_of(model, *inputs, params=params, state=state)
    program = trace.training_step(model, trips=trips) if train_step else trace.forward(model, train=train, trips=trips)
    jaxprs.warn_assumed(assumed(program.operations), stacklevel=2)
    return layers.total(program, flops_of)


@dataclass(frozen=True)
class Memory:
    """Bytes that a model needs, by what they are for.

    Attributes:
        parameters: of the parameters.
        state: of the state, batch-norm statistics as a rule.
        activations: of what the layers give in a forward pass, each value counted once, with the layer that made it. A
            forward pass can free most of it early; a layer's inner values are not in it.
        residuals: of what a training step keeps from the forward pass for the backward pass, beyond parameters and
            inputs, as JAX differentiates: a compiler may decide to compute some of it again. 0 without parameters.
        optimizer: of the optimizer's state.

    >>> Memory(parameters=100, state=0, activations=80, residuals=60, optimizer=200).training
    460
    """

    parameters: int
    state: int
    activations: int
    residuals: int
    optimizer: int = 0

    @property
    def training(self) -> int:
        """Of a training step: parameters, as much for their gradients, state, residuals, optimizer."""
        return 2 * self.parameters + self.state + self.residuals + self.optimizer


def memory(model: Any, *inputs: Any, params: Any = None, state: Any = None, optimizer: Any = None) -> Memory:
    """Return the bytes that a model needs, forward and in training, by tracing: see `Memory`.

    Args:
        model: as for `multiply_adds`.
        *inputs: likewise.
        params: likewise.
        state: likewise.
        optimizer: an Optax optimizer, whose state is counted.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> memory(jn.serial(jn.dense(10), jax.nn.relu), jnp.ones((32, 100)), optimizer=optax.adam(1e-3))
    Memory(parameters=4040, state=0, activations=2560, residuals=320, optimizer=8084)
    """
    model = trace.model_of(model, *inputs, params=params, state=state)
    own = None if optimizer is None or model.params is None else jax.eval_shape(optimizer.init, model.params)
    held = layers.residuals(trace.residuals(model))[()] if jax.tree.leaves(model.params) else 0
    given = layers.activations(trace.forward(model))[()]
    return Memory(_nbytes(model.params), _nbytes(model.state), given, held, _nbytes(own))


def _nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
