"""Programs that train on a stream: the checks of the stream, and the host's loop over the batches of an epoch."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.compiled import Compiled, compiled
from jaxnets.core.errors import NetError
from jaxnets.core.net import spec
from jaxnets.data.loader import Stream
from jaxnets.metrics.metric import collect
from jaxnets.train.epoch import History, Recipe
from jaxnets.train.evaluation import Totals
from jaxnets.train.labels import Check, known_labels, label_check
from jaxnets.train.state import Batch, Data, TrainState
from jaxnets.train.step import revert_nonfinite

# How many steps the host may be ahead of the device; more batches would fill the device's memory.
IN_FLIGHT = 2


@dataclass(frozen=True, eq=False)
class Streamed:
    """The streams that a program reads.

    Attributes:
        batches: the training stream. Batches are read from other streams over the same data, never from it.
        validation: the validation stream, if validation is a stream.
        shapes: the shapes and dtypes of a batch's inputs, targets and weights.
        check: the check of the labels of every batch, or `None`.
    """

    batches: Stream
    validation: Stream | None
    shapes: Data
    check: Check | None

    @classmethod
    def of(cls, batches: Stream, validation: Any, recipe: Recipe) -> "Streamed":
        """Return the streams of a program; the first example is read.

        Raises:
            NetError: for a metric that needs all outputs at once, or if the moving average of a network with state is
                evaluated: its statistics would take a second pass to estimate.
        """
        if grown := [name for name, metric in recipe.metrics.items() if metric.merge is collect]:
            hint = "leave it out of metrics= and call jn.evaluate(net, state, data, metric) after training"
            raise NetError(
                f"can't report {', '.join(grown)} on a stream: it needs all outputs at once; {hint}", label="program"
            )
        first = batches.reading.first()
        shapes = spec((first.x, first.y, first.weights))
        if recipe.options.ema_decay is not None and validation is not None:
            _, state = jax.eval_shape(recipe.net.init, jax.random.key(0), shapes[0])
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
        check = label_check(recipe.net, recipe.objective, recipe.metrics, shapes[0]) if integers else None
        return cls(batches, validation if isinstance(validation, Stream) else None, shapes, check)

    def at(self, state: TrainState) -> Data:
        """Read the batch of the next step: inputs, targets and weights."""
        reader = self.batches.again(int(state.step))
        batch = next(reader)
        reader.close()
        return batch.x, batch.y, batch.weights

    def numbers(self, state: TrainState) -> list[int]:
        """Return, for each row of the next step's batch, the number of its example in the source."""
        numbers = self.batches.reading.numbers(int(state.step))
        # An incomplete batch is filled up from its own beginning.
        return [numbers[row % len(numbers)] for row in range(self.batches.reading.batch_size)]


@contextmanager
def streamed_epochs(
    recipe: Recipe, stream: Streamed, epochs: int, validation: Data | None, state: TrainState
) -> Iterator[Callable[[TrainState], tuple[TrainState, History]]]:
    """Yield the function that runs the next epoch; its readers begin where the train state is.

    Steps are dispatched without waiting for their results, so the next batches are read while the device computes.
    """
    step, functions = int(state.step), dict[Any, Compiled]()
    training, validating = _Reader("data", stream.batches.again(step, epochs=epochs), stream.check), None
    if stream.validation is not None:
        # A resumed run reads the validation stream from the epoch that it has reached.
        begin = step // stream.batches.batches * stream.validation.batches
        validating = _Reader("validation", stream.validation.again(begin, epochs=epochs), stream.check)

    def call(function: Callable[..., Any], *arrays: Any, donate: tuple[int, ...] = ()) -> Any:
        # Looked up once per run, because a lookup costs as much as a small step.
        if function not in functions:
            functions[function] = compiled(function, [recipe], arrays, donate=donate)
        return functions[function](*arrays)

    def train_batch(
        carry: tuple[TrainState, Totals | None], batch: Batch
    ) -> tuple[tuple[TrainState, Totals], jax.Array]:
        state, totals = carry
        # Zeros in the shape of the first batch's totals
        totals = call(Recipe.no_totals, state, batch) if totals is None else totals
        state, totals, halted = call(Recipe.train_on_batch, state, totals, batch, donate=(0, 1))
        return (state, totals), halted

    def run_epoch(state: TrainState) -> tuple[TrainState, History]:
        def validate_batch(totals: dict[str, Totals] | None, batch: Batch) -> tuple[dict[str, Totals], jax.Array]:
            return call(Recipe.evaluate_on_batch, state, totals, batch, donate=(1,))

        # Copied, as the state is donated to each step.
        before = None if state.failed is None else jax.tree.map(jnp.copy, state)
        state, totals = training.for_each_batch(train_batch, (state, None))
        if before is not None:
            state = compiled(revert_nonfinite, [], (before, state), donate=(1,))(before, state)
        evaluated = {} if validating is None else validating.for_each_batch(validate_batch, None)
        return call(Recipe.close_totals, state, totals, evaluated, validation, donate=(0,))

    try:
        yield run_epoch
    finally:
        for reader in (training, validating):
            if reader is not None:
                reader.batches.close()


class _Reader:
    """Reads a stream epoch by epoch, checks the labels of every batch, and records whether any weight is above 0.

    Attributes:
        name: the name of the data in errors.
        batches: the stream.
        check: the check of the labels, or `None`.
        counts: whether any example had a weight above 0 so far.
    """

    def __init__(self, name: str, batches: Stream, check: Check | None) -> None:
        self.name, self.batches, self.check, self.counts = name, batches, check, False
        batches.inspect = self._inspect

    def for_each_batch(self, function: Callable[[Any, Batch], tuple[Any, jax.Array]], carry: Any) -> Any:
        """Fold `function(carry, batch) -> (carry, ends)` over an epoch, until a batch ends it, and return the carry.

        Raises:
            NetError: if all weights are 0, unless there are several processes, of which one may read only such rows.
        """
        computed: deque[jax.Array] = deque()
        for _ in range(self.batches.batches):
            carry, ends = function(carry, next(self.batches))
            computed.append(ends)
            # Reading the flag of a step a few batches ago waits for that step only, and keeps the device busy.
            if len(computed) > IN_FLIGHT and bool(computed.popleft()):
                break
        if not self.counts and jax.process_count() == 1:
            text = f"expects some weight above 0 in {self.name}, got 0 for every example: there is nothing to average"
            raise NetError(text, label="training")
        return carry

    def _inspect(self, batch: Batch) -> None:
        if self.check is not None:
            self.check(self.name, batch.y, batch.weights)
        self.counts = self.counts or bool((np.asarray(batch.weights) > 0).any())


def refuse() -> NetError:
    """Return the error for a use that a program on a stream does not support."""
    why = "its batches are read on the host, one after another, outside of what is compiled"
    hint = "run it by jn.train.run(program, key=key), or give program arrays that fit on the device"
    return NetError(
        f"trains on a stream, which program(key), jit, vmap, grad and sweep can't: {why}; {hint}", label="program"
    )
