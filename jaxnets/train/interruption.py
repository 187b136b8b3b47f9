"""Ending a run after its current epoch, by a signal or by a callback that raises."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from signal import SIG_DFL, SIGINT, SIGTERM, default_int_handler, getsignal, signal
from threading import current_thread, main_thread
from typing import Any


@dataclass
class Interruption:
    """The requests to end a run; true as soon as there is one.

    Attributes:
        signals: the numbers of the signals received.
        leaving: the exception by which a callback ended the run.
    """

    signals: list[int] = field(default_factory=list)
    leaving: BaseException | None = None

    def __bool__(self) -> bool:
        return bool(self.signals) or self.leaving is not None

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Record a `KeyboardInterrupt` or `SystemExit` of a callback instead of raising it."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as error:
            if len(self.signals) > 1:  # raised by the second signal
                raise
            self.leaving = error


@contextmanager
def interrupts() -> Iterator[Interruption]:
    """Yield an `Interruption` that records the first SIGINT or SIGTERM; a second one raises.

    SIGTERM takes effect when the context ends. Outside the main thread no handler is changed, nor that of SIGINT if it
    does not raise `KeyboardInterrupt`.
    """
    interruption, former = Interruption(), dict[int, Any]()

    def note(number: int, frame: Any) -> None:
        interruption.signals.append(number)
        if len(interruption.signals) > 1:
            leave(number, frame)

    def leave(number: int, frame: Any) -> None:
        if callable(former[number]):
            former[number](number, frame)
        else:
            sys.exit(128 + number)  # the shell's convention for a process ended by a signal

    if current_thread() is main_thread():
        if getsignal(SIGINT) is default_int_handler:
            former[SIGINT] = signal(SIGINT, note)
        # A handler that is not Python's own reads as None, and could not be restored.
        if callable(handler := getsignal(SIGTERM)) or handler is SIG_DFL:
            former[SIGTERM] = signal(SIGTERM, note)
    try:
        yield interruption
    finally:
        for number, handler in former.items():
            signal(number, handler)
        if SIGTERM in interruption.signals:
            leave(SIGTERM, None)
    if isinstance(interruption.leaving, SystemExit):
        raise interruption.leaving
