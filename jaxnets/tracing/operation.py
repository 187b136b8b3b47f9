"""A traced program as a flat list of operations, and the values that pass between them."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp

Path = tuple[str, ...]  # names of the layers, outermost first


class Value:
    """An array of the program.

    Attributes:
        aval: its shape and dtype.
        path: the layer that made it.
        source: what it depends on: "input" (or a key), otherwise "params", otherwise "constant"; in a replay, "" for
            the output of an operation.
        known: a function that computes the array, for constants and values computed from constants alone.
    """

    __slots__ = ("aval", "known", "path", "source")

    def __init__(self, aval: Any, path: Path = (), source: str = "", known: Callable[[], Any] | None = None) -> None:
        self.aval: Any = aval
        self.path: Path = path
        self.source: str = source
        self.known: Callable[[], Any] | None = known

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape; `()` for anything but an array, such as a token."""
        return getattr(self.aval, "shape", ())

    @property
    def is_floating(self) -> bool:
        """Whether it has real or complex floating-point numbers."""
        return jnp.issubdtype(self.aval.dtype, jnp.inexact)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.aval.shape)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.size * self.aval.dtype.itemsize


class Place(NamedTuple):
    """Where an operation is in the program.

    Attributes:
        path: the layer.
        times: how often the operation runs.
        known: whether `times` is known; it is not inside a loop of unknown length.
        transposed: whether the operation is the transpose of a linear operation.
        pooled: whether it is a step of `adaptive_avg_pool`, which averages by a matrix product where bins overlap.
        turns: in an unrolled program, the iteration of each enclosing loop, outermost first.
    """

    path: Path = ()
    times: int = 1
    known: bool = True
    transposed: bool = False
    pooled: bool = False
    turns: tuple[int, ...] = ()


class Operation(NamedTuple):
    """One operation of the program.

    Attributes:
        name: the name of the primitive, or one of five that represent opened loops and branches: "scan_slice" takes
            one step's slice of an input, "scan_stack" stacks the outputs of the steps, "carry" is what a step receives
            from the previous one, "choice" selects the result of one branch, and "shard" splits or joins arrays at a
            `shard_map`.
        params: the parameters of the primitive.
        inputs: the values it reads.
        outputs: the values it makes.
        place: where it is in the program.
        equation: JAX's equation; `None` for the five above.
        after: values that are needed before it can run, although its outputs do not depend on them: the carries of a
            scan whose outputs it stacks.
    """

    name: str
    params: Mapping[str, Any]
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    place: Place
    equation: Any = None
    after: Sequence[Value] = ()

    @property
    def path(self) -> Path:
        """The layer of the operation."""
        return self.place.path

    @property
    def times(self) -> int:
        """How often it runs."""
        return self.place.times


@dataclass(frozen=True, eq=False)
class Program:
    """A traced function.

    Attributes:
        operations: all operations in order, with calls, loops and branches opened.
        inputs: the leaves of the function's arguments.
        outputs: the leaves of its results.
    """

    operations: Sequence[Operation]
    inputs: Sequence[Value]
    outputs: Sequence[Value]

    @functools.cached_property
    def maker(self) -> dict[Value, Operation]:
        """The operation that made each value."""
        return {value: operation for operation in self.operations for value in operation.outputs}

    @functools.cached_property
    def readers(self) -> dict[Value, list[Operation | None]]:
        """The operations that read each value and that the outputs need; `None` for the program's output itself."""
        found: dict[Value, list[Operation | None]] = {value: [None] for value in self.outputs}
        # From the last operation back: only what leads to an output counts.
        for operation in reversed(self.operations):
            if any(value in found for value in operation.outputs):
                for value in (*operation.inputs, *operation.after):
                    found.setdefault(value, []).append(operation)
        return found
