"""Checkpoints in a folder, written and read by Orbax: each is complete or ignored, and every array has a checksum.

Orbax writes a checkpoint under a temporary name and renames it when it is complete. It does not detect a flipped bit in
an array's file, so checksums of the arrays and the description are saved too.
"""

import json
import math
import os
import socket
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets.core.errors import NetError, require
from jaxnets.core.paths import paths
from jaxnets.train.checkpoint.compatibility import checksum, to_host
from jaxnets.train.state import is_key

FORMAT = "jaxnets/checkpoint/1"


@dataclass(frozen=True)
class Saved:
    """A checkpoint in the host's memory.

    Attributes:
        number: the number of completed epochs.
        leaves: the train state's leaves by path; random keys as their data.
        history: the values of every epoch by name, `(number, ...)`.
        about: the rest of its description, such as the kinds of the random keys.
    """

    number: int
    leaves: Mapping[str, np.ndarray]
    history: Mapping[str, np.ndarray]
    about: Mapping[str, Any]


def pack(number: int, state: Any, history: Mapping[str, np.ndarray]) -> Saved:
    """Copy a train state to the host; its device memory may be reused afterwards."""
    leaves = paths(state)
    keys = {path: str(jax.random.key_impl(leaf)) for path, leaf in leaves.items() if is_key(leaf)}
    return Saved(number, {path: to_host(leaf) for path, leaf in leaves.items()}, history, {"keys": keys})


