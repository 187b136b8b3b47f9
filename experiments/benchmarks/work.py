"""The work that a row asks of every contestant, and the contestants that do it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from experiments.benchmarks.architecture import Layers, multiply_adds, parameters

Net = Any


class Unsuited(Exception):
    """A contestant that can't do a piece of work, and why."""


@dataclass(frozen=True)
class Work:
    """A network to train on data by mini-batches.

    The loss is the cross entropy of integer targets, for sequences of them the mean over all positions, and the mean
    squared error of other targets.

    Attributes:
        layers: the network.
        x: inputs `(examples, *shape)`, float32, channels last; or tokens `(examples, time)`, int32.
        y: targets `(examples, ...)`.
        batch_size: examples a step.
        optimizer: with a rate of 1e-3; "momentum" is gradient descent with a momentum of 0.9.
        epochs: how often a turn visits every example.
        precision: of the arithmetic; parameters are float32.
        net: makes ours if `jn.models` has it; default: built from `layers`.
        tokens: for a row of decoding: by how many tokens a turn continues each text of `x`.
    """

    layers: Layers
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    optimizer: Literal["adam", "sgd", "momentum"] = "adam"
    epochs: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    net: Callable[[], Net] | None = None
    tokens: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an example."""
        return self.x.shape[1:]

    @property
    def steps(self) -> int:
        """The number of steps per turn."""
        return self.epochs * -(-len(self.x) // self.batch_size)

    @property
    def classifies(self) -> bool:
        """Whether targets are classes."""
        return np.issubdtype(self.y.dtype, np.integer)

    def in_float32(self, name: str) -> None:
        """Check that the work is in float32, as some contestants support nothing else here."""
        if self.precision != "float32":
            raise Unsuited(f"{name} takes part in float32 alone")

    def batches(self, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the indices of a turn's batches, shuffled for each epoch; an epoch's last may be smaller."""
        for _ in range(self.epochs):
            order = generator.permutation(len(self.x)).astype(np.int32)
            yield from (order[place : place + self.batch_size] for place in range(0, len(order), self.batch_size))

    def first(self, examples: int) -> "Work":
        """Return the same work with fewer examples, for tests."""
        return replace(self, x=self.x[:examples], y=self.y[:examples], batch_size=min(self.batch_size, examples))


@dataclass(frozen=True)
class Contestant:
    """A contestant ready to do a row's work.

    Attributes:
        work: that it is ready for.
        turn: does it once and waits for it.
        parameters: how many the network has, as built.
        multiply_adds: of a forward pass over one batch, as traced.
        biases: how many bias vectors its recurrent cells have.
        trials: how many networks it trains.
    """

    work: Work
    turn: Callable[[], object]
    parameters: int
    multiply_adds: int
    biases: Mapping[str, int]
    trials: int = 1

    def check(self) -> None:
        """Check that it built the network that was described, by arithmetic.

        Raises:
            ValueError: if parameters or multiply-adds differ.
        """
        layers, shape = self.work.layers, self.work.shape
        expected = parameters(layers, shape, self.biases)
        if self.parameters != expected:
            raise ValueError(f"expects {expected:,} parameters, got {self.parameters:,}")
        expected = self.work.batch_size * multiply_adds(layers, shape)
        if self.multiply_adds != expected:
            raise ValueError(f"expects {expected:,} multiply-adds, got {self.multiply_adds:,}")
