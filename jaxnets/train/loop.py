"""The host's loop around a program: the only place for what a person watches."""

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
from jaxnets.train.debug.nonfinite import blame
from jaxnets.train.interruption import Interruption, interrupts
from jaxnets.train.program import History, Program, begin, compiled_epoch, halted, traced_epoch
from jaxnets.train.state import TrainState
from jaxnets.train.streaming import epochs

Row = dict[str, Any]


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Callback:
    """What the host does around the epochs of a run.

    Attributes:
        on_start: called with the program before the first epoch.
        on_epoch_end: called after each epoch with its number from 0, the run, and its values by name: scalars as
            `float`, all else as NumPy arrays. The run's buffers are given away to the next epoch: copy what is to be
            kept. If it returns `True`, the run ends here.
        on_end: called once at the end, also when the run is broken off by an exception, `on_start` by one too.
        restore: called with the program and the key before `on_start`; gives `(run, rows)` of an earlier
            `fit` to go on with, or `None`.
        on_finish: called with the number of epochs done and the run, before `on_end`, when the run ends in order:
            at its last epoch, by early stopping, by a signal, or by a callback that raises `SystemExit`.
    """

    on_start: Callable[[Program], None] = _nothing
    on_epoch_end: Callable[[int, TrainState, Row], Any] = _nothing
    on_end: Callable[[], None] = _nothing
    restore: Callable[[Program, Key], tuple[TrainState, list[Row]] | None] = _nothing
    on_finish: Callable[[int, TrainState], None] = _nothing

    def __post_init__(self) -> None:
        with labeled_as("Callback"):
            check_function("on_start", self.on_start, "(program) -> None")
            check_function("on_epoch_end", self.on_epoch_end, "(number, run, row) -> bool or None")
            check_function("on_end", self.on_end, "() -> None")
            check_function("restore", self.restore, "(program, key) -> (run, rows) or None")
            check_function("on_finish", self.on_finish, "(number, run) -> None")


class NonFiniteError(NetError):
    """A value was not finite, and the run stood still before it.

    Attributes:
        run: the run with the last good parameters.
        history: what was reported up to there.
    """

    def __init__(self, message: str, run: TrainState, history: History) -> None:
        super().__init__(message, label="training")
        self.run, self.history = run, history


@explained
def run(
    program: Program, *, key: Key, callbacks: Sequence[Callback | EarlyStopping] = ()
) -> tuple[TrainState, History]:
    """Run a program epoch by epoch from the host, and return what `program(key)` returns.

    Each epoch's memory is given to the next. Between epochs the callbacks see the run. Ctrl-C, or a callback that
    raises `KeyboardInterrupt`, ends the run after the epoch that is being computed, and what there is is returned. So
    does SIGTERM, by which clusters end a job, but then `SystemExit(143)` is raised in place of a return, or the
    handler called that the process had set; a `SystemExit` of a callback is raised again likewise. Whichever it was,
    `checkpoint` has saved by then; a second signal breaks the run off. Signals are heeded in the main thread alone.

    Of several processes that train together, all end after the same epoch when one is told to. An exception in one
    of them ends this process at once with exit status 1, as the others would wait for it for ever.

    Args:
        program: what to run.
        key: initial values, order and all other randomness come from it.
        callbacks: `progress()`, `checkpoint(folder)`, `jsonl(path)`, `early_stopping(...)`, or any `Callback`.

    Returns:
        The finished run, and the history: a NumPy array `(epochs,)` for each name reported, as long as the run went.

    Raises:
        NetError: if `key` is no random key, `callbacks` no list of them, or there are several rules for stopping,
            or callbacks that a run goes on from.
        NonFiniteError: if a value was not finite; with the last good run and the history.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x, y = jnp.ones((10, 3)), jnp.zeros(10, int)
    >>> program = jn.train.program(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.sgd(0.1), (x, y),
    ...                            epochs=3, batch_size=5)
    >>> state, history = run(program, key=jax.random.key(0))
    >>> history["loss"].shape
    (3,)
    """
    if not isinstance(program, Program):
        hint = "jn.train.run(jn.train.program(net, objective, optimizer, data, epochs=10), key=key)"
        raise NetError(f"expects a program and a key, got {shown(program)} and {shown(key)}; {hint}", label="run")
    with labeled_as("run"):
        check_key(key)
    listed = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    wrong = [each for each in listed if not isinstance(each, Callback | EarlyStopping)]
    if wrong or listed is not callbacks:
        hint = callback_hint(wrong[0]) if wrong else "; put it in brackets, [callback]"
        got = shown(wrong[0]) if wrong else type(callbacks).__name__
        raise NetError(f"expects a list of callbacks, [jn.train.progress(), ...], got {got}{hint}", label="run")
    rules = [each for each in callbacks if isinstance(each, EarlyStopping)]
    if len(rules) + (program.stopping is not None) > 1:
        raise NetError("gets several rules for early stopping; give one", label="run")
    program = replace(program, stopping=rules[0].settle(program.recipe.directions)) if rules else program
    watchers = [each for each in callbacks if isinstance(each, Callback)]
    if sum(each.restore is not _nothing for each in watchers) > 1:
        hint = "one checkpoint(folder, keep=3, best='validation/loss') keeps the last and the best"
        raise NetError(f"gets several callbacks that a run goes on from; give one: {hint}", label="run")
    begun: list[Callback] = []
    with interrupts() as interrupted:
        try:
            restored = None
            for callback in watchers:
                if restored is None and callback.restore is not _nothing:
                    begun.append(callback)
                    restored = callback.restore(program, key)
            run, rows = restored or (_start(program, key), [])
            for callback in watchers:
                callback.on_start(program)
                if callback not in begun:
                    begun.append(callback)
            with _together(), _epochs(program, run) as run_epoch:
                over = _agreed(_is_over(run) or bool(interrupted))
                while len(rows) < program.epochs and not over:
                    run, row = run_epoch(run)
                    # Copies: what `device_get` returns keeps the device's buffer.
                    rows.append({name: np.array(value) for name, value in jax.device_get(row).items()})
                    values = {name: float(each) if np.ndim(each) == 0 else each for name, each in rows[-1].items()}
                    asked = ask(interrupted, watchers, len(rows) - 1, run, values)
                    over = _agreed(asked or _is_over(run) or bool(interrupted))
            for callback in watchers:
                callback.on_finish(len(rows), run)
        finally:
            for callback in reversed(begun):
                callback.on_end()
    if rows:
        history = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    else:
        shapes = traced_epoch(program, run).out_info[1]
        history = {name: np.zeros((0, *each.shape), each.dtype) for name, each in shapes.items()}
    if run.failed is not None and int(run.failed) >= 0:
        raise NonFiniteError(_why(program, run), run, history)
    return _finish(program, run), history


