"""A row of the table of models: what is known of a network without running it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets import Net


@dataclass(frozen=True)
class Row:
    """A model whose parameter tree is golden and whose counts are exact.

    Attributes:
        name: unique, and the name of the golden file.
        make: makes the network.
        x: the spec of an input.
        parameters: how many there are, from a paper or another library.
        multiply_adds: of one forward pass on `x`, likewise; `None` where no source has them.
    """

    name: str
    make: Callable[[], Net]
    x: Any
    parameters: int
    multiply_adds: int | None = None

    def __str__(self) -> str:
        return self.name


def image(size: int = 224, channels: int = 3) -> jax.ShapeDtypeStruct:
    """Return the spec of one square image."""
    return jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
