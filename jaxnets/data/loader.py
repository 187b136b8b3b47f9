"""Streams: batches of data that do not fit into memory, read through Grain, with a position to save and restore."""

import importlib.util
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, missing, shown
from jaxnets.core.sharding import automatic_sharding, check_divides, rows_of
from jaxnets.data.reader import Batch, Reading, Source, Transform, differing, form
from jaxnets.data.sources import as_source


class Stream(Iterator[Batch]):
    """An iterator over batches of a source, shuffled by seed in each epoch; `stream` makes it.

    Its position counts the batches returned, not those read ahead, and does not depend on the number of workers. A new
    loop continues where the last one stopped. At the end of a pass, a new loop begins the next pass, of the same number
    of epochs, each in its own order. Between two batches the position can be saved and restored, as a small dict for
    JSON.

    Attributes:
        batches: the number of batches in an epoch.
        epochs: the number of epochs in a pass; `None` never ends.
        reading: what the stream reads, and how.
        inspect: a function called with every batch while it is on the host; it may raise an error.
        place: the device or sharding of the batches.

    >>> import numpy as np
    >>> first = stream((np.arange(6.0), np.arange(6)), 2, shuffle=False)
    >>> _ = next(first)
    >>> again = stream((np.arange(6.0), np.arange(6)), 2, shuffle=False)
    >>> again.set_state(first.get_state())
    >>> [batch.y.tolist() for batch in again]
    [[2, 3], [4, 5]]
    >>> [batch.y.tolist() for batch in again]
    [[0, 1], [2, 3], [4, 5]]
    """

    def __init__(self, reading: Reading, epochs: int | None, ahead: int, place: Any) -> None:
        self.reading: Reading = reading
        self.epochs: int | None = epochs
        self.batches: int = reading.batches
        self._ahead = ahead
        self.place: Any = automatic_sharding(place)
        self._reader: Any = None
        self._waiting: deque[Batch] = deque()
        self.inspect: Callable[[Batch], None] | None = None
        self._form: Any = None
        self._move_to(0)

    def _move_to(self, position: int) -> None:
        """Move to a position, in the pass that contains it; a position between two passes ends the earlier one."""
        self._position, self._ended = position, False
        # Batches in a pass; 0 for an endless stream.
        whole = self.batches * (self.epochs or 0)
        self._end_of_pass = whole * max(1, -(-position // whole)) if whole else None

    def __iter__(self) -> "Stream":
        if self._ended and self._end_of_pass is not None and self.epochs is not None:
            self._end_of_pass += self.epochs * self.batches
            self._ended = False
        return self

    def __next__(self) -> Batch:
        """Return the next batch, on the device."""
        if self._position == self._end_of_pass:
            self.close()
            self._ended = True
            raise StopIteration
        while len(self._waiting) <= self._ahead:
            try:
                batch = self._read()
            # Whatever the source or a transform raises.
            except Exception as error:
                if isinstance(error, NetError):
                    # Grain adds notes about possible causes, which do not apply here.
                    vars(error).pop("__notes__", None)
                self._end()
                # Return the good batches first; reading again raises the error when its own batch is due.
                if self._waiting:
                    break
                raise
            if batch is None:
                break
            self._waiting.append(batch)
        self._position += 1
        return self._waiting.popleft()

    def _read(self) -> Batch | None:
        position = self._position + len(self._waiting)
        if self._reader is None:
            self._reader = self.reading.open(position, self._end_of_pass)
            # Also called when the process exits.
            self._closing = weakref.finalize(self, self._reader.close)
        batch = next(self._reader, None)
        if batch is None:
            return None
        found = form((batch.x, batch.y))
        if found != (self._form or found):
            raise NetError(
                f"expects examples of one shape and type, got {differing(found, self._form)} in the batch of example "
                f"{self.reading.numbers(position)[0]}, and {differing(self._form, found)} before",
                label="stream",
            )
        self._form = found
        if self.inspect is not None:
            self.inspect(batch)
        return jax.device_put(jax.tree.map(_owned, batch), self.place)

    def __len__(self) -> int:
        """Return the number of batches left in this pass."""
        if self._end_of_pass is None:
            raise TypeError("a stream of epochs=None has no end")
        return self._end_of_pass - self._position

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""
        return self._position // self.batches

    def get_state(self) -> dict[str, Any]:
        """Return the position and the stream's settings, as a dict for JSON.

        It includes fingerprints of the source and the transforms, from examples spread over the source: 256 of arrays,
        8 of any other source. The first call reads them.
        """
        return {"position": self._position, **self.reading.mark, **self.reading.contents}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from the position of another stream over the same data.

        Args:
            state: the result of `get_state`. Remove `source` or `transforms` to skip its comparison.

        Raises:
            NetError: if that stream had another seed, batch size, number of examples or order, another source, or other
                transforms.
        """
        mine, compared = self.reading.mark, [name for name in ("source", "transforms") if name in state]
        if compared:
            mine = mine | {name: self.reading.contents[name] for name in compared}
        with labeled_as("stream"):
            for name, value in mine.items():
                if state.get(name) != value:
                    hint = f"; leave {name!r} out of the state to continue anyway" if name in compared else ""
                    raise NetError(
                        f"expects the position of a stream with {name}={value}, got one with {state.get(name)}{hint}"
                    )
            position = state.get("position")
            if not isinstance(position, int) or position < 0:
                raise NetError(f"expects a position ≥ 0, got {position}")
        self.close()
        self._move_to(position)

    def again(self, position: int = 0, *, epochs: int | None = None) -> "Stream":
        """Return another stream over the same data, with its own position.

        Args:
            position: the number of batches to skip.
            epochs: the number of epochs in a pass; `None` never ends.

        >>> import numpy as np
        >>> once = stream((np.arange(6.0), np.arange(6)), 2, shuffle=False)
        >>> [batch.y.tolist() for batch in once.again(2, epochs=2)]
        [[4, 5], [0, 1], [2, 3], [4, 5]]
        """
        other = Stream(self.reading, epochs, self._ahead, self.place)
        other._move_to(position)
        return other

    def close(self) -> None:
        """Stop the workers and threads, and drop the batches read ahead; the next batch starts them again."""
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
    """Stream batches of data that do not fit into memory: read through Grain, put on the device ahead of time.

    Every epoch visits every example once, in its own random order. The last batch of an epoch is filled by repeating
    its own examples with weight 0, so all batches have the same shape and means are exact; no batch spans two epochs.
    Streams with equal arguments return equal batches, whatever the number of workers. After a pass, the next loop over
    the stream begins another.

    Args:
        source: an object with a length that returns examples `(x, y)` by number, pytrees of arrays or numbers, or
            `(x, y, weight)`; for example `image_folder`, `columns`, `parquet`, or a dataset of PyTorch. Or a tuple of
            arrays, or of pytrees of arrays, with the examples along the first axis, for example from `np.memmap`.
        batch_size: the number of examples in a batch, from 1 to all.
        seed: the seed of the order and the transforms.
        epochs: the number of epochs in a pass; `None` never ends.
        shuffle: whether to shuffle; otherwise the order is the source's.
        transforms: functions `(generator, example) -> example` on the host, applied in turn to each example `(x, y)`;
            `generator` is NumPy's, with its own state for each example and epoch. Cheap transforms, such as
            `jn.data.flip`, should run on the device.
        workers: the number of reading processes; 0 reads in threads of this process. Processes help if decoding is
            slow. They are spawned, so a script needs `if __name__ == "__main__":`. Each gets a copy of the source, and
            opens memory-mapped files itself. They ignore Ctrl-C and end with this process.
        threads: the number of reading threads in each process; 0 reads a batch when it is needed.
        ahead: the number of batches put on the device before they are needed.
        device: a `jax.Device` or `jax.sharding.Sharding`. Default: JAX's default device.

    Returns:
        An iterator over `Batch`es of arrays on the device, with weights `(batch_size,)` float32: 0 or 1, times the
        weights of the examples.

    Raises:
        ModuleNotFoundError: if Grain is not installed.
        NetError: for an empty source, arrays of different lengths, a batch that is larger than the data or does not
            divide over the devices, or a number out of range; while reading, with its number, for an example that is
            not a pair, can't be read, or has another shape than the others.

    >>> import jax.numpy as jnp
    >>> batches = stream((jnp.arange(5.0), jnp.arange(5)), 2, seed=1)
    >>> [batch.weights.tolist() for batch in batches]
    [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    """
    if importlib.util.find_spec("grain") is None:
        raise missing("grain", "stream")
    with labeled_as("stream"):
        examples = as_source(source)
        if not (hasattr(examples, "__len__") and hasattr(examples, "__getitem__")):
            hint = "use list(source), if it fits into memory"
            raise NetError(f"expects a source with a length and examples by number, got {shown(examples)}; {hint}")
        if callable(transforms):
            raise NetError(f"expects a list of transforms, got {shown(transforms)}; put it in brackets")
        if not isinstance(shuffle, bool | np.bool_):
            raise NetError(f"expects shuffle=True or False, got {shown(shuffle)}")
        for name, value in (("batch_size", batch_size), ("epochs", 1 if epochs is None else epochs)):
            check_count(name, value)
        for name, value in (("workers", workers), ("threads", threads), ("ahead", ahead)):
            if value < 0:
                raise NetError(f"expects {name} ≥ 0, got {value}")
        if len(examples) == 0:
            raise NetError("expects at least one example, got none")
        if batch_size > len(examples):
            raise NetError(f"expects a batch no larger than the data, got {batch_size} for {len(examples)} examples")
        check_divides("a batch", batch_size, rows_of(device))

    return Stream(Reading(examples, batch_size, seed, shuffle, transforms, workers, threads), epochs, ahead, device)


def _owned(leaf: Any) -> np.ndarray:
    """Return an array that owns its memory: a worker's arrays are in shared memory, which is freed with the batch."""
    return leaf if type(leaf) is np.ndarray else np.array(leaf)
