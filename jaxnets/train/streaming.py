"""Programs that learn from a stream: pure functions for each batch, and the host's loop over an epoch of them."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.compiled import Compiled, compiled
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.net import spec
from jaxnets.data.loader import Stream
from jaxnets.train import evaluation
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.data import Data
from jaxnets.train.epoch import Epoch, Values
from jaxnets.train.evaluation import Tally
from jaxnets.train.labels import Check, known_labels, label_check
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import settled

IN_FLIGHT = 2  # steps that the host may be ahead of the device: the batches of more would fill its memory


@dataclass(frozen=True, eq=False)
class Streamed:
    """What a program does with the batches of a stream.

    Attributes:
        batches: what is learned from; it is never read itself, but others over the same data.
        held_out: what is only looked at, where that is a stream too.
        epoch: the pure functions that all programs have.
        shapes: those of a batch's inputs, targets and weights, with dtypes.
        check: what the labels of every batch have to pass, if anything.
    """

    batches: Stream
    held_out: Stream | None
    epoch: Epoch
    shapes: Data
    check: Check | None

    @classmethod
    def of(cls, batches: Stream, validation: Any, epoch: Epoch) -> "Streamed":
        """Return what a program does with a stream, of which the first example is read.

        Raises:
            NetError: if an average that is evaluated has statistics, which would be estimated from all inputs.
        """
        first = batches.reading.first()
        shapes = spec((first.x, first.y, first.weights))
        if epoch.options.ema_decay is not None and validation is not None:
            _, state = jax.eval_shape(epoch.net.init, jax.random.key(0), shapes[0])
            if jax.tree.leaves(state):
                why = "its statistics would be estimated anew from all inputs after every epoch, a second reading"
                hint = "leave out ema_decay=, or validation= and evaluate jn.train.averaged(net, run, x) on some inputs"
                raise NetError(
                    f"can't evaluate the average of a network with state on a stream: {why}; {hint}", label="program"
                )
        integers = known_labels(first.y) is not None
        check = label_check(epoch.net, epoch.objective, epoch.metrics, shapes[0]) if integers else None
        return cls(batches, validation if isinstance(validation, Stream) else None, epoch, shapes, check)

    def at(self, run: TrainState) -> Data:
        """Read what the run's next step learns from: inputs, targets and weights."""
        reader = self.batches.again(int(run.step))
        batch = next(reader)
        reader.close()
        return batch.x, batch.y, batch.weights

    def numbers(self, run: TrainState) -> list[int]:
        """Return the number in the source of each example of that batch."""
        numbers = self.batches.reading.numbers(int(run.step))
        return [numbers[row % len(numbers)] for row in range(self.batches.reading.batch_size)]

    def in_one(
        self, stopping: EarlyStopping | None, run: TrainState, batch: Batch, held_out: Data | None
    ) -> tuple[TrainState, Values]:
        """Return what an epoch of one batch would be: all that is computed, as one function."""
        after, total, _ = learn(self.epoch, run, begin(self.epoch, run, batch), batch)
        run = settled(run, after)
        looks = {} if self.held_out is None else look(self.epoch, run, None, batch)[0]
        return report(self.epoch, stopping, run, total, looks, held_out)


# What is compiled is made of the epoch alone, so that it does not keep the streams alive.


def begin(epoch: Epoch, run: TrainState, batch: Batch) -> Tally:
    """Return the tally of no batch yet."""
    return evaluation.empty(jax.eval_shape(epoch.learn, run, batch)[1])


def learn(epoch: Epoch, run: TrainState, total: Tally, batch: Batch) -> tuple[TrainState, Tally, jax.Array]:
    """Return the run and the epoch's tally one batch later, and whether the run stands still."""
    run, new = epoch.learn(run, batch)
    stands = jnp.zeros((), bool) if run.failed is None else run.failed >= 0
    return run, evaluation.merge(epoch.metrics, total, new), stands


def look(
    epoch: Epoch, run: TrainState, total: dict[str, Tally] | None, batch: Batch
) -> tuple[dict[str, Tally], jax.Array]:
    """Return the tallies of evaluations one batch later, and something to wait for."""
    new = {
        name: evaluation.look(epoch.net, params, state, batch, epoch.metrics, epoch.objective)
        for name, (params, state) in epoch.shown(run).items()
    }
    if total is not None:
        new = {name: evaluation.merge(epoch.metrics, total[name], each) for name, each in new.items()}
    return new, jnp.zeros((), bool)


def report(
    epoch: Epoch,
    stopping: EarlyStopping | None,
    run: TrainState,
    total: Tally,
    seen: dict[str, Tally],
    held_out: Data | None,
) -> tuple[TrainState, Values]:
    """Return the run with what early stopping makes of the epoch, and the epoch's values."""
    values = {name: evaluation.value(epoch.metrics, each) for name, each in seen.items()}
    if held_out:
        values = epoch.evaluate(epoch.shown(run), held_out)
    row = epoch.report(run, evaluation.value(epoch.metrics, total), values)
    run = epoch.close(run, row)
    return run if stopping is None else stopping.update(run, row), row


