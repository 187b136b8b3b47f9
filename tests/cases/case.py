"""A row of the table that every network is tested by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxnets import Net


@dataclass(frozen=True)
class Case:
    """A network to test.

    Attributes:
        name: unique, and the name of the golden file; may hold slashes.
        make: makes the network.
        x: an input, a pytree of NumPy arrays with the batch axis first, batch of at least 3.
        random: whether training draws random numbers (then a missing key must be an error).
        differentiable: whether gradients are to agree with finite differences.
        half: whether bfloat16 input gives bfloat16 output.
    """

    name: str
    make: Callable[[], Net]
    x: Any
    random: bool = False
    differentiable: bool = True
    half: bool = True

    def __str__(self) -> str:
        return self.name
