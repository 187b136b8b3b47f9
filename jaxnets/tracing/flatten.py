"""Flatten a jaxpr into a list of operations on shapes, each with its layer and how often it runs."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from jaxnets.core.errors import is_traced
from jaxnets.tracing import jaxprs
from jaxnets.tracing.costs import flops_of
from jaxnets.tracing.interpreter import Interpreter
from jaxnets.tracing.operation import Operation, Place, Program, Value


class Unrolled(Interpreter[Value]):
    """Collects operations, every step of a scan separately.

    A `while_loop` and a `shard_map` are one operation each. A `cond` contributes the branch that it takes or, if that
    is not known, all branches and a "choice" among their results.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def program(self, jaxpr: ClosedJaxpr, inputs: list[Value]) -> Program:
        """Return the operations of a jaxpr."""
        outputs = self.run(jaxpr, inputs, Place())
        return Program(self.operations, inputs, outputs)

    def _constant(self, data: Any, place: Place) -> Value:
        # A constant that an enclosing trace computes has no known value.
        return Value(jax.typeof(data), place.path, "constant", None if is_traced(data) else lambda: data)

    def _operation(self, equation: Any, inputs: list[Value], place: Place) -> list[Value]:
        name, avals = equation.primitive.name, [var.aval for var in equation.outvars]
        outputs = self._add(name, inputs, avals, place, equation)
        if all(value.known is not None for value in inputs):
            # Computed when a rule asks for it: most constants are never read.
            compute = functools.cache(functools.partial(_evaluated, equation, inputs))
            for number, value in enumerate(outputs):
                value.known = lambda number=number: compute()[number]
        return outputs

    def _slice(self, stacked: Value, step: int, place: Place) -> Value:
        aval = jax.ShapeDtypeStruct(stacked.shape[1:], stacked.aval.dtype)
        (part,) = self._add("scan_slice", [stacked, self._constant(step, place)], [aval], place)
        if (known := stacked.known) is not None:
            # Evaluated when a rule asks for it, as in `_operation`.
            part.known = lambda: known()[step]
        return part

    def _stack(self, rows: list[Value], aval: Any, place: Place) -> Value:
        return self._add("scan_stack", rows, [aval], place)[0]

    def _concrete(self, value: Value) -> Any:
        return None if value.known is None else value.known()

    def _choose(self, index: Value, branches: list[list[Value]], place: Place) -> list[Value]:
        return [self._add("choice", [index, *each], [each[0].aval], place)[0] for each in zip(*branches, strict=True)]

    def _while_loop(self, equation: Any, inputs: list[Value], place: Place) -> list[Value]:
        # The number of iterations is rarely known, and may be huge.
        return self._operation(equation, inputs, place)

    def _add(
        self,
        name: str,
        inputs: list[Value],
        avals: list[Any],
        place: Place,
        equation: Any = None,
        after: Sequence[Value] = (),
    ) -> list[Value]:
        """Append an operation, and return its outputs."""
        given = {value.source for value in inputs}
        source = next((source for source in ("input", "params") if source in given), "constant")
        outputs = [Value(aval, place.path, source) for aval in avals]
        params = {} if equation is None else equation.params
        self.operations.append(Operation(name, params, inputs, outputs, place, equation, after))
        return outputs


def _evaluated(equation: Any, inputs: Iterable[Value]) -> list[Any]:
    with jax.ensure_compile_time_eval():
        return jaxprs.bind(equation, *(value.known() for value in inputs if value.known is not None))


class Rolled(Unrolled):
    """Collects operations and how often each runs; the body of each loop is collected once.

    A scan runs as often as its length. A `while_loop` runs `trips` times; if that is `None`, once, marked as unknown.
    A `cond` counts as its most expensive branch, or as the default branch if the branches depend on the platform.
    """

    def __init__(self, trips: int | None = None) -> None:
        super().__init__()
        self.trips = trips

    def _scan(self, equation: Any, inputs: list[Value], place: Place) -> list[Value]:
        scan = jaxprs.scan_parts(equation)
        constants, first, stacked = scan.inputs(inputs)
        *_, parts = scan.inputs(scan.body.jaxpr.invars)
        # The slices of all steps have the same shape, so one represents all.
        slices = [
            self._add("scan_slice", [whole], [var.aval], place)[0] for whole, var in zip(stacked, parts, strict=True)
        ]
        step = place._replace(times=place.times * scan.length)
        carried, rows = scan.outputs(
            self.run(scan.body, [*constants, *self._carry(first, inputs, place), *slices], step)
        )
        _, wholes = scan.outputs(equation.outvars)
        stacks = []
        for row, var in zip(rows, wholes, strict=True):
            # A stack needs the carries too, since each step needs the previous one. Its layer is that of its rows.
            stacks += self._add("scan_stack", [row], [var.aval], place, after=carried)
            stacks[-1].path = row.path
        # The carry of the last step is the carry that the scan returns.
        return [*carried, *stacks]

    def _carry(self, first: list[Value], inputs: list[Value], place: Place) -> list[Value]:
        """Return the carries that a step of a loop receives: they depend on all inputs of the loop."""
        return [self._add("carry", [value, *inputs], [value.aval], place)[0] for value in first]

    def _while_loop(self, equation: Any, inputs: list[Value], place: Place) -> list[Value]:
        loop = jaxprs.while_parts(equation)
        asked, constants, first = loop.inputs(inputs)
        trips, known = (1, False) if self.trips is None else (self.trips, place.known)
        carried = self._carry(first, inputs, place)
        # The condition is evaluated once more than the body.
        self.run(loop.condition, [*asked, *carried], place._replace(times=place.times * (trips + 1), known=known))
        return self.run(loop.body, [*constants, *carried], place._replace(times=place.times * trips, known=known))

    def _cond(self, equation: Any, inputs: list[Value], place: Place) -> list[Value]:
        # Each branch is flattened separately, to compare costs.
        outer, found = self.operations, []
        for branch in jaxprs.branches_of(equation):
            self.operations = []
            outputs = self.run(branch, inputs[1:], place)
            cost = sum((flops_of(each) or 0) * each.times for each in self.operations)
            found.append((cost, self.operations, outputs))
        # Among branches of equal cost `max` chooses the first.
        _, operations, outputs = max(found, key=lambda each: each[0])
        self.operations: list[Operation] = [*outer, *operations]
        return outputs

    def _shard_map(self, equation: Any, inputs: list[Value], place: Place) -> list[Value]:
        body = jaxprs.body_of(equation)
        assert body is not None
        inner, _ = jaxprs.opened(body)
        # Each device runs the body on its own part of each input.
        parts = self._add("shard", inputs, [var.aval for var in inner.invars], place)
        parts = self.run(body, parts, place._replace(times=place.times * jaxprs.shards_of(equation)))
        wholes = self._add("shard", parts, [var.aval for var in equation.outvars], place)
        for whole, part in zip(wholes, parts, strict=True):
            whole.path = part.path
        return wholes
