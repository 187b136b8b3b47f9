"""Connections as LeCun counts them: the values that each unit reads, and its bias."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.core.net import Net
from jaxnets.inspect import trace
from jaxnets.tracing import jaxprs
from jaxnets.tracing.costs import assumed, flops_of
from jaxnets.tracing.operation import Operation, Path, Program, Value
from jaxnets.tracing.reach import links

PRODUCTS = ("conv_general_dilated", "dot_general")
REDUCTIONS = ("argmax", "argmin", "cum", "reduce_", "sort")


def connections(model: Any, *inputs: Any, params: Any = None, state: Any = None) -> int:
    """Return the number of connections of a network: the values that its units read, and their biases.

    This is LeCun's count. A unit of a convolution or a dense layer reads the inputs that its kernel joins. Padding
    does not count, nor do zeros in a kernel that is assembled from parameters, such as by a table of connections. In a
    layer without a matrix product (pooling, distances) a unit reads the inputs on which it depends, if some unit of the
    layer depends on more than one; a layer that works element by element has no connections. Each unit to which a
    parameter is added has one more connection, its bias.

    Args:
        model: a network, or any other model that `multiply_adds` accepts; the layers of a function are its named
            scopes.
        *inputs: arrays, `jax.ShapeDtypeStruct`s or shapes (of float32); the count is for the whole batch.
        params: as for `multiply_adds`; a function without `params` has no biases.
        state: as for `multiply_adds`.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), section II.B.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> x = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    >>> connections(jn.models.lenet5_1998(), x)
    340908
    """
    model = trace.model_of(model, *inputs, params=params, state=state)
    program = trace.forward(model)
    jaxprs.warn_assumed(assumed(program.operations), stacklevel=2)
    return sum(by_layer(model.net, program).values())


def by_layer(net: Net | None, program: Program) -> dict[Path, int]:
    """Return the connections of each layer."""
    members: dict[Path, list[Operation]] = {}
    for operation in program.operations:
        members.setdefault(_leaf(net, operation.path), []).append(operation)
    return {path: _biases(program, own) + _links(program, own) for path, own in members.items()}


def _leaf(net: Net | None, path: Path) -> Path:
    """Return the path of an operation's layer; layers of a network have no children."""
    for depth, name in enumerate(path):
        if net is None:
            return path
        if not net.children:
            return path[:depth]
        net = net.children.get(name)
    return path


def _links(program: Program, operations: Sequence[Operation]) -> int:
    """Return how many pairs of an input and a unit a layer joins."""
    wanted = [each for each in operations if any(value in program.readers for value in each.outputs)]
    wanted = [each for each in wanted if any(value.source == "input" for value in each.inputs)]
    products = [each for each in wanted if each.name in PRODUCTS]
    if products:
        return sum(_joined(program, each) * each.times for each in products)
    # Without products: from the values that the layer reads to those of its values that are read outside it.
    inside = {value for each in wanted for value in each.outputs}
    read = [v for each in wanted for v in each.inputs if v not in inside and v.source == "input" and v.is_floating]
    own = {id(each) for each in operations}
    left = [v for v in inside if v.is_floating and any(id(reader) not in own for reader in program.readers.get(v, ()))]
    return links(wanted, [*dict.fromkeys(read)], left) * max((each.times for each in wanted), default=0)


def _joined(program: Program, operation: Operation) -> int:
    """Return how many pairs of an input and an output a product joins, without zeros in a kernel made of parameters."""
    fixed = [value for value in operation.inputs if value.source != "input"]
    if operation.name == "dot_general":
        whole = (flops_of(operation) or 0) // 2
        return whole * int(_nonzero(program, fixed[0]).sum()) // fixed[0].size if fixed else whole
    params, (left, kernel), (out,) = operation.params, operation.inputs, operation.outputs
    numbers = params["dimension_numbers"]
    pattern = np.ones(kernel.aval.shape, bool) if not fixed else _nonzero(program, kernel)
    taps = pattern.transpose(numbers.rhs_spec).sum((0, 1))  # (*kernel_size), summed over channels and features
    for axis in range(taps.ndim):
        (low, _), step = params["padding"][axis], params["window_strides"][axis]
        spread, between = params["rhs_dilation"][axis], params["lhs_dilation"][axis]
        n, m = left.aval.shape[numbers.lhs_spec[2 + axis]], out.aval.shape[numbers.out_spec[2 + axis]]
        places = step * np.arange(m)[:, None] + spread * np.arange(taps.shape[0]) - low
        # (output positions, kernel elements): whether the kernel element meets an input and not padding
        real = (places % between == 0) & (places >= 0) & (places <= (n - 1) * between)
        taps = np.tensordot(real.sum(0), taps, 1)
    return int(taps) * out.aval.shape[numbers.out_spec[0]]


def _nonzero(program: Program, value: Value) -> np.ndarray:
    """Return where a value that does not depend on the input is nonzero, if no parameter is zero anywhere."""
    maker = program.maker

    @functools.cache
    def compute(value: Value) -> Any:
        if value.known is not None:
            return value.known()
        if value not in maker:  # a parameter: any numbers but zeros
            numbers = np.random.default_rng(value.size).uniform(0.5, 1.5, value.aval.shape)
            return jnp.asarray(numbers.astype(value.aval.dtype))
        operation = maker[value]
        if operation.equation is None:  # a step of a scan or a device's part, assumed to be nonzero
            return jnp.ones(value.aval.shape, value.aval.dtype)
        return jaxprs.bind(operation.equation, *map(compute, operation.inputs))[operation.outputs.index(value)]

    # Follow a kernel back to a parameter, so that a large one need not be computed.
    plain = value
    while plain in maker and maker[plain].name in ("convert_element_type", "reshape", "rev", "transpose"):
        (plain,) = maker[plain].inputs
    if plain.known is None and (plain not in maker or maker[plain].name == "scan_slice"):
        return np.ones(value.aval.shape, bool)
    return np.asarray(compute(value)) != 0


def _biases(program: Program, operations: Sequence[Operation]) -> int:
    """Return how many units a parameter is added to, in sums that are not merely a term of a larger sum."""
    own = {id(each) for each in operations}

    @functools.cache
    def lasts(value: Value) -> bool:
        """Tell whether a value leaves the layer or enters a product, and not only reductions."""
        return any(
            reader is None
            or id(reader) not in own
            or reader.name in PRODUCTS
            or (not reader.name.startswith(REDUCTIONS) and any(map(lasts, reader.outputs)))
            for reader in program.readers.get(value, ())
        )

    total = 0
    for each in operations:
        if each.name in ("add", "add_any", "sub") and {value.source for value in each.inputs} == {"input", "params"}:
            total += each.outputs[0].size * each.times * lasts(each.outputs[0])
    return total
