"""Checkpoints into one folder, in the background, as often as a share of the time allows."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxnets.train.checkpoints import archive
from jaxnets.train.checkpoints.lock import lock

FIRST_GUESS = 0.1  # seconds that a save may take, before any was timed


class Writer:
    """What writes into a folder.

    Attributes:
        folder: where to.
        saved: the number of the last checkpoint that was begun, or read.
    """

    def __init__(self, folder: Path, overhead: float | None) -> None:
        self.folder, self.overhead = folder, overhead
        self.saved, self._took, self._broken = 0, FIRST_GUESS, False
        self._manager: Any = None
        self._lock: Any = None
        self._began = self._ended = time.perf_counter()

    def check_folder(self) -> Path:
        """Make the folder if it is not there, check that it can be written to, lock it, and return it.

        Raises:
            OSError: if it can't be written to.
            NetError: if another run is writing there, or a search is kept there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            text = f"checkpoints can't be written there ({error.strerror}); choose a folder that can be written to"
            raise OSError(error.errno, text, str(self.folder)) from None
        archive.check_no_search(self.folder)
        self._lock = lock(self.folder)
        return self.folder

    def open(self, keep: int, better: Callable[[Mapping[str, Any]], float] | None = None, saved: int = 0) -> None:
        """Begin behind the checkpoint `saved`; the other arguments are those of `archive.manager`."""
        self.saved, self._broken = saved, False
        self._manager = archive.manager(self.folder, keep, better, self._finished)
        self._began = self._ended = time.perf_counter()

    def affordable(self) -> bool:
        """Tell whether the next may be written now, within its share of the time.

        Raises:
            OSError: if the one before could not be written.
        """
        with self._errors():
            self._manager.check_for_errors()
        if self.overhead is None:
            return True
        waited = time.perf_counter() - self._ended
        return waited * self.overhead >= self._took and not self._manager.is_saving_in_progress()

    def save(self, packed: archive.Packed, about: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Begin to write a checkpoint.

        Raises:
            OSError: if the one before could not be written.
        """
        with self._errors():
            self._manager.wait_until_finished()
            self._began = time.perf_counter()
            archive.write(self._manager, packed, about, metrics)
        self.saved = packed.number

    def close(self) -> None:
        """Wait until the last is whole, and unlock the folder.

        Raises:
            OSError: if it could not be written.
        """
        try:
            if self._manager is not None and not self._broken:
                with self._errors():
                    self._manager.close()
        finally:
            self._manager = None
            if self._lock is not None:
                self._lock()
                self._lock = None

    def _finished(self) -> None:
        self._ended = time.perf_counter()
        self._took = self._ended - self._began

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what goes wrong while writing into an error that says what is left."""
        try:
            yield
        except Exception as error:  # Orbax, its threads and the disk each raise their own
            self._broken = True
            raise OSError(
                f"a checkpoint could not be written to {self.folder} ({archive.brief(error)}); whole are: "
                f"{archive.listed(self.folder)}. With room made, the same goes on from the newest"
            ) from error