def numbers(folder: Path) -> list[int]:
    """Return the numbers of the complete checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    found = require("orbax.checkpoint", "checkpoint").utils.checkpoint_steps(folder.absolute())
    return sorted(number for number in found if (folder / str(number)).is_dir())  # skips 0007, a batch of a search


def listed(folder: Path) -> str:
    """Return the numbers of the complete checkpoints as text."""
    return ", ".join(map(str, numbers(folder))) or "none"


def read(folder: Path, number: int) -> Saved:
    """Return a checkpoint, after checking every array.

    Raises:
        Exception: of any kind, if it can't be read completely.
    """
    ocp = require("orbax.checkpoint", "checkpoint")
    path = folder.absolute() / str(number)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        note = reader.restore(path / "about")
    about = note["content"]
    if note["format"] != FORMAT:
        raise ValueError(f"its format is {note['format']!r}, not {FORMAT!r}")
    if note["crc32"] != _crc(about):
        raise ValueError("its description is damaged")
    if about["number"] != number:
        raise ValueError(f"it is checkpoint {about['number']} under another name")
    expected = {name: (np.dtype(kind), tuple(shape), crc) for name, (kind, shape, crc) in about["arrays"].items()}
    arrays = _read_arrays(path / "arrays", [name for name, (_, shape, _) in expected.items() if 0 not in shape])
    parts: dict[str, dict[str, np.ndarray]] = {"run": {}, "history": {}}
    for name, (kind, shape, crc) in expected.items():
        array = arrays.get(name, np.zeros(shape, kind))  # empty arrays are not written
        if array.dtype != kind or array.shape != shape or checksum(array) != crc:
            raise ValueError(f"the array {name} is damaged")
        part, _, rest = name.partition("/")
        parts[part][rest] = array
    return Saved(number, parts["run"], parts["history"], about)


def _read_arrays(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Read arrays with TensorStore, as Orbax does; for a damaged array, Orbax leaves tasks in a closed event loop."""
    import tensorstore

    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    specs = {name: {"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}} for name in names}
    # Futures: all arrays are opened and read at the same time.
    opened = {name: tensorstore.open(spec, open=True, read=True) for name, spec in specs.items()}
    arrays = {name: each.result().read() for name, each in opened.items()}
    return {name: np.asarray(each.result()) for name, each in arrays.items()}


def _crc(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def check_kind(saved: Saved, kind: str, folder: Path) -> None:
    """Check that a checkpoint is of the given kind, "run" or "sweep".

    Raises:
        NetError: if it is of the other kind.
    """
    found = "sweep" if "layout" in saved.about else "run"
    if found != kind:
        hint = "checkpoint(folder) resumes a run, sweep(..., checkpoint=folder) a sweep"
        place = f"checkpoint {saved.number} in {folder}"
        raise NetError(f"is of a {found}, not of a {kind}; {hint}: give each a folder of its own", label=place)


def newest(folder: Path, kind: str = "run") -> tuple[Saved, list[int]]:
    """Return the newest checkpoint that can be read, and the numbers of later ones that can't.

    Raises:
        NetError: if none can be read, or it is not of the given `kind`, "run" or "sweep".

    Warns:
        UserWarning: with the reason for each that is skipped.
    """
    unreadable: list[int] = []
    reasons = []
    for number in reversed(numbers(folder)):
        try:
            saved = read(folder, number)
        except Exception as error:  # whatever a damaged file makes its reader raise
            unreadable.append(number)
            reasons.append(f"checkpoint {number} can't be read ({brief(error)})")
            continue
        check_kind(saved, kind, folder)
        if reasons:
            warnings.warn(f"{folder}: {'; '.join(reasons)}; taking checkpoint {number}", stacklevel=2)
        return saved, unreadable
    hint = "move the folder away to start again"
    raise NetError(f"finds no checkpoint that can be read: {'; '.join(reasons)}; {hint}", label=str(folder))


def move_away(folder: Path, number: int) -> None:
    """Rename a checkpoint, so that it is ignored from then on."""
    path, copy = folder / str(number), 1
    while (target := path.with_name(f"{number}.unreadable{copy}")).exists():
        copy += 1
    path.rename(target)


def brief(error: BaseException) -> str:
    """Return the first line of an error's text, cut to a readable length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def rank(mode: str, value: Any) -> float:
    """Return a number that is larger for the better of two values, and smallest for NaN."""
    signed = float(value) if mode == "max" else -float(value)
    return -math.inf if math.isnan(signed) else signed


def batch_of(folder: Path, number: int) -> Path:
    """Return the folder in which a search saves one of its batches."""
    return folder / f"{number:04d}"


def lock(folder: Path) -> Callable[[], None]:
    """Lock a folder, and return the function that unlocks it.

    The system releases the lock when the process dies, however it dies. Windows and some network drives have no such
    locks, and nothing is locked there; over NFS the lock holds across machines.

    Raises:
        NetError: if it is locked already; the error names the process.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return lambda: None
    path = folder / ".lock"
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 200).decode(errors="replace") or "another process"
            os.close(file)
            hint = "give each run a folder of its own, or wait until that one has ended"
            raise NetError(f"is being written to by {holder}; {hint}", label=str(folder)) from None
        except OSError:  # no locks on this drive
            os.close(file)
            return lambda: None
        # Another process may have unlocked and removed the file between `open` and `flock`.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file)):
                break
        os.close(file)
    with suppress(OSError):  # a full disk
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def unlock() -> None:
        with suppress(OSError):
            path.unlink()
        os.close(file)

    return unlock


class Writer:
    """Writes checkpoints into a folder, in the background.

    Attributes:
        folder: the folder.
        saved: the number of the last checkpoint whose writing has begun, or that was read.
    """

    def __init__(self, folder: Path, overhead: float | None) -> None:
        self.folder: Path = folder
        self.overhead: float | None = overhead
        self.saved: int = 0
        self._broken = False
        self._duration = 0.1  # seconds that a save takes: a guess until one is measured
        self._manager: Any = None
        self._unlock: Callable[[], None] | None = None
        self._began = self._ended = time.perf_counter()

    def check_folder(self) -> Path:
        """Create the folder if needed, check that it can be written to, lock it, and return it.

        Raises:
            OSError: if it can't be written to.
            NetError: if another run is writing there, or it contains a search.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            text = f"checkpoints can't be written there ({error.strerror}); choose a folder that can be written to"
            raise OSError(error.errno, text, str(self.folder)) from None
        if batch_of(self.folder, 0).is_dir():
            hint = "search(..., checkpoint=folder) resumes it; give each run and each sweep a folder of its own"
            raise NetError(f"holds a search, not a run or a sweep; {hint}", label=str(self.folder))
        self._unlock = lock(self.folder)
        return self.folder

    def open(self, keep: int, better: Callable[[Mapping[str, Any]], float] | None = None, saved: int = 0) -> None:
        """Open the folder for writing.

        Args:
            keep: how many of the last checkpoints are kept.
            better: a function of a checkpoint's metrics, larger for a better one; the best is kept, too.
            saved: the number of the checkpoint that the run resumes from.
        """
        ocp = require("orbax.checkpoint", "checkpoint")
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

        kept: list[Any] = [policies.LatestN(keep)]
        if better is not None:
            kept.append(policies.BestN(get_metric_fn=better, n=1, keep_checkpoints_without_metrics=False))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            best_fn=better,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._finished,
                # Orbax awaits asynchronous creation by signals that all threads of the process share.
                create_directories_asynchronously=False,
            ),
        )
        handlers = {"arrays": ocp.PyTreeCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options, item_handlers=handlers)
        self.saved, self._broken = saved, False
        self._began = self._ended = time.perf_counter()

    def affordable(self) -> bool:
        """Tell whether the next checkpoint may be written now, within the allowed fraction of the time.

        Raises:
            OSError: if the previous one could not be written.
        """
        with self._errors():
            self._manager.check_for_errors()
        if self.overhead is None:
            return True
        waited = time.perf_counter() - self._ended
        return waited * self.overhead >= self._duration and not self._manager.is_saving_in_progress()

    def save(self, packed: Saved, about: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Begin to write a checkpoint, once the previous one is complete.

        Raises:
            OSError: if the previous one could not be written.
        """
        ocp = require("orbax.checkpoint", "checkpoint")
        arrays = {f"run/{path}": leaf for path, leaf in packed.leaves.items()}
        arrays |= {f"history/{name}": values for name, values in packed.history.items()}
        described = {name: [str(each.dtype), list(each.shape), checksum(each)] for name, each in arrays.items()}
        content = {**about, **packed.about, "number": packed.number, "arrays": described}
        note = {"format": FORMAT, "crc32": _crc(content), "content": content}
        filled = {name: each for name, each in arrays.items() if each.size}  # Orbax writes no empty arrays
        items = ocp.args.Composite(arrays=ocp.args.PyTreeSave(filled), about=ocp.args.JsonSave(note))
        with self._errors():
            self._manager.wait_until_finished()
            self._began = time.perf_counter()
            self._manager.save(packed.number, args=items, metrics=dict(metrics), force=True)
        self.saved = packed.number

    def close(self) -> None:
        """Wait until the last checkpoint is complete, and unlock the folder.

        Raises:
            OSError: if it could not be written.
        """
        try:
            if self._manager is not None and not self._broken:
                with self._errors():
                    self._manager.close()
        finally:
            self._manager = None
            if self._unlock is not None:
                self._unlock()
                self._unlock = None

    def _finished(self) -> None:
        """Record how long a save took; called from Orbax's thread."""
        self._ended = time.perf_counter()
        self._duration = self._ended - self._began

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert an error during writing to one that lists the complete checkpoints."""
        try:
            yield
        except Exception as error:  # Orbax, its threads and the disk each raise their own
            self._broken = True
            raise OSError(
                f"a checkpoint could not be written to {self.folder} ({brief(error)}); complete ones: "
                f"{listed(self.folder)}. Once there is space, the same call resumes from the newest"
            ) from error
