"""The host's loop around a program: the only place for what a person watches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from jaxnets.net import Key, check_key
from jaxnets.train.program import History, Program
from jaxnets.train.run import Run

# Jitted once, so that programs that differ in their key or data alone compile once.
_start = jax.jit(Program.start)
_segment = jax.jit(Program.segment, donate_argnums=1)


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Callback:
    """What the host does around the segments of a run.

    Attributes:
        on_start: called with the program before the first segment.
        on_segment: called after each segment with its number from 0, the run, and its scalars by name. The
            run's buffers are given away to the next segment: copy what is to be kept.
        on_end: called once at the end, also when the run is broken off by an exception.
    """

    on_start: Callable[[Program], None] = _nothing
    on_segment: Callable[[int, Run, dict[str, float]], None] = _nothing
    on_end: Callable[[], None] = _nothing


def fit(program: Program, key: Key, callbacks: Sequence[Callback] = ()) -> tuple[Run, History]:
    """Run a program segment by segment from the host, and return what `program(key)` returns.

    Each segment's memory is given to the next. Between segments the callbacks see the run.

    Args:
        program: what to run.
        key: initial values, order and all other randomness come from it.
        callbacks: `progress()`, `jsonl(path)`, or any `Callback`.

    Returns:
        The finished run, and the history: a NumPy array `(segments,)` for each name reported.

    Raises:
        NetError: if `key` is no random key.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> x, y = jnp.ones((10, 3)), jnp.zeros(10, int)
    >>> program = jn.train.program(jn.dense(2), jn.objective(jn.losses.cross_entropy), optax.sgd(0.1), (x, y),
    ...                            epochs=3, batch_size=5)
    >>> run, history = fit(program, jax.random.key(0))
    >>> history["loss"].shape
    (3,)
    """
    check_key(key)
    history: list[dict[str, np.ndarray]] = []
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            callback.on_start(program)
            begun.append(callback)
        run = _start(program, key)
        for number in range(program.segments):
            run, row = _segment(program, run)
            history.append(jax.device_get(row))
            scalars = {name: float(value) for name, value in history[-1].items() if np.ndim(value) == 0}
            for callback in callbacks:
                callback.on_segment(number, run, scalars)
    finally:
        for callback in reversed(begun):
            callback.on_end()
    return run, jax.tree.map(lambda *values: np.stack(values), *history)
