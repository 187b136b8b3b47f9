"""Batches of data that do not fit into memory, read through Grain with a position to save and restore."""

import importlib.util
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, missing, shown
from jaxnets.core.sharding import automatic_sharding, check_divides, rows_of
from jaxnets.data.arrays import Arrays
from jaxnets.data.reader import Batch, Reading, Source, Transform, differing, form


class Stream(Iterator[Batch]):
    """Batches of a source, in an order drawn by seed for each epoch; `stream` makes it.

    It is an iterator with a position, which counts the batches that were handed out, not those that were read ahead,
    and does not depend on how many workers there are. A loop goes on where the last one broke off. A loop over a
    stream that has come to its end begins the next pass, of as many epochs, in orders of their own.

    Between two batches its position can be saved and restored, as a small dict for JSON.

    Attributes:
        batches: how many batches an epoch has.
        epochs: how many epochs a pass has; `None` never ends.
        reading: what is read, and how.
        inspect: called with every batch while it is on the host; it may raise.
        place: the device or sharding that batches are put to.

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
        self.reading, self.epochs, self.batches = reading, epochs, reading.batches
        self._ahead, self.place = ahead, automatic_sharding(place)
        self._reader: Any = None
        self._waiting: deque[Batch] = deque()
        self.inspect: Callable[[Batch], None] | None = None
        self._form: Any = None
        self._stand_at(0)

    def _stand_at(self, position: int) -> None:
        """Stand at a position, in the pass that has it; at the end of one, that one is over."""
        self._position, self._ended = position, False
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
            except Exception as error:  # whatever the source or a transform raises
                if isinstance(error, NetError):
                    vars(error).pop("__notes__", None)  # Grain's, on other causes than this one
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
        position = self._position + len(self._waiting)
        if self._reader is None:
            self._reader = self.reading.open(position, self._end_of_pass)
            self._closing = weakref.finalize(self, self._reader.close)  # also when the program ends
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
        """Return how many batches are left of this pass."""
        if self._end_of_pass is None:
            raise TypeError("a stream of epochs=None has no end")
        return self._end_of_pass - self._position

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 0, that the next batch belongs to."""
        return self._position // self.batches

    def get_state(self) -> dict[str, Any]:
        """Return the position, for JSON, with what the stream was made with.

        The source and the transforms are told from others by some examples spread over the source, 256 of arrays and
        8 of anything else, which are read when this is called for the first time.
        """
        return {"position": self._position, **self.reading.mark, **self.reading.contents}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream over the same data stood.

        Args:
            state: what `get_state` returned. Without `source` and `transforms` these are not compared.

        Raises:
            NetError: if that stream was made with another seed, batch size, number of examples or order, or examples
                of another source, or other transforms, are found.
        """
        mine, compared = self.reading.mark, [name for name in ("source", "transforms") if name in state]
        if compared:
            mine = mine | {name: self.reading.contents[name] for name in compared}
        with labeled_as("stream"):
            for name, value in mine.items():
                if state.get(name) != value:
                    hint = f"; leave {name!r} out of the state to go on all the same" if name in compared else ""
                    raise NetError(
                        f"expects the position of a stream with {name}={value}, got one with {state.get(name)}{hint}"
                    )
            position = state.get("position")
            if not isinstance(position, int) or position < 0:
                raise NetError(f"expects a position ≥ 0, got {position}")
        self.close()
        self._stand_at(position)

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
        other = Stream(self.reading, epochs, self._ahead, self.place)
        other._stand_at(position)
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
    batch spans two epochs. A stream with the same arguments gives the same batches, however many workers read. After a
    pass, the next loop over the stream begins another.

    Args:
        source: has a length and gives examples `(x, y)` by number, pytrees of arrays or numbers, or `(x, y, weight)`
            if not all count alike; `image_folder` is one. Or a tuple of arrays, or of pytrees of arrays, with the
            examples along the first axis, such as those of `np.memmap`.
        batch_size: examples a batch, at least 1 and at most all.
        seed: for the order and the transforms.
        epochs: how often every example is seen in a pass; `None` never ends.
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
        NetError: for an empty source, arrays of different lengths, a batch larger than the data or one that does not
            divide over the devices, or a number out of range; on reading, for an example that is no pair, can't be
            read, or has another shape than others, by its number.

    >>> import jax.numpy as jnp
    >>> batches = stream((jnp.arange(5.0), jnp.arange(5)), 2, seed=1)
    >>> [batch.weights.tolist() for batch in batches]
    [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    """
    if importlib.util.find_spec("grain") is None:
        raise missing("grain", "stream")
    with labeled_as("stream"):
        examples = Arrays(source) if isinstance(source, tuple) else source
        if not (hasattr(examples, "__len__") and hasattr(examples, "__getitem__")):
            hint = "list(source) is one, where it fits into memory"
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
    """Return an array with memory of its own: what a worker sends lies in shared memory, and is freed with it."""
    return leaf if type(leaf) is np.ndarray else np.array(leaf)
