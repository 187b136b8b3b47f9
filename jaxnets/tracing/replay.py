"""A jaxpr evaluated operation by operation: what each value was, and which layer made it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.tracing import jaxprs
from jaxnets.tracing.operation import Operation, Place, Value
from jaxnets.tracing.walk import inside


class Live(NamedTuple):
    """A value and its array."""

    value: Value
    array: Any


class Replay:
    """Evaluates jaxprs: collects their operations, and a small measure of each floating value they make.

    Calls are opened; what leads to no output is left out. The arrays themselves live as long as something reads them.

    With `unrolled`, loops and branches are opened too, turn by turn, which takes known values. Without, the replay may
    be traced: a scan stays a scan, whose values have a measure a turn, along a new first axis, and any other
    loop or branch is one operation.

    Attributes:
        measure: of an array, a pytree of small arrays.
        unrolled: whether each turn of a loop has operations of its own.
        operations: in the order in which they ran.
        turns: for each operation, the turns of the loops it stands in, the outermost first.
        measured: the measures by value.
    """

    def __init__(self, measure: Callable[[jax.Array], Any], *, unrolled: bool = False) -> None:
        self.measure, self.unrolled = measure, unrolled
        self.operations: list[Operation] = []
        self.turns: list[tuple[int, ...]] = []
        self.measured: dict[Value, Any] = {}
        self._turn: tuple[int, ...] = ()

    def live(self, array: Any, source: str) -> Live:
        """Return an array that no operation made, measured."""
        return self._measured(Value(jax.typeof(array), (), source), array)

    def open(self, jaxpr: Jaxpr | ClosedJaxpr, inputs: Sequence[Live], place: Place) -> list[Live]:
        """Evaluate a jaxpr that stands at a place, and return its outputs."""
        inner, constants = jaxprs.opened(jaxpr)
        values = dict(zip(inner.invars, inputs, strict=True))
        values |= {var: self.live(array, "constant") for var, array in zip(inner.constvars, constants)}
        kept = {atom for atom in inner.outvars if _is_var(atom)}
        equations, last = _needed(inner, kept)

        def read(atom: Any) -> Live:
            return self.live(atom.val, "constant") if isinstance(atom, Literal) else values[atom]

        for equation in equations:
            made = self._made(equation, [*map(read, equation.invars)], inside(place, equation))
            values |= dict(zip(equation.outvars, made, strict=True))
            for var in last[id(equation)]:
                del values[var]
        return [*map(read, inner.outvars)]

    def _made(self, equation: Any, given: list[Live], place: Place) -> list[Live]:
        name = equation.primitive.name
        if name == "scan":
            scan = jaxprs.scan_parts(equation)
            return (self._turn_by_turn if self.unrolled else self._scan)(scan, given, place)
        if name == "while" and self.unrolled:
            return self._while(jaxprs.while_parts(equation), given, place)
        if name == "cond" and self.unrolled:
            branches = jaxprs.branches_of(equation, platforms=True)
            return self.open(branches[int(given[0].array)], given[1:], place)
        body = jaxprs.body_of(equation)
        if body is not None and name != "shard_map":
            return self.open(body, given, place)
        return self._note(name, given, jaxprs.bind(equation, *(each.array for each in given)), place)

    def _note(self, name: str, given: Sequence[Live], arrays: Sequence[Any], place: Place) -> list[Live]:
        made = [self._measured(Value(jax.typeof(array), place.path), array) for array in arrays]
        read = [each.value for each in given]
        self.operations.append(Operation(name, {}, read, [each.value for each in made], place))
        self.turns.append(self._turn)
        return made

    def _measured(self, value: Value, array: Any) -> Live:
        if jnp.issubdtype(value.aval.dtype, jnp.inexact) and value.size:
            self.measured[value] = self.measure(jnp.asarray(array))
        return Live(value, array)

    def _scan(self, scan: jaxprs.Scan, given: list[Live], place: Place) -> list[Live]:
        fixed, started, stacked = scan.inputs(given)
        before = len(self.operations)
        traced: dict[str, list[Live]] = {}

        def turn(carry: list[Any], slices: list[Any]) -> tuple[list[Any], Any]:
            del self.operations[before:], self.turns[before:]  # a body may be traced more than once
            carried = [Live(each.value, array) for each, array in zip(started, carry, strict=True)]
            cut = [
                self._note("scan_slice", [whole], [part], place)[0] for whole, part in zip(stacked, slices, strict=True)
            ]
            made = traced["made"] = self.open(scan.body, [*fixed, *carried, *cut], place)
            inner = [value for each in self.operations[before:] for value in each.outputs if value in self.measured]
            measures = {number: self.measured.pop(value) for number, value in enumerate(inner)}
            traced["inner"] = [Live(value, None) for value in inner]
            carry, stacks = scan.outputs([each.array for each in made])
            return carry, (stacks, measures)

        last, (stacks, measures) = jax.lax.scan(
            turn,
            [each.array for each in started],
            [each.array for each in stacked],
            length=scan.length,
            reverse=scan.reverse,
        )
        self.measured |= {each.value: measures[number] for number, each in enumerate(traced["inner"])}
        carried, ones = scan.outputs(traced["made"])
        ends = [self._note("carry", [one], [end], place)[0] for one, end in zip(carried, last, strict=True)]
        wholes = [self._note("scan_stack", [one], [all_], place)[0] for one, all_ in zip(ones, stacks, strict=True)]
        return [*ends, *wholes]

    def _turn_by_turn(self, scan: jaxprs.Scan, given: list[Live], place: Place) -> list[Live]:
        fixed, carry, stacked = scan.inputs(given)
        outside, turns = self._turn, range(scan.length)
        rows: dict[int, list[Live]] = {}
        for number in reversed(turns) if scan.reverse else turns:
            self._turn = (*outside, number)
            parts = [jax.lax.dynamic_index_in_dim(each.array, np.int32(number), keepdims=False) for each in stacked]
            slices = [self._note("scan_slice", [each], [part], place)[0] for each, part in zip(stacked, parts)]
            carry, rows[number] = scan.outputs(self.open(scan.body, [*fixed, *carry, *slices], place))
        self._turn = outside
        wholes = []
        for column, aval in enumerate(scan.outputs(scan.body.out_avals)[1]):
            parts = [rows[number][column] for number in turns]
            empty = jnp.zeros((0, *aval.shape), aval.dtype)
            whole = jnp.stack([each.array for each in parts]) if parts else empty
            wholes += self._note("scan_stack", parts, [whole], place)
        return [*carry, *wholes]

    def _while(self, loop: jaxprs.While, given: list[Live], place: Place) -> list[Live]:
        asked, fixed, carry = loop.inputs(given)
        outside, number = self._turn, 0
        while bool(self.open(loop.question, [*asked, *carry], place)[0].array):
            self._turn = (*outside, number)
            carry, number = self.open(loop.body, [*fixed, *carry], place), number + 1
        self._turn = outside
        return carry


def _needed(jaxpr: Jaxpr, outputs: set[Any]) -> tuple[list[Any], dict[int, set[Any]]]:
    """Return the equations that lead to an output, and by each one's id what is read there for the last time."""
    equations, last, read = [], {}, set(outputs)
    for equation in reversed(jaxpr.eqns):
        if not read.isdisjoint(equation.outvars):
            last[id(equation)] = {atom for atom in equation.invars if _is_var(atom)} - read
            read |= last[id(equation)]
            equations.append(equation)
    return equations[::-1], last


def _is_var(atom: Any) -> bool:
    return not isinstance(atom, Literal)
