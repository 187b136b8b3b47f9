"""A walk over a traced program that follows which part of the input each array depends upon, layer by layer."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.core.errors import is_traced
from jaxnets.tracing import jaxprs
from jaxnets.tracing.span_rules import RULES, Step, elementwise
from jaxnets.tracing.spans import Span, stack, union

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
        assumed: primitives without a rule that were taken to work element by element.
    """

    def __init__(self) -> None:
        self.layers: dict[Path, Span] = {}
        self.unknown: set[str] = set()
        self.assumed: set[str] = set()

    def run(self, body: Jaxpr | ClosedJaxpr, inputs: Sequence[Value], path: Path) -> list[Value]:
        """Return the outputs of a jaxpr that stands in the layer `path`."""
        inner, constants = jaxprs.opened(body)
        values = dict(zip(inner.invars, (each._replace(path=path) for each in inputs), strict=True))
        for var, constant in zip(inner.constvars, constants):  # one that a trace around this one makes is not known
            values[var] = Value(None, None if is_traced(constant) else lambda c=constant: c, path)

        def read(atom: Any, place: Path) -> Value:
            if isinstance(atom, Literal):
                return Value(None, lambda: np.asarray(atom.val))
            self._leave(values[atom], place)
            return values[atom]

        for equation in inner.eqns:
            scopes = [name for name, is_scope in jaxprs.name_stack(equation) if is_scope]
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
        name = equation.primitive.name
        if name == "scan":
            return self._scan(jaxprs.scan_parts(equation), inputs, place)
        if name == "cond":
            return self._cond(jaxprs.branches_of(equation), inputs, place)
        if name != "shard_map" and (body := jaxprs.body_of(equation)) is not None:
            return self.run(body, inputs, place)
        spans = [value.span for value in inputs]
        if not any(spans):
            return _constant(equation, inputs)
        given, shapes = ([getattr(v.aval, "shape", ()) for v in vs] for vs in (equation.invars, equation.outvars))
        step = Step(equation.params, spans, [value.known for value in inputs], given, shapes)
        if name not in RULES and jaxprs.is_elementwise(equation):
            self.assumed.add(name)
            made = [elementwise(spans, shape) for shape in shapes]
        else:
            made = RULES[name](step) if name in RULES else None
        if made is None:
            self.unknown.add(name)
            made = [union([span.everything(shape) for span in spans if span]) for shape in shapes]
        return [Value(span) for span in made]

    def _scan(self, scan: jaxprs.Scan, inputs: list[Value], place: Path) -> list[Value]:
        fixed, carry, stacked = scan.inputs(inputs)
        steps = range(scan.length)
        each: list[list[Value]] = []
        for step in reversed(steps) if scan.reverse else steps:
            slices = [_index(value, step) for value in stacked]
            carry, made = scan.outputs(self.run(scan.body, [*fixed, *carry, *slices], place))
            each.append(made)
        if scan.reverse:
            each.reverse()
        return [*carry, *(_stacked(line) for line in zip(*each, strict=True))]

    def _cond(self, branches: Sequence[ClosedJaxpr], inputs: list[Value], place: Path) -> list[Value]:
        choice = inputs[0]
        if choice.known is not None and len(branches) > 1:
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


def _constant(equation: Any, inputs: list[Value]) -> list[Value]:
    """Return outputs that don't depend on the input: computed when asked for, if all inputs are known."""
    if any(value.known is None for value in inputs):
        return [Value(None)] * len(equation.outvars)

    @functools.cache
    def compute() -> list[Any]:
        with jax.ensure_compile_time_eval():
            return jaxprs.bind(equation, *(value.known() for value in inputs if value.known))

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
