"""The exact set of input elements on which each element of an array depends, axis by axis.

For an array and an input there is one boolean table for each axis of the input, `(*shape, positions)` with the shape of
the array. It marks the positions along that axis on which each element of the array may depend. The element depends on
the input elements whose positions are marked along every axis. Along axes of the array where a table does not change,
it has length 1.

Connections need these exact sets, since a dilated window skips positions. Receptive fields need intervals that also
extend beyond the edges of the input (`spans`), which sets of its positions can't express; so both exist.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxnets.tracing.jaxprs import ELEMENTWISE, is_elementwise
from jaxnets.tracing.operation import Operation, Value
from jaxnets.tracing.spans import reshape_groups

Tables = tuple[np.ndarray, ...]
Dependence = Mapping[Value, Tables]  # by input, without those on which the array does not depend


def links(operations: Sequence[Operation], inputs: Sequence[Value], outputs: Sequence[Value]) -> int:
    """Return how many elements of the inputs each output element depends on, summed over the output elements.

    Returns 0 if no element depends on two elements of the same input.

    The count is exact where each axis can be followed by itself (windows, slices, reductions), else an upper bound.
    """
    # A shortcut for programs that work element by element.
    if all(_rule(each) in (_in_place, _broadcast, _reshape, _squeeze) for each in operations):
        return 0
    state: dict[Value, Dependence] = {value: {value: _own(value.aval.shape)} for value in inputs}
    for operation in operations:
        # Carries are followed for one step only: a unit of a step reads what that step reads.
        read = operation.inputs[:1] if operation.name in ("carry", "scan_stack") else operation.inputs
        found = [(place, state[value]) for place, value in enumerate(read) if value in state]
        # An output depends on what any of its operands depends on, input by input.
        for number, value in enumerate(operation.outputs if found else ()):
            rule = _rule(operation)
            made = ({x: rule(t, operation, place, number) for x, t in each.items()} for place, each in found)
            state[value] = functools.reduce(_union, made)
    counts = [_count(tables, value.aval.shape) for value in outputs for tables in state.get(value, {}).values()]
    return sum(int(count.sum()) for count in counts) if any((count > 1).any() for count in counts) else 0


def _rule(operation: Operation) -> Callable[[Tables, Operation, int, int], Tables]:
    """Return the function from the tables of operand `place` to those of output `number`."""
    if operation.name in RULES:
        return RULES[operation.name]
    known = operation.equation is not None and is_elementwise(operation.equation)
    return _in_place if known else _everything


def _own(shape: tuple[int, ...]) -> Tables:
    """Return the tables of an input: each element depends on itself."""
    rank = len(shape)
    # (1, …, n, …, 1, n) for each axis of n elements
    return tuple(
        np.eye(n, dtype=bool).reshape(*(n if axis == k else 1 for k in range(rank)), n) for axis, n in enumerate(shape)
    )


def _count(tables: Tables, shape: tuple[int, ...]) -> np.ndarray:
    """Return on how many input elements each element depends."""
    return np.broadcast_to(math.prod((table.sum(-1) for table in tables), start=np.ones((), int)), shape)


def _union(a: Dependence, b: Dependence) -> Dependence:
    return {**a, **b, **{x: tuple(map(np.logical_or, a[x], b[x])) for x in a if x in b}}


def _take(tables: Tables, axis: int, index: np.ndarray) -> Tables:
    """Take elements along an axis; those at -1 depend on nothing, which is marked in one of the tables."""
    # An element depends on nothing as soon as one of its tables is empty, so only one of them is marked. Tables that do
    # not change along the axis stay the same.
    changing = [number for number, table in enumerate(tables) if table.shape[axis] > 1]
    marked, taken = (changing or [min(axis, len(tables) - 1)])[0], []
    for number, table in enumerate(tables):
        if number == marked and (index < 0).any():
            # A table that does not change along the axis is stored in full first.
            table = np.take(np.repeat(table, 1 + index.max(initial=0), axis) if not changing else table, index, axis)
            np.moveaxis(table, axis, 0)[index < 0] = False
        elif number in changing:
            table = np.take(table, index, axis)
        taken.append(table)
    return tuple(taken)


def _any(tables: Tables, axes: Sequence[int]) -> Tables:
    return tuple(np.asarray(table.any(tuple(axes))) for table in tables)


def _in_place(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    rank = len(operation.outputs[number].aval.shape)
    if len(operation.inputs[place].aval.shape) == rank:
        return tables
    # A scalar operand of `select_n`: the same for every element.
    return tuple(table.reshape(*(1 for _ in range(rank)), -1) for table in tables)


def _everything(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    rank = len(operation.outputs[number].aval.shape)
    return tuple(np.ones((*(1 for _ in range(rank)), table.shape[-1]), bool) for table in tables)


def _broadcast(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    rank, axes = len(operation.outputs[number].aval.shape), operation.params["broadcast_dimensions"]
    new = [axis for axis in range(rank) if axis not in axes]
    return tuple(np.expand_dims(table, new) for table in tables)


def _reshape(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    groups = reshape_groups(operation.inputs[place].aval.shape, operation.outputs[number].aval.shape)

    def reshape(table: np.ndarray) -> np.ndarray:
        # The first axis of the next group; axes before it are reshaped already.
        at = 0
        for old, new in groups:
            stored, rest = table.shape[at : at + len(old)], table.shape[at + len(old) :]
            # The table does not change along these axes.
            if all(n == 1 for n in stored):
                new = tuple(1 for _ in new)
            else:
                table = np.broadcast_to(table, (*table.shape[:at], *old, *rest))
            table, at = table.reshape(*table.shape[:at], *new, *rest), at + len(new)
        return table

    return tuple(map(reshape, tables))


def _transpose(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    order = operation.params["permutation"]
    return tuple(table.transpose(*order, len(order)) for table in tables)


def _reverse(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    return tuple(np.flip(table, operation.params["dimensions"]) for table in tables)


def _stack(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    axis, at = operation.params["axis"], np.arange(len(operation.inputs))
    # The operand is element `place` of the new axis; the others do not depend on it.
    return _take(tuple(np.expand_dims(table, axis) for table in tables), axis, np.where(at == place, 0, -1))


def _unstack(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    axis = operation.params["axis"]
    return _any(_take(tables, axis, np.array([number])), (axis,))


def _scan_stack(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    return tuple(table[None] for table in tables)


def _scan_slice(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    return _any(tables, (0,))


def _slice(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    params = operation.params
    starts, ends, steps = params["start_indices"], params["limit_indices"], params["strides"]
    for axis, (start, end) in enumerate(zip(starts, ends, strict=True)):
        tables = _take(tables, axis, np.arange(start, end, 1 if steps is None else steps[axis]))
    return tables


def _split(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    sizes = operation.params["sizes"]
    return _take(tables, operation.params["axis"], sum(sizes[:number]) + np.arange(sizes[number]))


def _pad(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    # The value of the padding may be anywhere.
    if place:
        return _everything(tables, operation, place, number)
    shape = operation.inputs[0].aval.shape
    for axis, (n, (low, high, inner)) in enumerate(zip(shape, operation.params["padding_config"], strict=True)):
        # The operand's position behind each element, and whether it falls between two of them.
        at, between = np.divmod(np.arange(-low, n + (n - 1) * inner + high), inner + 1)
        tables = _take(tables, axis, np.where((between == 0) & (at >= 0) & (at < n), at, -1))
    return tables


def _concatenate(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    axis = operation.params["dimension"]
    lengths = [value.aval.shape[axis] for value in operation.inputs]
    at = np.arange(sum(lengths)) - sum(lengths[:place])
    return _take(tables, axis, np.where((at >= 0) & (at < lengths[place]), at, -1))


def _reduce(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    return _any(tables, operation.params["axes"])


def _squeeze(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    return _any(tables, operation.params["dimensions"])


def _running(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    axis, turn = operation.params["axis"], operation.params["reverse"]
    # Element i of a running sum depends on elements 0 … i, or i … n − 1 in reverse.
    lines = [np.flip(table, axis) if turn else table for table in tables]
    lines = [np.logical_or.accumulate(line, axis) for line in lines]
    return tuple(np.flip(line, axis) if turn else line for line in lines)


def _windows(tables: Tables, operation: Operation, place: int, number: int) -> Tables:
    params, shape = operation.params, operation.outputs[number].aval.shape
    settings = (params["window_dimensions"], params["window_strides"], params["padding"])
    dilation = params["base_dilation"], params["window_dilation"]
    for axis, (size, step, (low, _), base, spread) in enumerate(zip(*settings, *dilation, strict=True)):
        if (size, step, low, base) == (1, 1, 0, 1):
            continue
        n, parts = operation.inputs[place].aval.shape[axis], []
        for element in range(size):
            # The position that this element of the window has in the input, and whether it falls on an inserted zero.
            at, between = np.divmod(step * np.arange(shape[axis]) - low + spread * element, base)
            parts.append(_take(tables, axis, np.where((between == 0) & (at >= 0) & (at < n), at, -1)))
        tables = tuple(functools.reduce(np.logical_or, each) for each in zip(*parts, strict=True))
    return tables


RULES: dict[str, Callable[[Tables, Operation, int, int], Tables]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "scan_slice": _scan_slice,
    "scan_stack": _scan_stack,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
    "unstack": _unstack,
    **dict.fromkeys((*ELEMENTWISE, "carry", "convert_element_type", "copy", "stop_gradient"), _in_place),
    **dict.fromkeys(("reduce_max", "reduce_min", "reduce_prod", "reduce_sum"), _reduce),
    **dict.fromkeys(("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"), _running),
    **dict.fromkeys(("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"), _windows),
}
