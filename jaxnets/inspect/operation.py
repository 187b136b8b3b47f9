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


class Operation(NamedTuple):
    """One operation of the program.

    Attributes:
        name: of the primitive; "stack" and "unstack" are the two ends of a scan, "shard" those of a shard map.
        params: of the primitive.
        path: the layer in which it stands.
        inputs: what it reads.
        outputs: what it makes.
        times: how often it runs.
        known: whether that is so; in a loop of unknown length it is not.
        transposed: whether it came out of the transposition of a linear operation.
        primitive: that of JAX, if it is one.
    """

    name: str
    params: Mapping[str, Any]
    path: Path
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    times: int = 1
    known: bool = True
    transposed: bool = False
    primitive: Any = None
