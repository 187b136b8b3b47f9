"""Batches of data that does not fit into memory, read ahead while the device computes."""

import importlib.util
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxnets.data.arrays import Arrays
from jaxnets.data.batch import Batch
from jaxnets.data.reading import Reading, Source, Transform
from jaxnets.errors import NetError, check_count, labelled_as


class Stream(Iterator[Batch]):
    """Batches of a source, in an order drawn by seed for each epoch; `stream` makes it.

    Between two batches its position can be saved and restored, as a small dict for JSON. It counts the batches that
    were handed out, not those that were read ahead, and does not depend on how many workers there are.

    Attributes:
        batches: how many batches an epoch has.
        reading: what is read, and how.
        inspect: called with every batch while it is on the host; it may raise.

    >>> import numpy as np
    >>> first = stream((np.arange(6.0), np.arange(6)), 2, shuffle=False)
    >>> _ = next(first)
    >>> again = stream((np.arange(6.0), np.arange(6)), 2, shuffle=False)
    >>> again.set_state(first.get_state())
    >>> [batch.y.tolist() for batch in again]
    [[2, 3], [4, 5]]
    """

    def __init__(self, reading: Reading, ahead: int, place: Any) -> None:
        self.reading, self.batches = reading, reading.batches
        self._total = None if reading.epochs is None else reading.epochs * reading.batches
        self._ahead, self._place, self._position = ahead, place, 0
        self._reader: Any = None
        self._waiting: deque[Batch] = deque()
        self.inspect: Callable[[Batch], None] | None = None

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        """Return the next batch, on the device."""
        if self._position == self._total:
            self.close()
            raise StopIteration
        while len(self._waiting) <= self._ahead:
            try:
                batch = self._read()
            except Exception:  # whatever the source or a transform raises
                self._end()
                if self._waiting:
                    break  # it is raised when its own batch is due
                raise
            if batch is None:
                break
            self._waiting.append(batch)
        self._position += 1
        return self._waiting.popleft()

    def _read(self) -> Batch | None:
        if self._reader is None:
            self._reader = self.reading.open(self._position + len(self._waiting))
            self._closing = weakref.finalize(self, self._reader.close)  # also when the program ends
        batch = next(self._reader, None)
        if batch is not None and self.inspect is not None:
            self.inspect(batch)
        return None if batch is None else jax.device_put(jax.tree.map(_owned, batch), self._place)

    def __len__(self) -> int:
        """Return how many batches are left."""
        if self._total is None:
            raise TypeError("a stream of epochs=None has no end")
        return self._total - self._position

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 0, that the next batch belongs to."""
        return self._position // self.batches

    def get_state(self) -> dict[str, Any]:
        """Return the position as a dict of numbers, for JSON, with what the stream was made with."""
        return {"position": self._position, **self.reading.mark}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream over the same data stood.

        Args:
            state: what `get_state` returned.

        Raises:
            NetError: if that stream was made with another seed, batch size, number of examples or order.
        """
        with labelled_as("stream"):
            for name, value in self.reading.mark.items():
                if state.get(name) != value:
                    raise NetError(
                        f"expects the position of a stream with {name}={value}, got one with {state.get(name)}"
                    )
            position = state.get("position")
            last = np.inf if self._total is None else self._total
            if not isinstance(position, int) or not 0 <= position <= last:
                raise NetError(f"expects a position from 0 to {last}, got {position}")
        self.close()
        self._position = position

    def again(self, position: int = 0, *, epochs: int | None = None) -> "Stream":
        """Return another stream over the same data, which stands at a position of its own.

        Args:
            position: how many batches lie behind it.
            epochs: how often every example is seen; `None` never ends.

        >>> import numpy as np
        >>> once = stream((np.arange(6.0), np.arange(6)), 2, shuffle=False)
        >>> [batch.y.tolist() for batch in once.again(2, epochs=2)]
        [[4, 5], [0, 1], [2, 3], [4, 5]]
        """
        other = Stream(replace(self.reading, epochs=epochs), self._ahead, self._place)
        other.set_state(self.get_state() | {"position": position})
        return other

    def close(self) -> None:
        """End the workers and threads, and forget what was read ahead; the next batch starts them anew."""
        self._end()
        self._waiting.clear()

    def _end(self) -> None:
        if self._reader is not None:
            self._closing()
        self._reader = None


