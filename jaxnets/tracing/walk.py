"""A jaxpr as a flat list of operations: calls, loops and branches opened, each with its layer and how often it runs."""

from collections.abc import Iterable, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.tracing import jaxprs
from jaxnets.tracing.costs import flops_of
from jaxnets.tracing.operation import Operation, Path, Place, Value

TRANSPOSED = "conv_to_input"  # the primitive of `ops.trilinear` that transposed convolutions are
POOL = "adaptive_avg_pool"  # the function of `ops.pool` that takes averages by a product where bins overlap


class Walk:
    """Opens jaxprs: collects their operations, with values in place of variables.

    A call gives its operations, and so does a scan, as often as it is long; a `while` runs `trips` times, or once,
    marked as not known. Of the branches of a `cond` the dearest is taken; of those for platforms, the one for all
    others.
    """

    def __init__(self, trips: int | None) -> None:
        self.trips = trips
        self.operations: list[Operation] = []

    def open(self, jaxpr: Jaxpr | ClosedJaxpr, inputs: Iterable[Value], place: Place) -> list[Value]:
        """Append the operations of a jaxpr that stands at a place, and return its outputs."""
        inner, constants = jaxprs.opened(jaxpr)
        values = dict(zip(inner.invars, inputs, strict=True))
        values |= {var: Value(var.aval, place.path, "constant", data) for var, data in zip(inner.constvars, constants)}

        def read(atom: Any) -> Value:
            return Value(atom.aval, place.path, "constant", atom.val) if isinstance(atom, Literal) else values[atom]

        for equation in inner.eqns:
            made = self._made(equation, [*map(read, equation.invars)], inside(place, equation))
            values |= dict(zip(equation.outvars, made, strict=True))
        return [*map(read, inner.outvars)]

    def _made(self, equation: Any, given: list[Value], place: Place) -> list[Value]:
        name = equation.primitive.name
        if name == "scan":
            return self._scan(jaxprs.scan_parts(equation), given, equation.outvars, place)
        if name == "while":
            return self._while(jaxprs.while_parts(equation), given, place)
        if name == "cond":
            return self._cond(jaxprs.branches_of(equation), given, place)
        if (body := jaxprs.body_of(equation)) is None:
            made = [Value(var.aval, place.path) for var in equation.outvars]
            self.operations.append(Operation(name, equation.params, given, made, place, equation))
            return made
        if name != "shard_map":
            return self.open(body, given, place)
        inner, _ = jaxprs.opened(body)
        shards = [Value(var.aval, place.path) for var in inner.invars]  # one device's part of each input
        self.operations.append(Operation("shard", {}, given, shards, place))
        parts = self.open(body, shards, place._replace(times=place.times * jaxprs.shards_of(equation)))
        whole = [Value(var.aval, part.path) for var, part in zip(equation.outvars, parts, strict=True)]
        self.operations.append(Operation("shard", {}, parts, whole, place))
        return whole

    def _scan(self, scan: jaxprs.Scan, given: list[Value], outvars: Any, place: Place) -> list[Value]:
        fixed, started, stacked = scan.inputs(given)
        slices = [Value(var.aval, place.path) for var in scan.inputs(scan.body.jaxpr.invars)[2]]
        for whole, part in zip(stacked, slices, strict=True):
            self.operations.append(Operation("scan_slice", {}, [whole], [part], place))
        inputs = [*fixed, *self._carry(started, given, place), *slices]
        made = self.open(scan.body, inputs, place._replace(times=place.times * scan.length))
        carried, ones = scan.outputs(made)
        stacks = [Value(var.aval, one.path) for var, one in zip(scan.outputs(outvars)[1], ones, strict=True)]
        for one, whole in zip(ones, stacks, strict=True):  # each step needs the carries of the one before
            self.operations.append(Operation("scan_stack", {}, [one, *carried], [whole], place))
        return [*carried, *stacks]  # a carry of the last step is the loop's

    def _carry(self, started: list[Value], given: list[Value], place: Place) -> list[Value]:
        """Return what the steps of a loop get from the one before: it depends on all that the loop is given."""
        carried = [Value(value.aval, place.path) for value in started]
        for start, value in zip(started, carried, strict=True):
            self.operations.append(Operation("carry", {}, [start, *given], [value], place))
        return carried

    def _while(self, loop: jaxprs.While, given: list[Value], place: Place) -> list[Value]:
        asked, fixed, started = loop.inputs(given)
        trips, known = (1, False) if self.trips is None else (self.trips, place.known)
        carried = self._carry(started, given, place)
        question = place._replace(times=place.times * (trips + 1), known=known)
        self.open(loop.question, [*asked, *carried], question)
        return self.open(loop.body, [*fixed, *carried], question._replace(times=place.times * trips))

    def _cond(self, branches: Sequence[ClosedJaxpr], given: list[Value], place: Place) -> list[Value]:
        if len(branches) == 1:
            return self.open(branches[0], given[1:], place)
        walks = [Walk(self.trips) for _ in branches]
        made = [walk.open(branch, given[1:], place) for walk, branch in zip(walks, branches, strict=True)]
        costs = [sum((flops_of(each) or 0) * each.times for each in walk.operations) for walk in walks]
        dearest = costs.index(max(costs))
        self.operations += walks[dearest].operations
        return made[dearest]


def inside(place: Place, equation: Any) -> Place:
    """Return the place of an equation of a jaxpr that stands at `place`."""
    stack = jaxprs.name_stack(equation)
    turned = equation.primitive.name == TRANSPOSED or ("transpose", False) in stack
    pooled = jaxprs.called(equation) == POOL
    return place._replace(
        path=_path(place.path, stack), transposed=place.transposed or turned, pooled=place.pooled or pooled
    )


def _path(path: Path, stack: Sequence[tuple[str, bool]]) -> Path:
    """Return the path that a name stack leads to from `path`.

    A backward pass under `jax.checkpoint` names its place twice, `transpose(jvp(layer1))/jvp(layer1)`.
    """
    inner: Path = ()
    part: Path = ()
    for name, is_scope in stack:
        if is_scope:
            if name != "rematted_computation":
                part = (*part, name)
        else:
            inner, part = _join(inner, part), ()
    return path + _join(inner, part)


def _join(path: Path, part: Path) -> Path:
    return part if path and part[: len(path)] == path else path + part
