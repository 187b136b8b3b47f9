"""A jaxpr as a flat list of operations: calls, loops and branches opened, each with its layer and how often it runs."""

from collections.abc import Iterable
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.inspect.costs import flops_of, has_rule
from jaxnets.inspect.operation import Operation, Path, Value


class Walk:
    """Opens jaxprs: collects their operations, with values in place of variables.

    A call gives its operations, and so does a scan, as often as it is long; a `while` runs `trips` times, or once,
    marked as not known. Of the branches of a `cond` the dearest is taken; of those for platforms, the one for all
    others.
    """

    def __init__(self, trips: int | None) -> None:
        self.trips = trips
        self.operations: list[Operation] = []

    def open(
        self, jaxpr: Jaxpr | ClosedJaxpr, inputs: Iterable[Value], path: Path, times: int, known: bool, transposed: bool
    ) -> list[Value]:
        """Append the operations of a jaxpr that runs `times` times under `path`, and return its outputs."""
        inner, constants = (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())
        values = dict(zip(inner.invars, inputs, strict=True))
        values |= {var: Value(var.aval, path, "constant", data) for var, data in zip(inner.constvars, constants)}

        def read(atom: Any) -> Value:
            return Value(atom.aval, path, "constant", atom.val) if isinstance(atom, Literal) else values[atom]

        for equation in inner.eqns:
            name, params = equation.primitive.name, equation.params
            stack = equation.source_info.name_stack.stack
            place = _place(path, stack)
            turned = transposed or any(
                type(part).__name__ == "Transform" and part.name == "transpose" for part in stack
            )
            given, where = [*map(read, equation.invars)], (place, times, known, turned)
            if name == "scan":
                made = self._scan(params, given, equation.outvars, *where)
            elif name == "while":
                made = self._while(params, given, *where)
            elif name == "cond":
                made = self._cond(params, given, *where)
            elif (body := _body(equation)) is not None:
                made = self._call(name, params, body, given, equation.outvars, *where)
            else:
                made = [Value(var.aval, place) for var in equation.outvars]
                self.operations.append(
                    Operation(name, params, place, given, made, times, known, turned, equation.primitive)
                )
            values |= dict(zip(equation.outvars, made, strict=True))
        return [*map(read, inner.outvars)]

    def _call(
        self, name: str, params: Any, body: Any, given: list[Value], outvars: Any, path: Path, times: int, *rest: bool
    ) -> list[Value]:
        if name != "shard_map":
            return self.open(body, given, path, times, *rest)
        shards = [Value(var.aval, path) for var in body.invars]  # one device's part of each input
        self.operations.append(Operation("shard", {}, path, given, shards, times, *rest))
        parts = self.open(body, shards, path, times * params["mesh"].size, *rest)
        whole = [Value(var.aval, part.path) for var, part in zip(outvars, parts, strict=True)]
        self.operations.append(Operation("shard", {}, path, parts, whole, times, *rest))
        return whole

    def _scan(self, params: Any, given: list[Value], outvars: Any, path: Path, times: int, *rest: bool) -> list[Value]:
        consts, carries = params["num_consts"], params["num_carry"]
        fixed, stacked = given[: consts + carries], given[consts + carries :]
        slices = [Value(var.aval, path) for var in params["jaxpr"].jaxpr.invars[consts + carries :]]
        self.operations.append(Operation("unstack", {}, path, stacked, slices, times, *rest))
        made = self.open(params["jaxpr"], [*fixed, *slices], path, times * params["length"], *rest)
        carried, each = made[:carries], made[carries:]  # a carry of the last iteration is the loop's
        stacks = [Value(var.aval, one.path) for var, one in zip(outvars[carries:], each, strict=True)]
        self.operations.append(
            Operation("stack", {}, path, made, stacks, times, *rest)
        )  # every carry leads to every step
        return [*carried, *stacks]

    def _while(
        self, params: Any, given: list[Value], path: Path, times: int, known: bool, transposed: bool
    ) -> list[Value]:
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        asked, fixed, carried = given[: split[0]], given[split[0] : split[1]], given[split[1] :]
        trips, known = (1, False) if self.trips is None else (self.trips, known)
        self.open(params["cond_jaxpr"], [*asked, *carried], path, times * (trips + 1), known, transposed)
        return self.open(params["body_jaxpr"], [*fixed, *carried], path, times * trips, known, transposed)

    def _cond(self, params: Any, given: list[Value], path: Path, times: int, *rest: bool) -> list[Value]:
        branches, platforms = params["branches"], params.get("branches_platforms")
        if platforms is not None:  # the branch for any platform that has no other
            default = platforms.index(None) if None in platforms else -1
            return self.open(branches[default], given[1:], path, times, *rest)
        walks = [Walk(self.trips) for _ in branches]
        made = [walk.open(branch, given[1:], path, times, *rest) for walk, branch in zip(walks, branches, strict=True)]
        costs = [sum((flops_of(each) or 0) * each.times for each in walk.operations) for walk in walks]
        dearest = costs.index(max(costs))
        self.operations += walks[dearest].operations
        return made[dearest]


def _body(equation: Any) -> Jaxpr | ClosedJaxpr | None:
    """Return the jaxpr that a call runs on its own inputs; `None` for an operation."""
    if has_rule(equation.primitive.name):  # a reduction carries the jaxpr of its two-argument function
        return None
    bodies = [value for value in equation.params.values() if isinstance(value, Jaxpr | ClosedJaxpr)]
    if len(bodies) != 1:
        return None
    inner = bodies[0].jaxpr if isinstance(bodies[0], ClosedJaxpr) else bodies[0]
    fits = len(inner.invars) == len(equation.invars) and len(inner.outvars) == len(equation.outvars)
    return bodies[0] if fits else None


def _place(path: Path, stack: tuple[Any, ...]) -> Path:
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
