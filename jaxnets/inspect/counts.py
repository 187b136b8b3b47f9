"""Totals of a model: parameters, multiply-adds, floating-point operations, memory."""

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
    """Return the number of parameters of a model: the elements of its parameter tree.

    Args:
        model: a network or Flax module, followed by its input; or only a tree of parameters.
        *inputs: arrays, `jax.ShapeDtypeStruct`s or shapes (of float32); only shapes and dtypes are read.
        on: a pattern over parameter paths that selects what to count (see `jn.paths`).

    Raises:
        NetError: for a function, whose parameters are unknown, or a pattern that matches nothing.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> x = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    >>> count_parameters(jn.models.lenet5(), x), count_parameters(jn.models.lenet5(), x, on="fc3/*")
    (61706, 850)
    >>> count_parameters({"kernel": jnp.ones((5, 10)), "bias": jnp.ones(10)})
    60
    """
    params = trace.model_of(model, *inputs).params if inputs else spec(model)
    if params is None:
        raise NetError("has unknown parameters, as it is a function; pass the tree of its parameters alone")
    leaves = jax.tree.leaves(params) if on == "**" else select(params, on).values()
    return sum(leaf.size for leaf in leaves)


def multiply_adds(
    model: Any, *inputs: Any, params: Any = None, state: Any = None, train: bool = False, trips: int | None = None
) -> int:
    """Return the multiply-adds of a forward pass, those of convolutions and matrix products.

    Tables of networks list these, some under the name FLOPs. A matrix product of (m, k) and (k, n) has m k n
    multiply-adds. A convolution has (output positions) · (kernel positions) · (channels / groups) · (features) for each
    example.

    The model is traced on shapes, and everything it calls is opened. A scan counts as many times as its length, and a
    `cond` as its most expensive branch. If code has variants for platforms, the default variant counts, so the count
    does not depend on the machine.

    Args:
        model: a network; a Flax module, Linen or NNX; or any function JAX can trace.
        *inputs: arrays, `jax.ShapeDtypeStruct`s or shapes (of float32).
        params: a tree of parameters or of their shapes; default: those of an abstract initialization of the network or
            module. It is the first argument of a function.
        state: the state of a network with `params`, or the other collections of a Linen module.
        train: whether the network runs in training mode.
        trips: number of iterations of loops of unknown length (`jax.lax.while_loop`).

    Raises:
        NetError: if the count is unknown, because there is such a loop without `trips`.

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

    A multiply-add counts as two operations. Arithmetic, comparisons and elementary functions such as `exp` count as one
    for each element of their output, and a reduction of n numbers as n - 1. Moving data, converting types, random bits
    and integer arithmetic do not count. `jaxnets.tracing.costs` has the whole table.

    The program is counted as written, before a compiler simplifies it, with the rules for loops and branches of
    `multiply_adds`. An elementwise JAX primitive that the table lacks counts as one for each element, with a warning.

    Args:
        model: as for `multiply_adds`.
        *inputs: as for `multiply_adds`.
        params: as for `multiply_adds`.
        state: as for `multiply_adds`.
        train: as for `multiply_adds`.
        train_step: whether to count a forward and a backward pass in training, from the sum of all outputs to all
            parameters, with recomputation under `remat`. Loss and optimizer are not included.
        trips: as for `multiply_adds`.

    Raises:
        NetError: if the count is unknown, because of a loop of unknown length or an operation without a rule; for
            `train_step` of a model without parameters.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> x = jnp.ones((32, 100))
    >>> flops(jn.dense(10), x)  # 2 · 32 · 100 · 10 and 32 · 10 for the bias
    64320
    >>> flops(jn.dense(10), x, train_step=True)  # the kernel's gradient takes 64000 again, the bias's 31 · 10
    128630
    """
    model = trace.model_of(model, *inputs, params=params, state=state)
    program = trace.training_step(model, trips=trips) if train_step else trace.forward(model, train=train, trips=trips)
    jaxprs.warn_assumed(assumed(program.operations), stacklevel=2)
    return layers.total(program, flops_of)


@dataclass(frozen=True)
class Memory:
    """Memory of a model in bytes, by purpose.

    Attributes:
        parameters: the parameters.
        state: the state, usually batch-norm statistics.
        activations: the outputs of the layers in a forward pass. Each value counts once, in the layer that made it;
            values inside a layer do not count. A forward pass can free most of this early.
        residuals: what JAX stores in the forward pass for the backward pass, without parameters and inputs. A compiler
            may recompute some of it instead. 0 without parameters.
        optimizer: the optimizer's state.

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
        """A training step: parameters, gradients of the same size, state, residuals and optimizer."""
        return 2 * self.parameters + self.state + self.residuals + self.optimizer


def memory(model: Any, *inputs: Any, params: Any = None, state: Any = None, optimizer: Any = None) -> Memory:
    """Return the bytes that a model needs for a forward pass and for training, see `Memory`.

    Args:
        model: as for `multiply_adds`.
        *inputs: as for `multiply_adds`.
        params: as for `multiply_adds`.
        state: as for `multiply_adds`.
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
