"""One operation of a traced program, and the values between operations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Path = tuple[str, ...]  # the names of the layers, the outermost first


class Value:
    """An array of the program: its `aval` (shape and dtype), the layer that made it, and what it is if none did.

    `source` is "params", "state", "input" or "constant" where no operation made it, and "" elsewhere; `data` are the
    numbers of a constant.
    """

    __slots__ = ("aval", "data", "path", "source")

    def __init__(self, aval: Any, path: Path = (), source: str = "", data: Any = None) -> None:
        self.aval, self.path, self.source, self.data = aval, path, source, data

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.aval.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return self.size * self.aval.dtype.itemsize


class Place(NamedTuple):
    """Where an operation stands.

    Attributes:
        path: the layer.
        times: how often it runs.
        known: whether that is so; in a loop of unknown length it is not.
        transposed: whether it came out of the transposition of a linear operation.
        pooled: whether it is a step of a pool: a pool into bins that don't divide the axis is a product with averages.
    """

    path: Path = ()
    times: int = 1
    known: bool = True
    transposed: bool = False
    pooled: bool = False


class Operation(NamedTuple):
    """One operation of the program.

    Attributes:
        name: of the primitive; "scan_slice", "carry" and "scan_stack" are what a scan does with its inputs, its
            carries and its outputs, "shard" what a shard map does with either.
        params: of the primitive.
        inputs: what it reads.
        outputs: what it makes.
        place: where it stands.
        equation: that of JAX, if it is one.
    """

    name: str
    params: Mapping[str, Any]
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    place: Place
    equation: Any = None

    @property
    def path(self) -> Path:
        """The layer in which it stands."""
        return self.place.path

    @property
    def times(self) -> int:
        """How often it runs."""
        return self.place.times
