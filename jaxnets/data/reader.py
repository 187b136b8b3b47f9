"""Reading of batches of a source through Grain, from any position: the order, the transforms, the workers."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
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
    """The examples of one training step.

    Attributes:
        x: inputs, a pytree with the batch axis first.
        y: targets, a pytree with the batch axis first.
        weights: `(batch,)`, the weight of each example in the mean; 0 masks it.
    """

    x: Any
    y: Any
    weights: Any


class Source(Protocol):
    """A source of examples, with a length, that returns `(x, y)` or `(x, y, weight)` by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, ...]: ...


@dataclass(frozen=True, eq=False)
class Reading:
    """The source and the settings of a stream; `stream` describes each."""

    source: Source | Arrays
    batch_size: int
    seed: int
    shuffle: bool
    transforms: Sequence[Transform]
    workers: int
    threads: int

    @property
    def batches(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.source) // self.batch_size)

    @property
    def mark(self) -> dict[str, Any]:
        """The settings on which the meaning of a position depends, by name."""
        mine = {"seed": self.seed, "batch_size": self.batch_size}
        return mine | {"examples": len(self.source), "shuffle": self.shuffle}

    @cached_property
    def contents(self) -> dict[str, str]:
        """Fingerprints of the source and the transforms, by name; from up to 256 rows of arrays."""
        return contents(self.source, self.transforms, 256 if isinstance(self.source, Arrays) else 8)

    def open(self, position: int, end: int | None) -> Any:
        """Return Grain's iterator over the batches from a position to an end, on the host."""
        import grain

        # The numbers of the examples in an epoch's order; each stage below is lazy.
        read = self._order()
        if self._arrays is None:
            read = read.map(partial(read_example, self.source))
        for transform in self.transforms:
            read = read.random_map(partial(_transformed, transform))
        read = read.batch(self.batch_size, drop_remainder=False, batch_fn=self._fill)
        read = read.repeat(None)[position:end]
        read = read.to_iter_dataset(grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=2 * self.threads))
        if self.workers:
            from absl import flags

            # Grain reads an absl flag, which is only parsed in programs that run under absl's `app`.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=2)
            read = read.mp_prefetch(options, _serve)
        return iter(read)

    def numbers(self, position: int) -> list[int]:
        """Return the numbers of the examples in the batch at a position."""
        read = self._order().batch(self.batch_size, drop_remainder=False, batch_fn=list).repeat(None)
        return [int(number) for number in read[position]]  # pyright: ignore

    def first(self) -> Batch:
        """Return a batch of copies of the source's first example, which has the shapes and dtypes of every batch."""
        return self._fill([self._example() if self._arrays is None else 0])

    @property
    def weighted(self) -> bool:
        """Whether examples have weights, by the first one."""
        _, example = self._example()
        return isinstance(example, tuple) and len(example) == 3

    def _example(self) -> "Numbered":
        generator, example = np.random.default_rng(0), read_example(self.source, 0)
        for transform in self.transforms:
            example = _transformed(transform, example, generator)
        return example

    def _order(self) -> Any:
        import grain

        read = grain.MapDataset.range(len(self.source)).seed(self.seed)
        return read.shuffle() if self.shuffle else read

    @property
    def _arrays(self) -> Arrays | None:
        """The arrays, if they can be indexed for a whole batch at once."""
        at_once = isinstance(self.source, Arrays) and self.source.takes_several and not self.transforms
        return self.source if at_once else None  # pyright: ignore

    @property
    def _fill(self) -> Callable[[Sequence[Any]], Batch]:
        return partial(_fill_batch, self.batch_size, self._arrays)


def _serve(number: int, workers: int) -> None:
    """Set up a worker process: ignore Ctrl-C, and exit when the main process has ended, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    master = multiprocessing.parent_process()
    assert master is not None

    def follow() -> None:
        master.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


class Numbered(NamedTuple):
    """An example `(x, y)` or `(x, y, weight)` with its number in the source."""

    number: int
    example: Any


@contextmanager
def _naming(what: str, number: int) -> Iterator[None]:
    """Convert any exception to a `NetError` that names the example."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, NetError) else f"{type(error).__name__}: "
        raise NetError(f"can't {what} example {number}: {kind}{error}", label="stream") from error


def read_example(source: Any, number: int) -> Numbered:
    """Return an example of a source with its number; an error names it."""
    with _naming("read", number):
        return Numbered(number, source[number])


def _transformed(transform: Transform, each: Numbered, generator: np.random.Generator) -> Numbered:
    with _naming("transform", each.number):
        return Numbered(each.number, transform(generator, each.example))


def _fill_batch(size: int, arrays: Arrays | None, examples: Sequence[Any]) -> Batch:
    """Stack examples into a batch, and fill it by repeating them with weight 0.

    With `arrays`, the examples are still row numbers, and are read all at once.
    """
    rows = [examples[row % len(examples)] for row in range(size)]
    if arrays is not None:
        x, y, *own = arrays[np.array(rows)]
    else:
        check_alike(examples)
        x, y, *own = jax.tree.map(lambda *leaves: np.stack(leaves), *(row.example for row in rows))
    weights = (np.arange(size) < len(examples)).astype(np.float32)
    if not own:
        return Batch(x, y, weights)
    weights = weights * np.asarray(own[0], np.float32)
    return Batch(_weighted(x, weights > 0), y, weights)


def check_alike(examples: Sequence[Numbered]) -> None:
    """Check that examples are pairs or triples of one structure, with arrays of one shape and dtype.

    Raises:
        NetError: if one is not, with its number.
    """
    want: dict[str, str] = {}
    for number, example in examples:
        if not isinstance(example, tuple) or len(example) not in (2, 3):
            hint = "; jn.data.columns(source, inputs, targets) names them" if isinstance(example, Mapping) else ""
            raise NetError(
                f"expects examples (x, y), got {type(example).__name__} for example {number}{hint}", label="stream"
            )
        found = form(example)
        want = want or found
        if found != want:
            raise NetError(
                f"expects examples of one shape and type, got {differing(found, want)} in example {number}, "
                f"and {differing(want, found)} in example {examples[0].number}",
                label="stream",
            )


def form(example: tuple[Any, ...]) -> dict[str, str]:
    """Return the dtype and shape of each array of an example, by path; a weight may have any dtype."""
    named = dict(zip(("x", "y", "weight"), example))
    return {
        path: "one number" if path == "weight" and np.ndim(leaf) == 0 else f"{np.asarray(leaf).dtype} {np.shape(leaf)}"
        for path, leaf in paths(named).items()
    }


def differing(found: dict[str, str], other: dict[str, str]) -> str:
    """Return the entries of `found` that differ in `other`, as text."""
    return ", ".join(f"{path} {each}" for path, each in found.items() if other.get(path) != each) or "less"


def _weighted(x: Any, real: np.ndarray) -> Any:
    """Replace the inputs of weight 0 by those of another example: in a gradient, 0 · ∞ would be NaN."""
    if real.all():
        return x
    rows = np.where(real, np.arange(len(real)), real.argmax())
    return jax.tree.map(lambda leaf: leaf[rows] if real.any() else np.zeros_like(leaf), x)
