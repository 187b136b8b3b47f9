"""How Grain reads batches of a source, from any place on: in which order, by how many hands."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any, Protocol

import jax
import numpy as np

from jaxnets.data.arrays import Arrays
from jaxnets.data.batch import Batch
from jaxnets.errors import NetError

Transform = Callable[[np.random.Generator, Any], Any]


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
        epochs: how often every example is seen; `None` never ends.
        shuffle: whether to draw an order.
        transforms: what each example goes through on the host.
        workers: processes that read.
        threads: that read, in each process.
    """

    source: Source | Arrays
    batch_size: int
    seed: int
    epochs: int | None
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

    def open(self, position: int) -> Any:
        """Return Grain's iterator over the batches from a position on, on the host."""
        import grain

        whole = self._whole()
        read = self._order()
        if whole is None:
            read = read.map(self.source.__getitem__)
        for transform in self.transforms:
            read = read.random_map(_Turned(transform))
        read = read.batch(self.batch_size, drop_remainder=False, batch_fn=_Filled(self.batch_size, whole))
        read = read.repeat(self.epochs)[position:]
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
        example, generator = self.source[0], np.random.default_rng(0)
        for transform in self.transforms:
            example = transform(generator, example)
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


class _Turned:
    """A transform with its arguments in Grain's order."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, example: Any, generator: np.random.Generator) -> Any:
        return self.transform(generator, example)


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
        elif not isinstance(rows[0], tuple) or len(rows[0]) not in (2, 3):
            raise NetError(f"expects examples (x, y), got {type(rows[0]).__name__}", label="stream")
        else:
            x, y, *own = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        weights = (np.arange(self.size) < len(examples)).astype(np.float32)
        return Batch(x, y, weights * np.asarray(own[0], np.float32) if own else weights)
