"""A jaxpr evaluated operation by operation: what each value was, and which layer made it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.inspect.operation import Operation, Place, Value
from jaxnets.inspect.walk import body_of, inside


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
        inner, constants = (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())
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
        name, params = equation.primitive.name, equation.params
        if name == "scan":
            return (self._turn_by_turn if self.unrolled else self._scan)(params, given, place)
        if name == "while" and self.unrolled:
            return self._while(params, given, place)
        if name == "cond" and self.unrolled:
            return self.open(params["branches"][int(given[0].array)], given[1:], place)
        body = body_of(equation)
        if body is not None and name != "shard_map":
            return self.open(body, given, place)
        with equation.ctx.manager:
            bound = equation.primitive.get_bind_params(params)
            arrays = equation.primitive.bind(*(each.array for each in given), **bound)
        return self._note(name, given, arrays if equation.primitive.multiple_results else [arrays], place)

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

    def _scan(self, params: Any, given: list[Live], place: Place) -> list[Live]:
        consts, carries = params["num_consts"], params["num_carry"]
        fixed, started, stacked = given[:consts], given[consts : consts + carries], given[consts + carries :]
        before = len(self.operations)
        traced: dict[str, list[Live]] = {}

        def turn(carry: list[Any], slices: list[Any]) -> tuple[list[Any], Any]:
            del self.operations[before:], self.turns[before:]  # a body may be traced more than once
            carried = [Live(each.value, array) for each, array in zip(started, carry, strict=True)]
            cut = [
                self._note("unstack", [whole], [part], place)[0] for whole, part in zip(stacked, slices, strict=True)
            ]
            made = traced["made"] = self.open(params["jaxpr"], [*fixed, *carried, *cut], place)
            inner = [value for each in self.operations[before:] for value in each.outputs if value in self.measured]
            measures = {number: self.measured.pop(value) for number, value in enumerate(inner)}
            traced["inner"] = [Live(value, None) for value in inner]
            return [each.array for each in made[:carries]], ([each.array for each in made[carries:]], measures)

        last, (stacks, measures) = jax.lax.scan(
            turn,
            [each.array for each in started],
            [each.array for each in stacked],
            length=params["length"],
            reverse=params["reverse"],
        )
        self.measured |= {each.value: measures[number] for number, each in enumerate(traced["inner"])}
        made = traced["made"]
        ends = [self._note("carry", [one], [end], place)[0] for one, end in zip(made[:carries], last, strict=True)]
        wholes = [self._note("stack", [one], [all_], place)[0] for one, all_ in zip(made[carries:], stacks)]
        return [*ends, *wholes]

    def _turn_by_turn(self, params: Any, given: list[Live], place: Place) -> list[Live]:
        consts, carries, length = params["num_consts"], params["num_carry"], params["length"]
        fixed, carry, stacked = given[:consts], given[consts : consts + carries], given[consts + carries :]
        body, outside = params["jaxpr"], self._turn
        rows: dict[int, list[Live]] = {}
        for number in reversed(range(length)) if params["reverse"] else range(length):
            self._turn = (*outside, number)
            parts = [jax.lax.dynamic_index_in_dim(each.array, np.int32(number), keepdims=False) for each in stacked]
            slices = [self._note("unstack", [each], [part], place)[0] for each, part in zip(stacked, parts)]
            made = self.open(body, [*fixed, *carry, *slices], place)
            carry, rows[number] = made[:carries], made[carries:]
        self._turn = outside
        wholes = []
        for column, aval in enumerate(body.out_avals[carries:]):
            parts = [rows[number][column] for number in range(length)]
            empty = jnp.zeros((0, *aval.shape), aval.dtype)
            whole = jnp.stack([each.array for each in parts]) if parts else empty
            wholes += self._note("stack", parts, [whole], place)
        return [*carry, *wholes]

    def _while(self, params: Any, given: list[Live], place: Place) -> list[Live]:
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        asked, fixed, carry = given[: split[0]], given[split[0] : split[1]], given[split[1] :]
        outside, number = self._turn, 0
        while bool(self.open(params["cond_jaxpr"], [*asked, *carry], place)[0].array):
            self._turn = (*outside, number)
            carry, number = self.open(params["body_jaxpr"], [*fixed, *carry], place), number + 1
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
