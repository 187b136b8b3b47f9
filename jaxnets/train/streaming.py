"""Programs that train on a stream: pure functions of one batch each, and the host's loop over an epoch of them."""

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
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.data import Data
from jaxnets.train.epoch import Epoch, Values
from jaxnets.train.evaluation import Totals, evaluate_batch, merge_totals, reported_values, zero_totals
from jaxnets.train.labels import Check, known_labels, label_check
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import revert_nonfinite

# How many steps the host may be ahead of the device; the batches of more would fill the device's memory.
IN_FLIGHT = 2


@dataclass(frozen=True, eq=False)
class Streamed:
    """What a program does with the batches of a stream.

    Attributes:
        batches: the training stream. Batches are read from other streams over the same data, never from it.
        validation: the validation stream, if validation is a stream.
        epoch: the pure functions that all programs have.
        shapes: those of a batch's inputs, targets and weights, with dtypes.
        check: what the labels of every batch have to pass, if anything.
    """

    batches: Stream
    validation: Stream | None
    epoch: Epoch
    shapes: Data
    check: Check | None

    @classmethod
    def of(cls, batches: Stream, validation: Any, epoch: Epoch) -> "Streamed":
        """Return what a program does with a stream, of which the first example is read.

        Raises:
            NetError: if a moving average is evaluated that has statistics, which would take a second pass to estimate.
        """
        first = batches.reading.first()
        shapes = spec((first.x, first.y, first.weights))
        if epoch.options.ema_decay is not None and validation is not None:
            _, state = jax.eval_shape(epoch.net.init, jax.random.key(0), shapes[0])
            # A network with state has statistics, which the moving average needs, too.
            if jax.tree.leaves(state):
                why = "its statistics would be estimated from all inputs after every epoch, a second reading"
                hint = "leave out ema_decay=, or validation= and evaluate jn.train.ema_params(net, state, x)"
                raise NetError(
                    f"can't evaluate the moving average of a network with state on a stream: {why}; {hint}",
                    label="program",
                )
        # Labels are checked only where they are integers.
        integers = known_labels(first.y) is not None
        check = label_check(epoch.net, epoch.objective, epoch.metrics, shapes[0]) if integers else None
        return cls(batches, validation if isinstance(validation, Stream) else None, epoch, shapes, check)

    def at(self, state: TrainState) -> Data:
        """Read the batch of the next step: inputs, targets and weights."""
        reader = self.batches.again(int(state.step))
        batch = next(reader)
        reader.close()
        return batch.x, batch.y, batch.weights

    def numbers(self, state: TrainState) -> list[int]:
        """Return, for each row of that batch, the number of its example in the source."""
        numbers = self.batches.reading.numbers(int(state.step))
        # An incomplete batch is filled up from its own beginning.
        return [numbers[row % len(numbers)] for row in range(self.batches.reading.batch_size)]

    def single_batch_epoch(
        self, stopping: EarlyStopping | None, state: TrainState, batch: Batch, validation: Data | None
    ) -> tuple[TrainState, Values]:
        """Return what an epoch of one batch would be: all that is computed, as one function."""
        after, totals, _ = train_on_batch(self.epoch, state, first_totals(self.epoch, state, batch), batch)
        state = revert_nonfinite(state, after)
        evaluated = {} if self.validation is None else evaluate_on_batch(self.epoch, state, None, batch)[0]
        return close_epoch(self.epoch, stopping, state, totals, evaluated, validation)


# The functions below take the epoch alone, so that what is compiled of them does not keep the streams alive.


def first_totals(epoch: Epoch, state: TrainState, batch: Batch) -> Totals:
    """Return the totals of no batch yet."""
    return zero_totals(jax.eval_shape(epoch.train_step, state, batch)[1])


def train_on_batch(
    epoch: Epoch, state: TrainState, totals: Totals, batch: Batch
) -> tuple[TrainState, Totals, jax.Array]:
    """Return the train state and the epoch's totals one batch later, and whether training has halted."""
    state, new = epoch.train_step(state, batch)
    halted = jnp.zeros((), bool) if state.failed is None else state.failed >= 0
    return state, merge_totals(epoch.metrics, totals, new), halted


def evaluate_on_batch(
    epoch: Epoch, state: TrainState, totals: dict[str, Totals] | None, batch: Batch
) -> tuple[dict[str, Totals], jax.Array]:
    """Return the totals of each evaluation one batch later, and `False`: an array to wait for."""
    new = {
        prefix: evaluate_batch(epoch.net, params, network_state, batch, epoch.metrics, epoch.objective)
        for prefix, (params, network_state) in epoch.evaluated(state).items()
    }
    if totals is not None:
        new = {prefix: merge_totals(epoch.metrics, totals[prefix], each) for prefix, each in new.items()}
    return new, jnp.zeros((), bool)


def close_epoch(
    epoch: Epoch,
    stopping: EarlyStopping | None,
    state: TrainState,
    totals: Totals,
    evaluated: dict[str, Totals],
    validation: Data | None,
) -> tuple[TrainState, Values]:
    """Return the train state after `plateau` and early stopping have seen the epoch's values, and these values."""
    evaluations = {prefix: reported_values(epoch.metrics, each) for prefix, each in evaluated.items()}
    # Validation data on the device, beside a stream to train on.
    if validation:
        evaluations = epoch.evaluate(epoch.evaluated(state), validation)
    # Totals become means here, once per epoch.
    row = epoch.report(state, reported_values(epoch.metrics, totals), evaluations)
    state = epoch.update_plateau(state, row)
    return state if stopping is None else stopping.update(state, row), row


