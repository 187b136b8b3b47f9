"""A jaxpr as a flat list of operations: calls, loops and branches opened, each with its layer and how often it runs."""

from collections.abc import Iterable
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.inspect.costs import flops_of, has_rule
from jaxnets.inspect.operation import Operation, Path, Place, Value

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
        inner, constants = (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())
        values = dict(zip(inner.invars, inputs, strict=True))
        values |= {var: Value(var.aval, place.path, "constant", data) for var, data in zip(inner.constvars, constants)}

        def read(atom: Any) -> Value:
            return Value(atom.aval, place.path, "constant", atom.val) if isinstance(atom, Literal) else values[atom]

        for equation in inner.eqns:
            made = self._made(equation, [*map(read, equation.invars)], inside(place, equation))
            values |= dict(zip(equation.outvars, made, strict=True))
        return [*map(read, inner.outvars)]

    def _made(self, equation: Any, given: list[Value], place: Place) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        if name == "scan":
            return self._scan(params, given, equation.outvars, place)
        if name == "while":
            return self._while(params, given, place)
        if name == "cond":
            return self._cond(params, given, place)
        if (body := body_of(equation)) is None:
            made = [Value(var.aval, place.path) for var in equation.outvars]
            self.operations.append(Operation(name, params, given, made, place, equation.primitive))
            return made
        if name != "shard_map":
            return self.open(body, given, place)
        shards = [Value(var.aval, place.path) for var in body.invars]  # one device's part of each input
        self.operations.append(Operation("shard", {}, given, shards, place))
        parts = self.open(body, shards, place._replace(times=place.times * params["mesh"].size))
        whole = [Value(var.aval, part.path) for var, part in zip(equation.outvars, parts, strict=True)]
        self.operations.append(Operation("shard", {}, parts, whole, place))
        return whole

    def _scan(self, params: Any, given: list[Value], outvars: Any, place: Place) -> list[Value]:
        consts, carries = params["num_consts"], params["num_carry"]
        fixed, started, stacked = given[:consts], given[consts : consts + carries], given[consts + carries :]
        slices = [Value(var.aval, place.path) for var in params["jaxpr"].jaxpr.invars[consts + carries :]]
        for whole, part in zip(stacked, slices, strict=True):
            self.operations.append(Operation("unstack", {}, [whole], [part], place))
        inputs = [*fixed, *self._carry(started, given, place), *slices]
        made = self.open(params["jaxpr"], inputs, place._replace(times=place.times * params["length"]))
        stacks = [Value(var.aval, one.path) for var, one in zip(outvars[carries:], made[carries:], strict=True)]
        for one, whole in zip(made[carries:], stacks, strict=True):  # each step needs the carries of the one before
            self.operations.append(Operation("stack", {}, [one, *made[:carries]], [whole], place))
        return [*made[:carries], *stacks]  # a carry of the last step is the loop's

    def _carry(self, started: list[Value], given: list[Value], place: Place) -> list[Value]:
        """Return what the steps of a loop get from the one before: it depends on all that the loop is given."""
        carried = [Value(value.aval, place.path) for value in started]
        for start, value in zip(started, carried, strict=True):
            self.operations.append(Operation("carry", {}, [start, *given], [value], place))
        return carried

    def _while(self, params: Any, given: list[Value], place: Place) -> list[Value]:
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        asked, fixed, started = given[: split[0]], given[split[0] : split[1]], given[split[1] :]
        trips, known = (1, False) if self.trips is None else (self.trips, place.known)
        carried = self._carry(started, given, place)
        question = place._replace(times=place.times * (trips + 1), known=known)
        self.open(params["cond_jaxpr"], [*asked, *carried], question)
        return self.open(params["body_jaxpr"], [*fixed, *carried], question._replace(times=place.times * trips))

    def _cond(self, params: Any, given: list[Value], place: Place) -> list[Value]:
        branches, platforms = params["branches"], params.get("branches_platforms")
        if platforms is not None:  # the branch for any platform that has no other
            return self.open(branches[platforms.index(None) if None in platforms else -1], given[1:], place)
        walks = [Walk(self.trips) for _ in branches]
        made = [walk.open(branch, given[1:], place) for walk, branch in zip(walks, branches, strict=True)]
        costs = [sum((flops_of(each) or 0) * each.times for each in walk.operations) for walk in walks]
        dearest = costs.index(max(costs))
        self.operations += walks[dearest].operations
        return made[dearest]


def inside(place: Place, equation: Any) -> Place:
    """Return the place of an equation of a jaxpr that stands at `place`."""
    stack = equation.source_info.name_stack.stack
    turned = equation.primitive.name == TRANSPOSED or any(
        type(part).__name__ == "Transform" and part.name == "transpose" for part in stack
    )
    pooled = equation.params.get("name") == POOL and "jaxpr" in equation.params
    return place._replace(
        path=_path(place.path, stack), transposed=place.transposed or turned, pooled=place.pooled or pooled
    )


def body_of(equation: Any) -> Jaxpr | ClosedJaxpr | None:
    """Return the jaxpr that a call runs on its own inputs; `None` for an operation."""
    if has_rule(equation.primitive.name):  # a reduction carries the jaxpr of its two-argument function
        return None
    bodies = [value for value in equation.params.values() if isinstance(value, Jaxpr | ClosedJaxpr)]
    if len(bodies) != 1:
        return None
    inner = bodies[0].jaxpr if isinstance(bodies[0], ClosedJaxpr) else bodies[0]
    fits = len(inner.invars) == len(equation.invars) and len(inner.outvars) == len(equation.outvars)
    return bodies[0] if fits else None


def _path(path: Path, stack: tuple[Any, ...]) -> Path:
    """Return the path that a name stack leads to from `path`.

    A backward pass under `jax.checkpoint` names its place twice, `transpose(jvp(layer1))/jvp(layer1)`.
    """
    inner: Path = ()
    part: Path = ()
    for each in stack:
        if type(each).__name__ == "Scope":
            if each.name != "rematted_computation":
                part = (*part, each.name)
        else:
            inner, part = _join(inner, part), ()
    return path + _join(inner, part)


def _join(path: Path, part: Path) -> Path:
    return part if path and part[: len(path)] == path else path + part