def stream(
    source: Source | tuple[Any, ...],
    batch_size: int,
    *,
    seed: int = 0,
    epochs: int | None = 1,
    shuffle: bool = True,
    transforms: Sequence[Transform] = (),
    workers: int = 0,
    threads: int = 4,
    ahead: int = 2,
    device: Any = None,
) -> Stream:
    """Return batches of data that does not fit into memory, read through Grain and put on the device ahead of time.

    Every epoch visits every example once, in an order of its own, drawn by seed. The last batch of an epoch is
    filled up by repeating its own examples with weight 0, so that all batches have one shape and means are exact; no
    batch spans two epochs. A stream with the same arguments gives the same batches, however many workers read.

    Args:
        source: has a length and gives examples `(x, y)` by number, pytrees of arrays or numbers, or `(x, y, weight)`
            if not all count alike; `image_folder` is one. Or a tuple of arrays, or of pytrees of arrays, with the
            examples along the first axis, such as those of `np.memmap`.
        batch_size: examples a batch, at least 1 and at most all.
        seed: for the order and the transforms.
        epochs: how often every example is seen; `None` never ends.
        shuffle: whether to draw an order; without, it is the source's own.
        transforms: functions `(generator, example) -> example` on the host, in turn, of one example `(x, y)` each;
            `generator` is NumPy's, with a state of its own for each example and epoch. What is cheap on the device
            (`jn.data.augment`) is better done there.
        workers: processes that read; 0 reads in threads of this one. Processes pay where decoding is slow. They are
            started afresh (`spawn`), so a script that uses them needs `if __name__ == "__main__":`. Each gets a copy
            of the source; files mapped into memory it opens itself. Ctrl-C does not reach them, and they end with this
            process.
        threads: that read, in each process; 0 reads a batch when it is asked for.
        ahead: batches put on the device before they are asked for.
        device: where to; a `jax.Device` or `jax.sharding.Sharding`, the default device if not given.

    Returns:
        An iterator over `Batch`es of arrays on the device, with weights `(batch_size,)` float32, 0 or 1, times the
        examples' own.

    Raises:
        ModuleNotFoundError: if Grain is not installed.
        NetError: for an empty source, arrays of different lengths, a batch larger than the data, or a number out of
            range; on reading, for an example that is no pair.

    >>> import jax.numpy as jnp
    >>> batches = stream((jnp.arange(5.0), jnp.arange(5)), 2, seed=1)
    >>> [batch.weights.tolist() for batch in batches]
    [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    """
    if importlib.util.find_spec("grain") is None:
        raise ModuleNotFoundError("to stream data, install jaxnets with its extra 'stream'", name="grain")
    with labelled_as("stream"):
        examples = Arrays(source) if isinstance(source, tuple) else source
        for name, value in (("batch_size", batch_size), ("epochs", 1 if epochs is None else epochs)):
            check_count(name, value)
        for name, value in (("workers", workers), ("threads", threads), ("ahead", ahead)):
            if value < 0:
                raise NetError(f"expects {name} ≥ 0, got {value}")
        if len(examples) == 0:
            raise NetError("expects at least one example, got none")
        if batch_size > len(examples):
            raise NetError(f"expects a batch no larger than the data, got {batch_size} for {len(examples)} examples")

    return Stream(Reading(examples, batch_size, seed, epochs, shuffle, transforms, workers, threads), ahead, device)


def _owned(leaf: Any) -> np.ndarray:
    """Return an array with memory of its own: what a worker sends lies in shared memory, and is freed with it."""
    return leaf if type(leaf) is np.ndarray else np.array(leaf)
