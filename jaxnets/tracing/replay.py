"""Evaluation of a jaxpr operation by operation on arrays, which records each value and the layer that made it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.tracing import jaxprs
from jaxnets.tracing.interpreter import Interpreter
from jaxnets.tracing.operation import Operation, Place, Value


class Live(NamedTuple):
    """A value and its array."""

    value: Value
    array: Any


class Replay(Interpreter[Live]):
    """Evaluates jaxprs, and collects their operations and a small measure of each floating value that they make.

    Loops run iteration by iteration, and a `cond` runs the branch that it takes, so all values must be known;
    `TracedReplay` runs under `jit`. Operations that no output needs are left out. An array is freed after its last
    read.

    Attributes:
        measure: maps an array to a pytree of small arrays.
        operations: all operations, in the order in which they ran.
        measured: the measures by value.
    """

    skips_unused = True
    on_this_platform = True

    def __init__(self, measure: Callable[[jax.Array], Any]) -> None:
        self.measure = measure
        self.operations: list[Operation] = []
        self.measured: dict[Value, Any] = {}

    def live(self, array: Any, source: str) -> Live:
        """Return an array that no operation made, and measure it."""
        return self._measured(Value(jax.typeof(array), (), source), array)

    def _constant(self, data: Any, place: Place) -> Live:
        return self.live(data, "constant")

    def _operation(self, equation: Any, inputs: list[Live], place: Place) -> list[Live]:
        arrays = jaxprs.bind(equation, *(each.array for each in inputs))
        return self._add(equation.primitive.name, inputs, arrays, place)

    def _slice(self, stacked: Live, step: int, place: Place) -> Live:
        part = jax.lax.dynamic_index_in_dim(stacked.array, np.int32(step), keepdims=False)
        return self._add("scan_slice", [stacked], [part], place)[0]

    def _stack(self, rows: list[Live], aval: Any, place: Place) -> Live:
        # A scan without steps has no rows to stack.
        whole = jnp.stack([each.array for each in rows]) if rows else jnp.zeros(aval.shape, aval.dtype)
        return self._add("scan_stack", rows, [whole], place)[0]

    def _concrete(self, value: Live) -> Any:
        return value.array

    def _add(self, name: str, inputs: list[Live], arrays: list[Any], place: Place) -> list[Live]:
        outputs = [self._measured(Value(jax.typeof(array), place.path), array) for array in arrays]
        values = [each.value for each in inputs]
        self.operations.append(Operation(name, {}, values, [each.value for each in outputs], place))
        return outputs

    def _measured(self, value: Value, array: Any) -> Live:
        if value.is_floating and value.size:
            self.measured[value] = self.measure(jnp.asarray(array))
        return Live(value, array)


class TracedReplay(Replay):
    """A replay that may be traced by `jit`: a scan remains a scan; other loops and branches are one operation each.

    A value in the body of a scan has one measure for each step, along a new first axis.
    """

    def _scan(self, equation: Any, inputs: list[Live], place: Place) -> list[Live]:
        scan = jaxprs.scan_parts(equation)
        # `first` holds the carries before the first step.
        constants, first, stacked = scan.inputs(inputs)
        before = len(self.operations)
        # The values made by the last trace of the body.
        traced: dict[str, list[Live]] = {}

        def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], Any]:
            # JAX may trace a body more than once: the last trace counts.
            del self.operations[before:]
            carried = [Live(each.value, array) for each, array in zip(first, carry, strict=True)]
            parts = [
                self._add("scan_slice", [whole], [part], place)[0] for whole, part in zip(stacked, slices, strict=True)
            ]
            outputs = traced["outputs"] = self.run(scan.body, [*constants, *carried, *parts], place)
            # Measures of the body leave the scan as its outputs.
            inner = [value for each in self.operations[before:] for value in each.outputs if value in self.measured]
            measures = {number: self.measured.pop(value) for number, value in enumerate(inner)}
            traced["inner"] = [Live(value, None) for value in inner]
            carry, rows = scan.outputs([each.array for each in outputs])
            return carry, (rows, measures)

        last, (stacks, measures) = jax.lax.scan(
            body,
            [each.array for each in first],
            [each.array for each in stacked],
            length=scan.length,
            reverse=scan.reverse,
        )
        self.measured.update({each.value: measures[number] for number, each in enumerate(traced["inner"])})
        carried, rows = scan.outputs(traced["outputs"])
        # The values of the body represent those of all steps.
        ends = [self._add("carry", [one], [end], place)[0] for one, end in zip(carried, last, strict=True)]
        wholes = [self._add("scan_stack", [row], [whole], place)[0] for row, whole in zip(rows, stacks, strict=True)]
        return [*ends, *wholes]

    def _while_loop(self, equation: Any, inputs: list[Live], place: Place) -> list[Live]:
        return self._operation(equation, inputs, place)

    def _cond(self, equation: Any, inputs: list[Live], place: Place) -> list[Live]:
        return self._operation(equation, inputs, place)
