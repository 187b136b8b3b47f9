"""`fit` and `run`: the host's loop around a program, with callbacks, interruption and errors."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import optax

from jaxnets.core.checks import check_function, is_uncalled
from jaxnets.core.compiled import compiled
from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, check_key
from jaxnets.core.paths import Pattern
from jaxnets.train.arguments import Metrics, options_of
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.debug.nonfinite import find_nonfinite
from jaxnets.train.epoch import History, Recipe, halted
from jaxnets.train.interruption import Interruption, interrupts
from jaxnets.train.objective import Loss
from jaxnets.train.options import Options
from jaxnets.train.program import DEFAULT_BATCH_SIZE, Program, build, compiled_epoch, traced_epoch
from jaxnets.train.state import Data, TrainState
from jaxnets.train.step import ObjectiveFunction
from jaxnets.train.streaming import streamed_epochs

Row = dict[str, Any]


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Callback:
    """What the host does around the epochs of a run.

    Attributes:
        on_start: called with the program before the first epoch.
        on_epoch_end: called after each epoch with its number from 0, the train state, and the epoch's values by name:
            scalars as `float`, others as NumPy arrays. The next epoch reuses the train state's memory: copy what you
            keep. If it returns `True`, the run ends.
        on_end: called once at the end, even if an exception ends the run, unless `on_start` was never called.
        restore: called with the program and the key before `on_start`; returns `(state, rows)` of an earlier run to
            resume, or `None`.
        on_finish: called with the number of completed epochs and the train state, before `on_end`, when the run ends
            regularly: after its last epoch, by early stopping, by a signal, or by a callback that raises `SystemExit`.
    """

    on_start: Callable[[Program], None] = _nothing
    on_epoch_end: Callable[[int, TrainState, Row], Any] = _nothing
    on_end: Callable[[], None] = _nothing
    restore: Callable[[Program, Key], tuple[TrainState, list[Row]] | None] = _nothing
    on_finish: Callable[[int, TrainState], None] = _nothing

    def __post_init__(self) -> None:
        with labeled_as("Callback"):
            check_function("on_start", self.on_start, "(program) -> None")
            check_function("on_epoch_end", self.on_epoch_end, "(number, state, row) -> bool or None")
            check_function("on_end", self.on_end, "() -> None")
            check_function("restore", self.restore, "(program, key) -> (state, rows) or None")
            check_function("on_finish", self.on_finish, "(number, state) -> None")


class NonFiniteError(NetError):
    """Training halted before a step with a non-finite value.

    Attributes:
        state: the train state with the last good parameters.
        history: the values reported so far.
    """

    def __init__(self, message: str, state: TrainState, history: History) -> None:
        super().__init__(message, label="training")
        self.state: TrainState = state
        self.history: History = history


@explained
def run(
    program: Program, *, key: Key, callbacks: Sequence[Callback | EarlyStopping] = ()
) -> tuple[TrainState, History]:
    """Run a program epoch by epoch from the host, and return what `program(key)` returns, bit for bit.

    Each epoch reuses the memory of the one before. Between epochs the callbacks get the train state. Ctrl-C, or a
    callback that raises `KeyboardInterrupt`, ends the run after the current epoch, and what was computed is returned.
    SIGTERM, by which clusters end a job, also ends the run after the current epoch, but `run` then calls the previous
    handler of the process, or raises `SystemExit(143)` if there is none. A `SystemExit` of a callback is raised again
    in the same way. In each case `checkpoint` has saved by then. A second signal ends the run at once. Signals are
    handled in the main thread only.

    If several processes train together, all end after the same epoch when one is told to stop. An exception in one of
    them ends that process at once with exit status 1, because the others would wait for it forever.

    Args:
        program: what to run.
        key: the random key; initial values, order and all other randomness derive from it.
        callbacks: `progress()`, `checkpoint(folder)`, `jsonl(path)`, `early_stopping(...)`, or any `Callback`.

    Returns:
        The final train state, and the history: a NumPy array `(epochs,)` for each reported name, as long as the run.

    Raises:
        NetError: if `key` is not a random key, `callbacks` is not a list of callbacks, or there are several rules for
            early stopping or several callbacks that resume a run.
        NonFiniteError: at a non-finite value; with the last good train state and the history.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> data = jnp.ones((8, 3)), jnp.zeros(8, int)
    >>> program = jn.train.program(jn.dense(2), jn.losses.cross_entropy, optax.sgd(0.1), data, epochs=2, batch_size=4)
    >>> state, history = run(program, key=jax.random.key(0))
    >>> history["loss"].shape
    (2,)
    """
    with labeled_as("run"):
        if not isinstance(program, Program):
            hint = "jn.train.run(jn.train.program(net, objective, optimizer, data, epochs=10), key=key)"
            raise NetError(f"expects a program and a key, got {shown(program)} and {shown(key)}; {hint}")
        check_key(key)
        rule, watchers = check_callbacks(callbacks, program.stopping)
    if rule is not None:
        recipe = program.recipe
        program = replace(program, recipe=replace(recipe, stopping=rule.settle(recipe.directions)))
    return run_with(program, key, watchers)


@explained
def fit(
    net: Net | Callable[[Any], Any],
    loss: ObjectiveFunction | Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    epochs: int,
    key: Key,
    batch_size: int | None = DEFAULT_BATCH_SIZE,
    validation: Any = None,
    metrics: Metrics = None,
    augment: Callable[[Key, Any], Any] | None = None,
    batch_augment: Callable[[Key, Any, Any, jax.Array], tuple[Any, Any, jax.Array]] | None = None,
    sampler: Callable[[Key, Data], jax.Array] | None = None,
    freeze: Pattern | None = None,
    ema_decay: Any = None,
    options: Options = Options(),
    callbacks: Sequence[Callback | EarlyStopping] = (),
) -> tuple[TrainState, History]:
    """Train a network and return its train state and history.

    The result is that of `jn.train.run(jn.train.program(...), key=key)`, bit for bit. Use `jn.train.program` to jit,
    vmap or sweep over training.

    Args:
        net: the network.
        loss: `(outputs, targets) -> (batch,)`, or `jn.objective(loss, *regularizers)`.
        optimizer: an Optax optimizer.
        data: inputs and targets, pytrees of arrays with the examples along the first axis, and optionally example
            weights `(examples,)` as a third; or a `jn.data.stream`.
        epochs: how many times every example is seen, at least 1.
        key: a random key, `jax.random.key(0)`; initial values, order and dropout derive from it.
        batch_size: examples per step, by default 64; `None` for all of them.
        validation: inputs and targets to evaluate after each epoch.
        metrics: one of `jn.metrics`, a list, or a dict by the names to report.
        augment: `(key, example) -> example`, such as `jn.data.shift(1)`.
        batch_augment: `(key, x, y, weights) -> (x, y, weights)`, such as `jn.data.mixup(0.2)`.
        sampler: `(key, data) -> indices (examples,)`, such as `jn.data.balanced(10)`.
        freeze: a pattern over the paths of parameters that are not trained, `"features/**"`.
        ema_decay: decay in [0, 1) of an exponential moving average of the parameters, `state.ema`.
        options: rarely needed options, such as `jn.train.Options(accumulate=4)`.
        callbacks: `jn.train.progress()`, `jn.train.checkpoint(folder)`, `jn.train.early_stopping(...)`, or any
            `jn.train.Callback`.

    Returns:
        The train state, and the history: a NumPy array `(epochs,)` for each reported name.

    Raises:
        NetError: for invalid arguments; the message says how to correct them.
        NonFiniteError: at a non-finite loss or gradient; with the last good train state and the history.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> net = jn.serial(jn.dense(8), jax.nn.relu, jn.dense(2))
    >>> state, history = fit(net, jn.losses.cross_entropy, optax.adam(0.1), (x, y), epochs=20, key=jax.random.key(1),
    ...                      metrics=[jn.metrics.accuracy])
    >>> history["loss"].shape, bool(history["accuracy"][-1] > 0.95)
    ((20,), True)
    """
    with labeled_as("fit"):
        check_key(key)
        rule, watchers = check_callbacks(callbacks)
        options = options_of(options, freeze, ema_decay, rule)
    functions = {"augment": augment, "batch_augment": batch_augment, "sampler": sampler}
    made_of = (net, loss, optimizer, data, validation, metrics, functions, rule, options)
    return run_with(build("fit", *made_of, epochs, batch_size), key, watchers)


def check_callbacks(
    callbacks: Any, stopping: EarlyStopping | None = None
) -> tuple[EarlyStopping | None, list[Callback]]:
    """Return the rule for early stopping among the callbacks, if any, and the others.

    Args:
        callbacks: what the user passed.
        stopping: the rule that the program has already.

    Raises:
        NetError: for something other than a list of callbacks, or several rules or callbacks that resume a run.
    """
    listed = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    wrong = [each for each in listed if not isinstance(each, Callback | EarlyStopping)]
    if wrong or listed is not callbacks:
        hint = "; jn.train.Callback(on_epoch_end=function) calls function(number, state, row) after every epoch"
        if not wrong:
            hint = "; put it in brackets, [callback]"
        elif is_uncalled(wrong[0]):
            hint = f"; call it, jn.train.{wrong[0].__name__}(...)"
        elif not callable(wrong[0]):
            hint = ""
        got = shown(wrong[0]) if wrong else type(callbacks).__name__
        raise NetError(f"expects a list of callbacks, [jn.train.progress(), ...], got {got}{hint}")
    rules = [each for each in listed if isinstance(each, EarlyStopping)]
    if len(rules) + (stopping is not None) > 1:
        raise NetError("gets several rules for early stopping; give one")
    watchers = [each for each in listed if isinstance(each, Callback)]
    if sum(each.restore is not _nothing for each in watchers) > 1:
        hint = "one checkpoint(folder, keep=3, best='validation/loss') keeps the last and the best"
        raise NetError(f"gets several callbacks that resume a run; give one: {hint}")
    return (rules or [None])[0], watchers


def run_with(program: Program, key: Key, callbacks: Sequence[Callback]) -> tuple[TrainState, History]:
    """Run a program with callbacks that have been checked; it returns and raises what `run` does."""
    begun: list[Callback] = []
    with interrupts() as interrupted:
        try:
            restored = None
            for callback in callbacks:
                if restored is None and callback.restore is not _nothing:
                    # From here on its `on_end` must be called: it may hold a lock.
                    begun.append(callback)
                    restored = callback.restore(program, key)
            if restored is None:
                state = compiled(type(program.recipe).start, [program.recipe, program.row], [key])(key)
                rows = list[Row]()
            else:
                state, rows = restored
            for callback in callbacks:
                callback.on_start(program)
                # The callback that restores is in the list already.
                if callback not in begun:
                    begun.append(callback)
            if program.stream is None:
                function, data = compiled_epoch(program, state), (program.train, program.validation)
                epochs = nullcontext(lambda state: function(state, *data))
            else:
                epochs = streamed_epochs(program.recipe, program.stream, program.epochs, program.validation, state)
            with _exit_together(), epochs as run_epoch:
                asked = False
                # A restored run may be over already.
                while not _any_process(asked or bool(halted(state) or interrupted)) and len(rows) < program.epochs:
                    state, row = run_epoch(state)
                    # Copies: what `device_get` returns on a CPU is the device's own buffer.
                    rows.append({name: np.array(value) for name, value in jax.device_get(row).items()})
                    asked = ask(interrupted, callbacks, len(rows) - 1, state, rows[-1])
            for callback in callbacks:
                callback.on_finish(len(rows), state)
        finally:
            # In reverse order, as nested contexts end
            for callback in reversed(begun):
                callback.on_end()
    if rows:
        history = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    else:
        # Ended before the first epoch: empty arrays under the names that it would report
        shapes = traced_epoch(program, state).out_info[1]
        history = {name: np.zeros((0, *each.shape), each.dtype) for name, each in shapes.items()}
    if state.failed is not None and int(state.failed) >= 0:
        try:
            why = find_nonfinite(program, state)
        except Exception as error:
            # Such as running out of memory: the train state matters more than the explanation.
            why = f"stops at step {int(state.failed)}, at a value that is not finite; looking for it failed: {error}"
        raise NonFiniteError(why, state, history)
    # Early stopping may restore the best parameters.
    if program.stopping is not None:
        state = compiled(Recipe.finish, [program.recipe], [state])(state)
    return state, history


def _any_process(ends: bool) -> bool:
    """Tell whether the run ends in any of the processes that train together."""
    if jax.process_count() == 1:
        return ends
    from jax.experimental.multihost_utils import process_allgather

    return bool(process_allgather(np.array(ends)).any())


@contextmanager
def _exit_together() -> Iterator[None]:
    """End this process at an exception if others train with it: they would wait for it at the next collective."""
    try:
        yield
    except BaseException:
        if jax.process_count() > 1:
            traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            # Not `sys.exit`, which would wait for the others to leave JAX's coordination service.
            os._exit(1)
        raise


def ask(interruption: Interruption, callbacks: Sequence[Callback], number: int, state: TrainState, row: Row) -> bool:
    """Call `on_epoch_end` of all callbacks with scalars as `float`, and return whether one asks to end the run.

    Raises:
        NetError: if one returns anything but a bool or `None`.
    """
    ends, values = False, {name: float(each) if np.ndim(each) == 0 else each for name, each in row.items()}
    for callback in callbacks:
        with interruption.noting():
            answer = callback.on_epoch_end(number, state, values)
            # A value returned by accident would end the run.
            if not (answer is None or isinstance(answer, bool) or getattr(answer, "dtype", None) == np.bool_):
                hint = "True ends the run; leave out the return"
                text = f"expects on_epoch_end to return True, False or None, got {shown(answer)}; {hint}"
                raise NetError(text, label="Callback")
            ends |= bool(answer)
    return ends
