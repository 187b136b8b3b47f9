"""The host's loop around a program: the only place for what a person watches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from signal import SIGINT, default_int_handler, getsignal, signal
from threading import current_thread, main_thread
from typing import Any

import jax
import numpy as np

from jaxnets.errors import NetError
from jaxnets.net import Key, check_key
from jaxnets.train.diagnostics.blame import blame
from jaxnets.train.program import History, Program, halted
from jaxnets.train.run import Run
from jaxnets.train.stopping import EarlyStopping
from jaxnets.train.streamed import epochs

# Jitted once, so that programs that differ in their key or data alone compile once.
_start = jax.jit(Program.start)
_segment = jax.jit(Program.segment, donate_argnums=1)
_finish = jax.jit(Program.finish)

Row = dict[str, Any]


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Callback:
    """What the host does around the segments of a run.

    Attributes:
        on_start: called with the program before the first segment.
        on_segment: called after each segment with its number from 0, the run, and its values by name: scalars as
            `float`, all else as NumPy arrays. The run's buffers are given away to the next segment: copy what is to be
            kept. If it returns `True`, the run ends here.
        on_end: called once at the end, also when the run is broken off by an exception.
        restore: called with the program and the key before `on_start`; gives `(run, rows)` of an earlier
            `fit` to go on with, or `None`.
        on_finish: called with the number of segments done and the run, before `on_end`, when the run ends in order:
            at its last segment, by early stopping, or by Ctrl-C.
    """

    on_start: Callable[[Program], None] = _nothing
    on_segment: Callable[[int, Run, Row], Any] = _nothing
    on_end: Callable[[], None] = _nothing
    restore: Callable[[Program, Key], tuple[Run, list[Row]] | None] = _nothing
    on_finish: Callable[[int, Run], None] = _nothing


class Diverged(NetError):
    """A value was not finite, and the run stood still before it.

    Attributes:
        run: the run with the last good parameters.
        history: what was reported up to there.
    """

    def __init__(self, message: str, run: Run, history: History) -> None:
        super().__init__(message, label="fit")
        self.run, self.history = run, history


def fit(program: Program, key: Key, callbacks: Sequence[Callback | EarlyStopping] = ()) -> tuple[Run, History]:
    """Run a program segment by segment from the host, and return what `program(key)` returns.

    Each segment's memory is given to the next. Between segments the callbacks see the run. Ctrl-C ends the run after
    the segment that is being computed, and what there is returned; a second one breaks it off.

    Args:
        program: what to run.
        key: initial values, order and all other randomness come from it.
        callbacks: `progress()`, `checkpoint(folder)`, `jsonl(path)`, `early_stopping(...)`, or any `Callback`.

    Returns:
        The finished run, and the history: a NumPy array `(segments,)` for each name reported, as long as the run went.

    Raises:
        NetError: if `key` is no random key, `callbacks` no list of them, or there are several rules for stopping.
        Diverged: if a value was not finite; with the last good run and the history.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x, y = jnp.ones((10, 3)), jnp.zeros(10, int)
    >>> program = jn.train.program(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.sgd(0.1), (x, y),
    ...                            epochs=3, batch_size=5)
    >>> run, history = fit(program, jax.random.key(0))
    >>> history["loss"].shape
    (3,)
    """
    check_key(key)
    if not isinstance(callbacks, Sequence) or not all(isinstance(each, Callback | EarlyStopping) for each in callbacks):
        raise NetError(f"expects a list of callbacks, [jn.train.progress(), ...], got {callbacks!r}", label="fit")
    rules = [each for each in callbacks if isinstance(each, EarlyStopping)]
    if len(rules) + (program.stopping is not None) > 1:
        raise NetError("gets several rules for early stopping; give one", label="fit")
    program = replace(program, stopping=rules[0].settle(program.recipe.directions)) if rules else program
    watchers = [each for each in callbacks if isinstance(each, Callback)]
    begun: list[Callback] = []
    with interrupts() as interrupted:
        try:
            restored = next((found for each in watchers if (found := each.restore(program, key)) is not None), None)
            run, rows = restored or (_start(program, key), [])
            for callback in watchers:
                callback.on_start(program)
                begun.append(callback)
            over = _is_over(run)
            with _segments(program, run) as segment:
                while len(rows) < program.segments and not over and not interrupted:
                    run, row = segment(run)
                    rows.append(jax.device_get(row))
                    shown = {name: float(value) if np.ndim(value) == 0 else value for name, value in rows[-1].items()}
                    asked = [callback.on_segment(len(rows) - 1, run, shown) for callback in watchers]
                    over = _is_over(run) or any(asked)
            for callback in watchers:
                callback.on_finish(len(rows), run)
        finally:
            for callback in reversed(begun):
                callback.on_end()
    history = {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}
    if run.failed is not None and int(run.failed) >= 0:
        raise Diverged(_why(program, run), run, history)
    return _finish(program, run), history


def _segments(program: Program, run: Run) -> AbstractContextManager[Callable[[Run], tuple[Run, History]]]:
    """Give the function that takes the run through its next segment."""
    if program.stream is None:
        return nullcontext(partial(_segment, program))
    return epochs(program.stream, program.segments, program.stopping, program.validation, run)


def _is_over(run: Run) -> bool:
    over = halted(run)
    return over is not None and bool(over)


def _why(program: Program, run: Run) -> str:
    try:
        return blame(program, run)
    except Exception as error:  # out of memory, say: the run is worth more than its explanation
        return f"stops at step {int(run.failed)}, at a value that is not finite; looking for it failed: {error}"


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Give a list that the first Ctrl-C fills; a second one raises. Outside the main thread nothing is changed."""
    seen: list[int] = []
    if current_thread() is not main_thread() or getsignal(SIGINT) is not default_int_handler:
        yield seen
        return

    def note(number: int, frame: Any) -> None:
        if seen:
            default_int_handler(number, frame)
        seen.append(number)

    signal(SIGINT, note)
    try:
        yield seen
    finally:
        signal(SIGINT, default_int_handler)
