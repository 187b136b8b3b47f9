"""The host's loop around a program: callbacks, interruption and errors."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxnets.core.checks import check_function
from jaxnets.core.compiled import compiled
from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, check_key
from jaxnets.train.arguments import callback_hint
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.debug.nonfinite import find_nonfinite
from jaxnets.train.interruption import Interruption, interrupts
from jaxnets.train.program import History, Program, begin, compiled_epoch, halted, traced_epoch
from jaxnets.train.state import TrainState
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
            keep. If it returns `True`, the run ends here.
        on_end: called once at the end, even if an exception ends the run, unless `on_start` was never reached.
        restore: called with the program and the key before `on_start`; returns `(state, rows)` of an earlier run to
            resume, or `None`.
        on_finish: called with the number of completed epochs and the train state, before `on_end`, when the run ends in
            order: after its last epoch, by early stopping, by a signal, or by a callback that raises `SystemExit`.
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
    """Training met a non-finite value and halted before the step that did.

    Attributes:
        state: the train state with the last good parameters.
        history: the values reported up to there.
    """

    def __init__(self, message: str, state: TrainState, history: History) -> None:
        super().__init__(message, label="training")
        self.state, self.history = state, history


@explained
def run(
    program: Program, *, key: Key, callbacks: Sequence[Callback | EarlyStopping] = ()
) -> tuple[TrainState, History]:
    """Run a program epoch by epoch from the host, and return what `program(key)` returns, to the bit.

    Each epoch reuses the memory of the one before. Between epochs the callbacks see the train state. Ctrl-C, or a
    callback that raises `KeyboardInterrupt`, ends the run after the current epoch, and what was computed is returned.
    SIGTERM, by which clusters end a job, does so too, but instead of returning, `run` then calls the handler that the
    process had set, or else raises `SystemExit(143)`. A `SystemExit` of a callback is raised again in the same way. In
    each case `checkpoint` has saved by then. A second signal ends the run at once. Signals are handled in the main
    thread only.

    If several processes train together, all end after the same epoch when one is told to. An exception in one of
    them ends this process at once with exit status 1, because the others would wait for it forever.

    Args:
        program: what to run.
        key: the random key; initial values, order and all other randomness derive from it.
        callbacks: `progress()`, `checkpoint(folder)`, `jsonl(path)`, `early_stopping(...)`, or any `Callback`.

    Returns:
        The final train state, and the history: a NumPy array `(epochs,)` for each reported name, as long as the run.

    Raises:
        NetError: if `key` is no random key, `callbacks` no list of callbacks, or there are several rules for early
            stopping, or several callbacks that resume a run.
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
        program = replace(program, stopping=rule.settle(program.recipe.directions))
    return run_with(program, key, watchers)


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
        hint = callback_hint(wrong[0]) if wrong else "; put it in brackets, [callback]"
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
    """Run a program with callbacks that have been checked; `run` says what it returns and raises."""
    begun: list[Callback] = []
    with interrupts() as interrupted:
        try:
            restored = None
            for callback in callbacks:
                if restored is None and callback.restore is not _nothing:
                    # Its `on_end` is due from here on: it may hold a lock.
                    begun.append(callback)
                    restored = callback.restore(program, key)
            if restored is None:
                state = compiled(begin, [program.recipe, program.stopping, program.row], [key])(key)
                rows = list[Row]()
            else:
                state, rows = restored
            for callback in callbacks:
                callback.on_start(program)
                # The callback that restores is there already.
                if callback not in begun:
                    begun.append(callback)
            with _exit_together(), _epochs(program, state) as run_epoch:
                # A restored run may be over already.
                over = _any_process(_is_over(state) or bool(interrupted))
                while len(rows) < program.epochs and not over:
                    state, row = run_epoch(state)
                    # Copies: what `device_get` returns on a CPU is the device's own buffer.
                    rows.append({name: np.array(value) for name, value in jax.device_get(row).items()})
                    # Scalars as `float`, for callbacks
                    values = {name: float(each) if np.ndim(each) == 0 else each for name, each in rows[-1].items()}
                    asked = ask(interrupted, callbacks, len(rows) - 1, state, values)
                    over = _any_process(asked or _is_over(state) or bool(interrupted))
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
        raise NonFiniteError(_explanation(program, state), state, history)
    # Early stopping may restore the best parameters.
    if program.stopping is not None:
        state = compiled(EarlyStopping.finish, [program.stopping], [state])(state)
    return state, history


def _epochs(
    program: Program, state: TrainState
) -> AbstractContextManager[Callable[[TrainState], tuple[TrainState, History]]]:
    """Return a context in which the function that runs the next epoch is available."""
    if program.stream is None:
        run_epoch, data = compiled_epoch(program, state), (program.train, program.validation)
        return nullcontext(lambda state: run_epoch(state, *data))
    return streamed_epochs(program.stream, program.epochs, program.stopping, program.validation, state)


def _is_over(state: TrainState) -> bool:
    over = halted(state)
    return over is not None and bool(over)


def _explanation(program: Program, state: TrainState) -> str:
    try:
        return find_nonfinite(program, state)
    except Exception as error:
        # Out of memory, say: the train state is worth more than its explanation.
        return f"stops at step {int(state.failed)}, at a value that is not finite; looking for it failed: {error}"


def _any_process(ends: bool) -> bool:
    """Tell whether the run ends in any of the processes that train together."""
    if jax.process_count() == 1:
        return ends
    from jax.experimental.multihost_utils import process_allgather

    return bool(process_allgather(np.array(ends)).any())


@contextmanager
def _exit_together() -> Iterator[None]:
    """End this process at an exception if others train with it: they would wait for it at the next exchange."""
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


def _asks_to_end(answer: Any) -> bool:
    """Tell whether a callback asks to end the run by what it returns.

    Raises:
        NetError: for anything but a bool or `None`: a value returned by accident would end the run.
    """
    if answer is None or isinstance(answer, bool) or getattr(answer, "dtype", None) == np.bool_:
        return bool(answer)
    hint = "True ends the run; leave out the return"
    raise NetError(f"expects on_epoch_end to return True, False or None, got {shown(answer)}; {hint}", label="Callback")


def ask(interruption: Interruption, callbacks: Sequence[Callback], number: int, state: TrainState, row: Row) -> bool:
    """Call `on_epoch_end` of all callbacks, and return whether one of them asks to end the run."""
    ends = False
    for callback in callbacks:
        with interruption.noting():
            ends |= _asks_to_end(callback.on_epoch_end(number, state, row))
    return ends
