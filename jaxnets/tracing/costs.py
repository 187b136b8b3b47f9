"""The cost of one operation: multiply-adds of convolutions and matrix products, and floating-point operations.

| operation | floating-point operations |
| --- | --- |
| convolution, matrix product | 2 for each multiply-add |
| arithmetic, comparison, selection, elementary function (`exp`, `tanh`, …) | 1 for each element of the output |
| polynomial of degree n | 2 n for each element of the output |
| sum, product, maximum, … over axes | size of the input - size of the output |
| the same over sliding windows | window size - 1 for each element of the output |
| running sum | 1 for each element |
| addition at indices (the gradient of indexing) | 1 for each element added |
| gradient of a maximum over windows | window size for each window |
| sorting | ⌈log₂ n⌉ for each of n elements |
| data movement, type conversion, random bits, integer arithmetic | none |

Any other operation that works element by element is assumed to cost 1 for each element of its outputs, with a warning.
Everything else has no rule and is reported, not guessed.
"""

import math
from collections.abc import Callable, Iterable, Mapping

from jaxnets.tracing import jaxprs
from jaxnets.tracing.operation import Operation


def multiply_adds_of(operation: Operation) -> int | None:
    """Return the multiply-adds of one run of an operation: those of a convolution or a matrix product, otherwise 0.

    A matrix product of (m, k) and (k, n) has m k n. A convolution has, for each position of its output, one for each
    element of the kernel and each input channel that it reads. Positions in the padding count, as in the usual tables.
    The zeros that a transposed convolution inserts do not count, nor do averages that `jn.adaptive_avg_pool` computes
    by a matrix product. Returns `None` for a program that can't be opened, such as a kernel or a callback to Python.
    """
    return 0 if operation.place.pooled else _products(operation)


def flops_of(operation: Operation) -> int | None:
    """Return the floating-point operations of one run of an operation, by the table above; `None` without a rule.

    An operation without floating-point inputs and outputs has none.
    """
    if not any(value.is_floating for value in (*operation.inputs, *operation.outputs)):
        return 0
    if operation.name in RULES:
        return RULES[operation.name](operation)
    return sum(value.size for value in operation.outputs) if _assumed(operation) else None


def assumed(operations: Iterable[Operation]) -> set[str]:
    """Return the primitives without a rule that are assumed to work element by element on floating-point numbers."""
    return {each.name for each in operations if each.name not in RULES and flops_of(each) and _assumed(each)}


def _assumed(operation: Operation) -> bool:
    return operation.equation is not None and jaxprs.is_elementwise(operation.equation)


def _products(operation: Operation) -> int | None:
    if operation.name == "dot_general":
        # Each element of the output sums over the contracted axes.
        (contracted, _), _ = operation.params["dimension_numbers"]
        left = operation.inputs[0].aval.shape
        return operation.outputs[0].size * math.prod(left[axis] for axis in contracted)
    if operation.name == "conv_general_dilated":
        return _convolution(operation)
    # An operation without a rule that holds a program may hide products in it.
    hidden = operation.equation is not None and jaxprs.holds_program(operation.equation)
    return None if operation.name not in RULES and hidden else 0


def _convolution(operation: Operation) -> int:
    params, (left, kernel), (out,) = operation.params, operation.inputs, operation.outputs
    numbers = params["dimension_numbers"]
    spread = operation.place.transposed or any(step > 1 for step in params["lhs_dilation"])
    pairs = 1
    axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    for inside, window, outside in axes:
        n, k, m = left.aval.shape[inside], kernel.aval.shape[window], out.aval.shape[outside]
        # A transposed convolution spreads its input. Two of (input position, kernel element, output position) determine
        # the third, so there are at most as many products as pairs of any two of them.
        pairs *= min(n * k, n * m, k * m) if spread else k * m
    batch, features = (out.aval.shape[axis] for axis in numbers.out_spec[:2])
    # The channels that one output feature reads: fewer with groups.
    channels = kernel.aval.shape[numbers.rhs_spec[1]]
    return batch * features * pairs * channels


def _sort(operation: Operation) -> int:
    axis = operation.params.get("dimension", -1)
    return operation.inputs[0].size * math.ceil(math.log2(max(1, operation.inputs[0].aval.shape[axis])))


def _window(operation: Operation) -> int:
    return math.prod(operation.params["window_dimensions"])


def _rules(table: Mapping[str, Callable[[Operation], int]]) -> dict[str, Callable[[Operation], int]]:
    return {name: rule for names, rule in table.items() for name in names.split()}


RULES = _rules(
    {
        "conv_general_dilated dot_general": lambda o: 2 * (_products(o) or 0),
        " ".join(jaxprs.ELEMENTWISE): lambda o: o.outputs[0].size,
        # Inputs are x and the coefficients; Horner's scheme has a multiply-add for each but the first coefficient.
        "polynomial": lambda o: 2 * (len(o.inputs) - 2) * o.outputs[0].size,
        "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor": lambda o: (
            o.inputs[0].size - o.outputs[0].size
        ),
        # The first operands are the arrays to reduce, the others initial values.
        "reduce": lambda o: sum(v.size for v in o.inputs[: len(o.outputs)]) - sum(v.size for v in o.outputs),
        "reduce_window reduce_window_max reduce_window_min reduce_window_sum select_and_gather_add": lambda o: (
            sum(v.size for v in o.outputs) * (_window(o) - 1)
        ),
        "cumlogsumexp cummax cummin cumprod cumsum": lambda o: o.inputs[0].size,
        # The last operand holds the updates.
        "scatter-add scatter-max scatter-min scatter-mul scatter-sub": lambda o: o.inputs[-1].size,
        # The first operand is the cotangent, with one element for each window.
        "select_and_scatter_add": lambda o: o.inputs[0].size * _window(o),
        "sort top_k": _sort,
        """
        bitcast_convert_type broadcast_in_dim concatenate convert_element_type copy copy_p device_put dynamic_slice
        dynamic_update_slice empty empty2 expand_dims gather iota name optimization_barrier pad platform_index pvary
        random_bits random_clone random_fold_in random_seed random_split random_unwrap random_wrap reduce_precision
        carry choice reshape rev scan_slice scan_stack scatter shard sharding_constraint slice split squeeze stack
        stop_gradient tile transpose unstack
        """: lambda o: 0,
    }
)