def _start(program: Program, key: Key) -> TrainState:
    return compiled(begin, [program.recipe, program.stopping, program.row], [key])(key)


def _finish(program: Program, run: TrainState) -> TrainState:
    if program.stopping is None:
        return run
    return compiled(EarlyStopping.finish, [program.stopping], [run])(run)


def _epochs(
    program: Program, run: TrainState
) -> AbstractContextManager[Callable[[TrainState], tuple[TrainState, History]]]:
    """Give the function that takes the run through its next epoch."""
    if program.stream is None:
        run_epoch, data = compiled_epoch(program, run), (program.train, program.validation)
        return nullcontext(lambda run: run_epoch(run, *data))
    return epochs(program.stream, program.epochs, program.stopping, program.validation, run)


def _is_over(run: TrainState) -> bool:
    over = halted(run)
    return over is not None and bool(over)


def _why(program: Program, run: TrainState) -> str:
    try:
        return blame(program, run)
    except Exception as error:  # out of memory, say: the run is worth more than its explanation
        return f"stops at step {int(run.failed)}, at a value that is not finite; looking for it failed: {error}"


def _agreed(ends: bool) -> bool:
    """Tell whether the run ends in any of the processes that train together."""
    if jax.process_count() == 1:
        return ends
    from jax.experimental.multihost_utils import process_allgather

    return bool(process_allgather(np.array(ends)).any())


@contextmanager
def _together() -> Iterator[None]:
    """End this process at an exception if others would wait for it: at the next exchange, or to leave JAX's service."""
    try:
        yield
    except BaseException:
        if jax.process_count() > 1:
            traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        raise


def _ends(said: Any) -> bool:
    """Tell whether a callback asks for the run's end by what it returns.

    Raises:
        NetError: for anything but a bool or `None`: a value that is handed back by the way would end the run.
    """
    if said is None or isinstance(said, bool | np.bool_) or (isinstance(said, jax.Array) and said.dtype == bool):
        return bool(said)
    hint = "True ends the run; leave out the return"
    raise NetError(f"expects on_epoch_end to return True, False or None, got {shown(said)}; {hint}", label="Callback")


def ask(interruption: Interruption, callbacks: Sequence[Callback], number: int, run: TrainState, row: Row) -> bool:
    """Show all callbacks a epoch, and return whether one of them asks for the run's end."""
    ends = False
    for callback in callbacks:
        with interruption.noting():
            ends |= _ends(callback.on_epoch_end(number, run, row))
    return ends