@contextmanager
def streamed_epochs(
    stream: Streamed, epochs: int, stopping: EarlyStopping | None, validation: Data | None, state: TrainState
) -> Iterator[Callable[[TrainState], tuple[TrainState, Values]]]:
    """Yield the function that runs the next epoch, with readers open that begin where the train state is.

    Steps are dispatched without waiting for their results, so the next batches are read while the device computes.
    """
    step = int(state.step)
    reader = stream.batches.again(step, epochs=epochs)
    reader.inspect = train_inspection = _Inspection(stream.check, "data")
    validation_reader, validation_inspection = None, _Inspection(stream.check, "validation")
    if stream.validation is not None:
        # A resumed run reads the validation stream from the epoch that it has reached.
        epochs_done = step // stream.batches.batches
        validation_reader = stream.validation.again(epochs_done * stream.validation.batches, epochs=epochs)
        validation_reader.inspect = validation_inspection

    epoch, functions = stream.epoch, dict[Any, Compiled]()

    def call(function: Callable[..., Any], static: list[Any], *arrays: Any, donate: tuple[int, ...] = ()) -> Any:
        # Looked up once in this run: finding a compiled function again costs as much as a small step.
        if function not in functions:
            functions[function] = compiled(function, static, arrays, donate=donate)
        return functions[function](*arrays)

    def train_batch(
        carry: tuple[TrainState, Totals | None], batch: Batch
    ) -> tuple[tuple[TrainState, Totals], jax.Array]:
        state, totals = carry
        # Zeros in the shape of the first batch's totals
        totals = call(first_totals, [epoch], state, batch) if totals is None else totals
        state, totals, halted = call(train_on_batch, [epoch], state, totals, batch, donate=(0, 1))
        return (state, totals), halted

    def run_epoch(state: TrainState) -> tuple[TrainState, Values]:
        def validate_batch(totals: dict[str, Totals] | None, batch: Batch) -> tuple[dict[str, Totals], jax.Array]:
            return call(evaluate_on_batch, [epoch], state, totals, batch, donate=(1,))

        # Copied, as each step is given the memory of the state before it.
        before = None if state.failed is None else jax.tree.map(jnp.copy, state)
        state, totals = _for_each_batch(reader, train_batch, (state, None))
        train_inspection.check_weights()
        state = state if before is None else call(revert_nonfinite, [], before, state, donate=(1,))
        evaluated = {}
        if validation_reader is not None:
            evaluated = _for_each_batch(validation_reader, validate_batch, None)
            validation_inspection.check_weights()
        return call(close_epoch, [epoch, stopping], state, totals, evaluated, validation, donate=(0,))

    try:
        yield run_epoch
    finally:
        for each in (reader, validation_reader):
            if each is not None:
                each.close()


@dataclass(eq=False)
class _Inspection:
    """Looks at every batch that is read: checks its labels, and notes whether any example counts."""

    check: Check | None
    name: str
    counts: bool = False

    def __call__(self, batch: Batch) -> None:
        if self.check is not None:
            self.check(self.name, batch.y, batch.weights)
        self.counts = self.counts or bool((np.asarray(batch.weights) > 0).any())

    def check_weights(self) -> None:
        """Raise an error for an epoch in which nothing counted; one of several processes may read only such rows."""
        if not self.counts and jax.process_count() == 1:
            text = f"expects some weight above 0 in {self.name}, got 0 for every example: there is nothing to average"
            raise NetError(text, label="training")


def _for_each_batch(reader: Stream, function: Callable[[Any, Batch], tuple[Any, jax.Array]], carry: Any) -> Any:
    """Carry something through the batches of an epoch, `function(carry, batch) -> (carry, ends)`, until one ends it."""
    computed: deque[jax.Array] = deque()
    for _ in range(reader.batches):
        carry, ends = function(carry, next(reader))
        computed.append(ends)
        # Reading the flag of a step some batches ago waits for that step only, and keeps the device busy.
        if len(computed) > IN_FLIGHT and bool(computed.popleft()):
            break
    return carry


def check_stream(stream: Stream, epochs: int, batch_size: int | None, default: int, sampler: Any) -> int:
    """Return how many examples a stream has, after checking that it suits what a program is asked for.

    Raises:
        NetError: if it ends too early, has batches of another size, or a sampler is passed.
    """
    check_count("epochs", epochs)
    own, given = stream.epochs, stream.reading.batch_size
    # A stream made for a single pass is the default, and is read as often as needed.
    if own not in (None, 1) and own < epochs:
        raise NetError(f"expects a stream of epochs={epochs} or None, got one that ends after {own}")
    if batch_size is not default and batch_size != given:
        raise NetError(f"takes batches as the stream has them, {given} examples each, got batch_size={batch_size}")
    if sampler is not None:
        raise NetError("gets a sampler for a stream, which has its own; jn.data.stream(..., shuffle=, seed=) draws it")
    return len(stream.reading.source)


def refuse() -> NetError:
    """Return the error for a use that a program on a stream does not support."""
    why = "its batches are read on the host, one after another, outside of what is compiled"
    hint = "run it by jn.train.run(program, key=key), or give program arrays that fit on the device"
    return NetError(
        f"learns from a stream, as program(key), jit, vmap, grad and sweep can't: {why}; {hint}", label="program"
    )
