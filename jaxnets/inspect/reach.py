"""A walk over a traced program that follows which part of the input each array depends upon, layer by layer."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.inspect.span_rules import RULES, Step
from jaxnets.inspect.spans import Span, stack, union

Path = tuple[str, ...]  # the names of the layers, the outermost first


class Value(NamedTuple):
    """An array of the program: what it depends upon, what it is where that is known, and the layer that made it."""

    span: Span | None  # None: not upon the input
    known: Callable[[], Any] | None = None
    path: Path = ()


class Reach:
    """Follows intervals through a jaxpr.

    Attributes:
        layers: by path, the last array that each layer handed out.
        unknown: primitives without a rule, whose outputs were taken to depend upon all of their inputs.
    """

    def __init__(self) -> None:
        self.layers: dict[Path, Span] = {}
        self.unknown: set[str] = set()

    def run(self, body: Jaxpr | ClosedJaxpr, inputs: Sequence[Value], path: Path) -> list[Value]:
        """Return the outputs of a jaxpr that stands in the layer `path`."""
        inner, constants = (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())
        values = dict(zip(inner.invars, (each._replace(path=path) for each in inputs), strict=True))
        values |= {var: Value(None, lambda c=c: c, path) for var, c in zip(inner.constvars, constants)}

        def read(atom: Any, place: Path) -> Value:
            if isinstance(atom, Literal):
                return Value(None, lambda: np.asarray(atom.val))
            self._leave(values[atom], place)
            return values[atom]

        for equation in inner.eqns:
            scopes = [part.name for part in equation.source_info.name_stack.stack if type(part).__name__ == "Scope"]
            place = (*path, *scopes)
            made = self._made(equation, [read(atom, place) for atom in equation.invars], place)
            values |= {var: each._replace(path=place) for var, each in zip(equation.outvars, made, strict=True)}
        return [read(atom, path) for atom in inner.outvars]

    def _leave(self, value: Value, place: Path) -> None:
        """Note a value for each layer that made it and is left by reading it at `place`."""
        if value.span is not None:
            shared = 0
            while shared < min(len(value.path), len(place)) and value.path[shared] == place[shared]:
                shared += 1
            for depth in range(shared + 1, len(value.path) + 1):
                self.layers[value.path[:depth]] = value.span

    def _made(self, equation: Any, inputs: list[Value], place: Path) -> Sequence[Value]:
        name, params = equation.primitive.name, equation.params
        if name == "scan":
            return self._scan(params, inputs, place)
        if name == "cond":
            return self._cond(params, inputs, place)
        if name not in RULES and (body := _body(equation)) is not None:
            return self.run(body, inputs, place)
        spans = [value.span for value in inputs]
        if not any(spans):
            return _constant(equation, inputs)
        given, shapes = ([getattr(v.aval, "shape", ()) for v in vs] for vs in (equation.invars, equation.outvars))
        step = Step(params, spans, [value.known for value in inputs], given, shapes)
        made = RULES[name](step) if name in RULES else None
        if made is None:
            self.unknown.add(name)
            made = [union([span.everything(shape) for span in spans if span]) for shape in shapes]
        return [Value(span) for span in made]

    def _scan(self, params: Mapping[str, Any], inputs: list[Value], place: Path) -> list[Value]:
        consts, carries = params["num_consts"], params["num_carry"]
        fixed, carry, stacked = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
        steps = range(params["length"])
        each: list[list[Value]] = []
        for step in reversed(steps) if params["reverse"] else steps:
            slices = [_index(value, step) for value in stacked]
            made = self.run(params["jaxpr"], [*fixed, *carry, *slices], place)
            carry = made[:carries]
            each.append(made[carries:])
        if params["reverse"]:
            each.reverse()
        return [*carry, *(_stacked(line) for line in zip(*each, strict=True))]

    def _cond(self, params: Mapping[str, Any], inputs: list[Value], place: Path) -> list[Value]:
        branches, platforms, choice = params["branches"], params.get("branches_platforms"), inputs[0]
        if platforms is not None:  # the branch for any platform that has no other
            branches = [branches[platforms.index(None) if None in platforms else -1]]
        elif choice.known is not None:
            branches = [branches[int(np.clip(choice.known(), 0, len(branches) - 1))]]
        made = [self.run(branch, inputs[1:], place) for branch in branches]
        joined = []
        for each in zip(*made, strict=True):
            spans = [value.span for value in each if value.span is not None]
            if choice.span is not None:
                shape = spans[0].shape if spans else ()
                spans.append(choice.span.everything(shape))
            joined.append(Value(union(spans)) if spans else each[0])
        return joined


def _body(equation: Any) -> Jaxpr | ClosedJaxpr | None:
    """Return the jaxpr that a call runs on its own inputs; `None` for an operation."""
    bodies = [value for value in equation.params.values() if isinstance(value, Jaxpr | ClosedJaxpr)]
    if len(bodies) != 1 or equation.primitive.name in ("while", "shard_map"):
        return None
    inner = bodies[0].jaxpr if isinstance(bodies[0], ClosedJaxpr) else bodies[0]
    fits = len(inner.invars) == len(equation.invars) and len(inner.outvars) == len(equation.outvars)
    return bodies[0] if fits else None


def _constant(equation: Any, inputs: list[Value]) -> list[Value]:
    """Return outputs that don't depend on the input: computed when asked for, if all inputs are known."""
    if any(value.known is None for value in inputs):
        return [Value(None)] * len(equation.outvars)

    @functools.cache
    def compute() -> list[Any]:
        with jax.ensure_compile_time_eval():
            made = equation.primitive.bind(*(value.known() for value in inputs if value.known), **equation.params)
        return list(made) if equation.primitive.multiple_results else [made]

    return [Value(None, lambda number=number: compute()[number]) for number in range(len(equation.outvars))]


def _index(value: Value, step: int) -> Value:
    """Return the element that a scan reads in one step."""
    known, span = value.known, value.span
    return Value(
        None if span is None else span.take(0, np.array([step, step])).over([0]),
        None if known is None else lambda: known()[step],
    )


def _stacked(line: Sequence[Value]) -> Value:
    """Return what a scan makes of the values of all its steps."""
    spans = [value.span for value in line]
    some = next((span for span in spans if span is not None), None)
    return Value(None if some is None else stack([some if span is None else span for span in spans]))