@contextmanager
def epochs(
    stream: Streamed, epochs: int, stopping: EarlyStopping | None, held_out: Data | None, run: TrainState
) -> Iterator[Callable[[TrainState], tuple[TrainState, Values]]]:
    """Give the function that takes a run through its next epoch, while readers are open that begin where it stands.

    Steps are dispatched without waiting for their results: the next batches are read while the device computes.
    """
    step = int(run.step)
    reader = stream.batches.again(step, epochs=epochs)
    reader.inspect = learned = _Inspection(stream.check, "data")
    looker, looked = None, _Inspection(stream.check, "validation")
    if stream.held_out is not None:
        done = step // stream.batches.batches
        looker = stream.held_out.again(done * stream.held_out.batches, epochs=epochs)
        looker.inspect = looked

    epoch, functions = stream.epoch, dict[Any, Compiled]()

    def call(function: Callable[..., Any], static: list[Any], *arrays: Any, donate: tuple[int, ...] = ()) -> Any:
        if function not in functions:
            functions[function] = compiled(function, static, arrays, donate=donate)
        return functions[function](*arrays)

    def one(run: TrainState) -> tuple[TrainState, Values]:
        def step(both: tuple[TrainState, Tally | None], batch: Batch) -> tuple[tuple[TrainState, Tally], jax.Array]:
            run, total = both
            total = call(begin, [epoch], run, batch) if total is None else total
            run, total, stands = call(learn, [epoch], run, total, batch, donate=(0, 1))
            return (run, total), stands

        def seen_in(total: dict[str, Tally] | None, batch: Batch) -> tuple[dict[str, Tally], jax.Array]:
            return call(look, [epoch], run, total, batch, donate=(1,))

        before = None if run.failed is None else jax.tree.map(jnp.copy, run)  # steps are given the run's own memory
        run, total = _through(reader, step, (run, None))
        learned.check_weights()
        run = run if before is None else call(settled, [], before, run, donate=(1,))
        seen = {}
        if looker is not None:
            seen = _through(looker, seen_in, None)
            looked.check_weights()
        return call(report, [epoch, stopping], run, total, seen, held_out, donate=(0,))

    try:
        yield one
    finally:
        for each in (reader, looker):
            if each is not None:
                each.close()


@dataclass(eq=False)
class _Inspection:
    """What looks at every batch that is read: at its labels, and whether any example counts."""

    check: Check | None
    name: str
    counts: bool = False

    def __call__(self, batch: Batch) -> None:
        if self.check is not None:
            self.check(self.name, batch.y, batch.weights)
        self.counts = self.counts or bool((np.asarray(batch.weights) > 0).any())

    def check_weights(self) -> None:
        """Refuse an epoch in which nothing counted; of several processes one may have read such rows alone."""
        if not self.counts and jax.process_count() == 1:
            text = f"expects some weight above 0 in {self.name}, got 0 for every example: there is nothing to average"
            raise NetError(text, label="training")


def _through(reader: Stream, one: Callable[[Any, Batch], tuple[Any, jax.Array]], carry: Any) -> Any:
    """Take a carry through the batches of an epoch, or as far as one says that this is the end."""
    computed: deque[jax.Array] = deque()
    for _ in range(reader.batches):
        carry, ends = one(carry, next(reader))
        computed.append(ends)
        if len(computed) > IN_FLIGHT and bool(computed.popleft()):
            break
    return carry


def check_stream(stream: Stream, epochs: int, batch_size: int | None, usual: int | None, sampler: Any) -> int:
    """Return how many examples a stream has, which must suit what a program is asked for.

    Raises:
        NetError: if it ends too early, has batches of another size, or an order is asked for.
    """
    check_count("epochs", epochs)
    own, given = stream.epochs, stream.reading.batch_size
    if own not in (None, 1) and own < epochs:
        raise NetError(f"expects a stream of epochs={epochs} or None, got one that ends after {own}")
    if batch_size is not usual and batch_size != given:
        raise NetError(f"takes batches as the stream gives them, {given} examples each, got batch_size={batch_size}")
    if sampler is not None:
        raise NetError("gets a sampler for a stream, which has its own; jn.data.stream(..., shuffle=, seed=) draws it")
    return len(stream.reading.source)


def refuse() -> NetError:
    """Return the error for a use of a streamed program that can't be."""
    why = "its batches are read on the host, one after another, outside of what is compiled"
    hint = "run it by jn.train.run(program, key=key), or give program arrays that fit on the device"
    return NetError(
        f"learns from a stream, as program(key), jit, vmap, grad and sweep can't: {why}; {hint}", label="program"
    )
