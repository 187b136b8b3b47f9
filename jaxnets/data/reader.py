"""How Grain reads batches of a source, from any place on: in which order, by how many hands."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Thread
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.paths import paths
from jaxnets.data.arrays import Arrays
from jaxnets.data.contents import contents

Transform = Callable[[np.random.Generator, Any], Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Examples that a step learns from.

    Attributes:
        x: inputs, a pytree with the batch axis first.
        y: targets, likewise.
        weights: `(batch,)`, the weight of each example in the mean; 0 masks it.
    """

    x: Any
    y: Any
    weights: Any


class Source(Protocol):
    """What can be streamed: a length, and examples `(x, y)` or `(x, y, weight)` by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, ...]: ...


@dataclass(frozen=True, eq=False)
class Reading:
    """What a stream reads; `stream` describes each.

    Attributes:
        source: where examples come from.
        batch_size: examples a batch.
        seed: for the order and the transforms.
        shuffle: whether to draw an order.
        transforms: what each example goes through on the host.
        workers: processes that read.
        threads: that read, in each process.
    """

    source: Source | Arrays
    batch_size: int
    seed: int
    shuffle: bool
    transforms: Sequence[Transform]
    workers: int
    threads: int

    @property
    def batches(self) -> int:
        """How many batches an epoch has."""
        return -(-len(self.source) // self.batch_size)

    @property
    def mark(self) -> dict[str, Any]:
        """What a position belongs to, by name."""
        return {
            "seed": self.seed, "batch_size": self.batch_size, "examples": len(self.source), "shuffle": self.shuffle,
        }  # fmt: skip

    @cached_property
    def contents(self) -> dict[str, str]:
        """What tells the source and the transforms from others, by name; up to 256 rows of arrays are looked at."""
        return contents(self.source, self.transforms, 256 if isinstance(self.source, Arrays) else 8)

    def open(self, position: int, end: int | None) -> Any:
        """Return Grain's iterator over the batches from a position up to an end, on the host."""
        import grain

        whole = self._whole()
        read = self._order()
        if whole is None:
            read = read.map(_Read(self.source))
        for transform in self.transforms:
            read = read.random_map(_Turned(transform))
        read = read.batch(self.batch_size, drop_remainder=False, batch_fn=_Filled(self.batch_size, whole))
        read = read.repeat(None)[position:end]
        read = read.to_iter_dataset(grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=2 * self.threads))
        if self.workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():  # Grain asks a flag of its own, which no one sets outside of absl's `app`
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=2)
            read = read.mp_prefetch(options, _serve)
        return iter(read)

    def numbers(self, position: int) -> list[int]:
        """Return the numbers of the examples in the batch at a position."""
        read = self._order().batch(self.batch_size, drop_remainder=False, batch_fn=list).repeat(None)
        return [int(number) for number in read[position]]  # pyright: ignore

    def first(self) -> Batch:
        """Return a batch of copies of the source's first example: the shapes and dtypes of all."""
        whole = self._whole()
        return _Filled(self.batch_size, whole)([self._example() if whole is None else 0])

    @property
    def weighted(self) -> bool:
        """Whether examples have weights of their own, by the first one."""
        example = self._example()
        return isinstance(example, tuple) and len(example) == 3

    def _example(self) -> Any:
        generator = np.random.default_rng(0)
        example: Any = _Read(self.source)(0)
        for transform in self.transforms:
            example = _Turned(transform)(example, generator)
        return example

    def _order(self) -> Any:
        import grain

        read = grain.MapDataset.range(len(self.source)).seed(self.seed)
        return read.shuffle() if self.shuffle else read

    def _whole(self) -> Arrays | None:
        """Return arrays that can be asked for a whole batch at once."""
        at_once = isinstance(self.source, Arrays) and self.source.takes_several and not self.transforms
        return self.source if at_once else None  # pyright: ignore


def _serve(number: int, workers: int) -> None:
    """Leave Ctrl-C to the process that this one works for, and end when that has died, of whatever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    master = multiprocessing.parent_process()
    assert master is not None

    def follow() -> None:
        master.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


class _Numbered(NamedTuple):
    """An example `(x, y)` or `(x, y, weight)`, and its number in the source."""

    number: int
    example: Any


@contextmanager
def _named(what: str, number: int) -> Iterator[None]:
    """Say which example it was, whatever is raised."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, NetError) else f"{type(error).__name__}: "
        raise NetError(f"can't {what} example {number}: {kind}{error}", label="stream") from error


class _Read:
    """A source as a function of an example's number."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __call__(self, number: int) -> _Numbered:
        with _named("read", number):
            return _Numbered(number, self.source[number])


class _Turned:
    """A transform with its arguments in Grain's order."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, each: _Numbered, generator: np.random.Generator) -> _Numbered:
        with _named("transform", each.number):
            return _Numbered(each.number, self.transform(generator, each.example))


class _Filled:
    """Examples side by side, filled up to a whole batch by repeating them with weight 0.

    With `arrays` the examples are numbers of rows yet, and are taken all at once.
    """

    def __init__(self, size: int, arrays: Arrays | None = None) -> None:
        self.size, self.arrays = size, arrays

    def __call__(self, examples: Sequence[Any]) -> Batch:
        rows = [examples[row % len(examples)] for row in range(self.size)]
        if self.arrays is not None:
            x, y, *own = self.arrays[np.array(rows)]
        else:
            check_alike(examples)
            x, y, *own = jax.tree.map(lambda *leaves: np.stack(leaves), *(row.example for row in rows))
        weights = (np.arange(self.size) < len(examples)).astype(np.float32)
        if not own:
            return Batch(x, y, weights)
        weights = weights * np.asarray(own[0], np.float32)
        return Batch(_weighted(x, weights > 0), y, weights)


def check_alike(examples: Sequence[_Numbered]) -> None:
    """Check that examples are pairs or triples, of one structure, and their arrays of one shape and type.

    Raises:
        NetError: if one is not; names it.
    """
    for number, example in examples:
        if not isinstance(example, tuple) or len(example) not in (2, 3):
            raise NetError(
                f"expects examples (x, y), got {type(example).__name__} for example {number}", label="stream"
            )
    first, like = examples[0]
    want = form(like)
    for number, example in examples[1:]:
        if (found := form(example)) != want:
            raise NetError(
                f"expects examples of one shape and type, got {differing(found, want)} in example {number}, "
                f"and {differing(want, found)} in example {first}",
                label="stream",
            )


def form(example: tuple[Any, ...]) -> dict[str, str]:
    """Return the types and shapes of an example's arrays by path; of its weight, whose type is free, there is none."""
    named = dict(zip(("x", "y", "weight"), example))
    return {
        path: "one number" if path == "weight" and np.ndim(leaf) == 0 else f"{np.asarray(leaf).dtype} {np.shape(leaf)}"
        for path, leaf in paths(named).items()
    }


def differing(found: dict[str, str], other: dict[str, str]) -> str:
    """Return what is not the same elsewhere, as text."""
    return ", ".join(f"{path} {each}" for path, each in found.items() if other.get(path) != each) or "less"


def _weighted(x: Any, real: np.ndarray) -> Any:
    """Return inputs with another example's for those of weight 0: in derivatives of a network 0 · ∞ would be NaN."""
    if real.all():
        return x
    rows = np.where(real, np.arange(len(real)), real.argmax())
    return jax.tree.map(lambda leaf: leaf[rows] if real.any() else np.zeros_like(leaf), x)
