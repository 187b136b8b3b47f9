"""The interpreter of jaxprs, which opens calls, scans, while loops and branches.

Subclasses define what a value is (a shape, an array) and what happens at a single operation:

- `flatten.Unrolled` collects operations on shapes, every step of a scan separately: for receptive fields, and to find
  whether examples or time steps mix (`reach`).
- `flatten.Rolled` collects the body of each loop once, and how often it runs: for counts (`costs`, `layers`) and
  connections (`reach`).
- `replay.Replay` evaluates operations on arrays: for the search for the first non-finite value.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.tracing import jaxprs
from jaxnets.tracing.operation import Path, Place

T = TypeVar("T")

# The primitive of `ops.conv.primitives` that computes transposed convolutions.
TRANSPOSED = "conv_to_input"
# The function of `ops.pool` that averages by a matrix product where bins overlap.
POOL = "adaptive_avg_pool"


class Interpreter(Generic[T]):
    """Evaluates jaxprs operation by operation on values of type `T`; loops run iteration by iteration.

    Attributes:
        skips_unused: whether equations that no output needs are left out.
        on_this_platform: whether to choose, of branches that depend on the platform, this machine's, not the default.
    """

    skips_unused = False
    on_this_platform = False

    def _constant(self, data: Any, place: Place) -> T:
        """Return a constant of the program as a value."""
        raise NotImplementedError

    def _operation(self, equation: Any, inputs: list[T], place: Place) -> list[T]:
        """Return the outputs of an equation that is not opened."""
        raise NotImplementedError

    def _slice(self, stacked: T, step: int, place: Place) -> T:
        """Return the part of a stacked input that one step of a scan reads."""
        raise NotImplementedError

    def _stack(self, rows: list[T], aval: Any, place: Place) -> T:
        """Return the stacked output of a scan, of shape and dtype `aval`, from the outputs of its steps."""
        raise NotImplementedError

    def _concrete(self, value: T) -> Any:
        """Return the array of a value; `None` if it is not known."""
        raise NotImplementedError

    def _choose(self, index: T, branches: list[list[T]], place: Place) -> list[T]:
        """Return the outputs of a `cond` whose index is not known, from the outputs of all branches."""
        raise NotImplementedError

    def run(self, jaxpr: Jaxpr | ClosedJaxpr, inputs: Iterable[T], place: Place) -> list[T]:
        """Return the outputs of a jaxpr at `place`."""
        inner, constants = jaxprs.opened(jaxpr)
        values = dict(zip(inner.invars, inputs, strict=True))
        values |= {var: self._constant(data, place) for var, data in zip(inner.constvars, constants, strict=True)}

        def read(atom: Any) -> T:
            return self._constant(atom.val, place) if isinstance(atom, Literal) else values[atom]

        for equation, done in self._schedule(inner):
            outputs = self._equation(equation, [*map(read, equation.invars)], place_of(equation, place))
            values |= dict(zip(equation.outvars, outputs, strict=True))
            # Free arrays that are not read again.
            for var in done:
                del values[var]
        return [*map(read, inner.outvars)]

    def _schedule(self, jaxpr: Jaxpr) -> Iterator[tuple[Any, set[Any]]]:
        """Return the equations to evaluate, each with the variables that it is the last to read."""
        # From the last equation back: a variable that no later equation reads is read for the last time.
        schedule, read = [], {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
        for equation in reversed(jaxpr.eqns):
            # An equation is needed if a later one, or an output, reads one of its outputs.
            if not self.skips_unused or not read.isdisjoint(equation.outvars):
                last = {atom for atom in equation.invars if not isinstance(atom, Literal)} - read
                schedule.append((equation, last))
                read |= last
        return reversed(schedule)

    def _equation(self, equation: Any, inputs: list[T], place: Place) -> list[T]:
        name = equation.primitive.name
        opens = {"scan": self._scan, "while": self._while_loop, "cond": self._cond, "shard_map": self._shard_map}
        if name in opens:
            return opens[name](equation, inputs, place)
        # Calls such as `jit` are opened; anything else is one operation.
        body = jaxprs.body_of(equation)
        return self._operation(equation, inputs, place) if body is None else self.run(body, inputs, place)

    def _scan(self, equation: Any, inputs: list[T], place: Place) -> list[T]:
        """Run the body of a scan once for each step."""
        scan = jaxprs.scan_parts(equation)
        constants, carry, stacked = scan.inputs(inputs)
        steps, rows = range(scan.length), {}
        for step in reversed(steps) if scan.reverse else steps:
            turn = place._replace(turns=(*place.turns, step))
            slices = [self._slice(each, step, turn) for each in stacked]
            carry, rows[step] = scan.outputs(self.run(scan.body, [*constants, *carry, *slices], turn))
        _, avals = scan.outputs([var.aval for var in equation.outvars])
        # In the order of the steps, even if they ran in reverse.
        stacks = [self._stack([rows[step][k] for step in steps], aval, place) for k, aval in enumerate(avals)]
        return [*carry, *stacks]

    def _while_loop(self, equation: Any, inputs: list[T], place: Place) -> list[T]:
        """Run the body of a `while_loop` as long as its condition holds, which must be known."""
        loop = jaxprs.while_parts(equation)
        asked, constants, carry = loop.inputs(inputs)
        turn, number = place, 0
        # The condition belongs to the iteration before it.
        while bool(self._concrete(self.run(loop.condition, [*asked, *carry], turn)[0])):
            turn = place._replace(turns=(*place.turns, number))
            carry, number = self.run(loop.body, [*constants, *carry], turn), number + 1
        return carry

    def _cond(self, equation: Any, inputs: list[T], place: Place) -> list[T]:
        """Run the branch that a `cond` takes; all branches if that is not known."""
        branches = jaxprs.branches_of(equation, platforms=self.on_this_platform)
        index, *operands = inputs
        # A single branch is left if the others are for other platforms.
        number = 0 if len(branches) == 1 else self._concrete(index)
        if number is None:
            return self._choose(index, [self.run(branch, operands, place) for branch in branches], place)
        # JAX clips an index that is out of range.
        return self.run(branches[int(np.clip(number, 0, len(branches) - 1))], operands, place)

    def _shard_map(self, equation: Any, inputs: list[T], place: Place) -> list[T]:
        """Return the outputs of a `shard_map`, by default as those of one operation."""
        return self._operation(equation, inputs, place)


def place_of(equation: Any, place: Place) -> Place:
    """Return the place of an equation in a jaxpr at `place`."""
    stack = jaxprs.name_stack(equation)
    # Either of these marks a product that computes the gradient of another product.
    transposed = equation.primitive.name == TRANSPOSED or ("transpose", False) in stack
    pooled = jaxprs.called(equation) == POOL
    return place._replace(
        path=_path(place.path, stack), transposed=place.transposed or transposed, pooled=place.pooled or pooled
    )


def _path(path: Path, stack: Sequence[tuple[str, bool]]) -> Path:
    """Return `path` extended by a name stack.

    A backward pass under `jax.checkpoint` names a layer twice, `transpose(jvp(layer1))/jvp(layer1)`.
    """
    inner: Path = ()
    # The scopes since the last transformation.
    part: Path = ()
    # Transformations end a part of the stack, which may repeat the path so far.
    for name, is_scope in stack:
        if not is_scope:
            inner, part = _join(inner, part), ()
        elif name != "rematted_computation":
            # The scope that `jax.checkpoint` adds is not a layer.
            part = (*part, name)
    return path + _join(inner, part)


def _join(path: Path, part: Path) -> Path:
    return part if path and part[: len(path)] == path else path + part
