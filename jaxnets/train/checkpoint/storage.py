"""Runs in a folder, written and read by Orbax: each whole or not at all, every array with its checksum."""

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
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxnets.core.errors import NetError, require
from jaxnets.core.paths import paths
from jaxnets.train.checkpoint.compatibility import checksum, is_key, to_host

if TYPE_CHECKING:
    from orbax.checkpoint import CheckpointManager

FORMAT = "jaxnets/checkpoint/1"


@dataclass(frozen=True)
class Saved:
    """One checkpoint as it was read.

    Attributes:
        number: how many epochs had run.
        run: the run's leaves by path; random keys as their data.
        history: the values of every epoch by name, `(number, ...)`.
        about: what else was written down.
    """

    number: int
    run: Mapping[str, np.ndarray]
    history: Mapping[str, np.ndarray]
    about: Mapping[str, Any]


def orbax() -> Any:
    """Return the module of Orbax.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    return require("orbax.checkpoint", "checkpoint")


def manager(
    folder: Path, keep: int, better: Callable[[Mapping[str, Any]], float] | None, finished: Callable[[], None]
) -> "CheckpointManager":
    """Return what writes into a folder and throws away all but the last checkpoints and the best.

    Args:
        folder: where to.
        keep: how many of the last are kept.
        better: of the numbers beside a checkpoint, larger is better; `None` to keep none but the last.
        finished: called, from another thread, whenever a checkpoint is whole.
    """
    ocp = orbax()
    from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

    kept: list[Any] = [policies.LatestN(keep)]
    if better is not None:
        kept.append(policies.BestN(get_metric_fn=better, n=1, keep_checkpoints_without_metrics=False))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        best_fn=better,
        cleanup_tmp_directories=True,
        # Made asynchronously, folders are waited for by signals of the whole process, those of other threads' too.
        async_options=ocp.AsyncOptions(post_finalization_callback=finished, create_directories_asynchronously=False),
    )
    handlers = {"arrays": ocp.PyTreeCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)


@dataclass(frozen=True)
class Packed:
    """A run and its history on the host, in memory of their own.

    Attributes:
        number: how many epochs have run.
        arrays: all of them by name.
        keys: the kinds of the random keys among them, by path.
    """

    number: int
    arrays: Mapping[str, np.ndarray]
    keys: Mapping[str, str]


def pack(number: int, run: Any, history: Mapping[str, np.ndarray]) -> Packed:
    """Copy a run to the host; its own memory is free when this returns."""
    leaves = paths(run)
    arrays = {f"run/{path}": to_host(leaf) for path, leaf in leaves.items()}
    arrays |= {f"history/{name}": values for name, values in history.items()}
    keys = {path: str(jax.random.key_impl(leaf)) for path, leaf in leaves.items() if is_key(leaf)}
    return Packed(number, arrays, keys)


def write(into: "CheckpointManager", packed: Packed, about: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Begin to write a checkpoint, behind any that is being written."""
    ocp = orbax()
    listed = {name: [str(each.dtype), list(each.shape), checksum(each)] for name, each in packed.arrays.items()}
    content = {**about, "number": packed.number, "keys": packed.keys, "arrays": listed}
    note = {"format": FORMAT, "crc32": _crc(content), "content": content}
    filled = {name: each for name, each in packed.arrays.items() if each.size}  # Orbax takes no empty arrays
    items = ocp.args.Composite(arrays=ocp.args.PyTreeSave(filled), about=ocp.args.JsonSave(note))
    into.save(packed.number, args=items, metrics=dict(metrics), force=True)


def numbers(folder: Path) -> list[int]:
    """Return the numbers of the whole checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    found = orbax().utils.checkpoint_steps(folder.absolute())
    return sorted(number for number in found if (folder / str(number)).is_dir())  # not 0007, a batch of a search


def batch_of(folder: Path, number: int) -> Path:
    """Return the folder in which a search keeps one of its batches."""
    return folder / f"{number:04d}"


def check_no_search(folder: Path) -> None:
    """Check that a folder for the checkpoints of a run or a sweep does not have those of a search.

    Raises:
        NetError: if it has.
    """
    if batch_of(folder, 0).is_dir():
        hint = "it goes on by the same search(..., checkpoint=folder); give each run and each sweep a folder of its own"
        raise NetError(f"holds a search, not a run or a sweep; {hint}", label=str(folder))


def check_search(folder: Path) -> None:
    """Check that a folder for a search does not have the checkpoints of a run or a sweep.

    Raises:
        NetError: if it has.
    """
    if numbers(folder):
        text = f"holds checkpoints of a run or a sweep ({listed(folder)}), not a search"
        raise NetError(f"{text}; give each a folder of its own", label=str(folder))


def about(folder: Path, number: int) -> dict[str, Any]:
    """Return what a checkpoint says of itself.

    Raises:
        Exception: of whatever kind, if it can't be read.
    """
    ocp = orbax()
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        note = reader.restore(folder.absolute() / str(number) / "about")
    if note["format"] != FORMAT:
        raise ValueError(f"its format is {note['format']!r}, not {FORMAT!r}")
    if note["crc32"] != _crc(note["content"]):
        raise ValueError("its description is damaged")
    if (inside := note["content"].get("number", number)) != number:
        raise ValueError(f"it is checkpoint {inside} under another name")
    return note["content"]


def read(folder: Path, number: int) -> Saved:
    """Return a checkpoint, every array checked.

    Raises:
        Exception: of whatever kind, if it can't be read whole.
    """
    content = about(folder, number)
    listed = {name: (np.dtype(kind), tuple(shape), crc) for name, (kind, shape, crc) in content["arrays"].items()}
    arrays = _arrays(
        folder / str(number) / "arrays", [name for name, (_, shape, _) in listed.items() if 0 not in shape]
    )
    arrays |= {name: np.zeros(shape, kind) for name, (kind, shape, _) in listed.items() if name not in arrays}
    for name, (kind, shape, crc) in listed.items():
        if arrays[name].dtype != kind or arrays[name].shape != shape or checksum(arrays[name]) != crc:
            raise ValueError(f"the array {name} is damaged")
    parts: dict[str, dict[str, np.ndarray]] = {"run": {}, "history": {}}
    for name, array in arrays.items():
        part, _, path = name.partition("/")
        parts[part][path] = array
    return Saved(number, parts["run"], parts["history"], content)


def _arrays(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Read arrays from under Orbax: where one of them is damaged, its event loop would leave the others dangling."""
    import tensorstore

    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder.absolute()}/"}}
    specs = {name: {"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}} for name in names}
    opened = {name: tensorstore.open(spec, open=True, read=True) for name, spec in specs.items()}
    arrays = {name: each.result().read() for name, each in opened.items()}
    return {name: np.asarray(each.result()) for name, each in arrays.items()}


def check_kind(saved: Saved, kind: str, folder: Path) -> None:
    """Check that a checkpoint is of a "run", or of a "sweep".

    Raises:
        NetError: if it is of the other.
    """
    found = "sweep" if "layout" in saved.about else "run"
    if found != kind:
        hint = "a run is for fit(..., [checkpoint(folder)]), a sweep for sweep(..., checkpoint=folder)"
        place = f"checkpoint {saved.number} in {folder}"
        raise NetError(f"is of a {found}, not of a {kind}; {hint}: give each a folder of its own", label=place)


def newest(folder: Path, kind: str = "run") -> tuple[Saved, list[int]]:
    """Return the newest checkpoint that can be read, and the numbers of later ones that can't.

    Raises:
        NetError: if none can be read, or it is not of a "run", or a "sweep", as `kind` says.

    Warns:
        UserWarning: with what is wrong with those passed over.
    """
    unreadable: list[int] = []
    reasons = []
    for number in reversed(numbers(folder)):
        try:
            saved = read(folder, number)
        except Exception as error:  # whatever a damaged file leads its reader to
            unreadable.append(number)
            reasons.append(f"checkpoint {number} can't be read ({brief(error)})")
            continue
        check_kind(saved, kind, folder)
        if reasons:
            warnings.warn(f"{folder}: {'; '.join(reasons)}; taking checkpoint {number}", stacklevel=2)
        return saved, unreadable
    hint = "move the folder away to begin anew"
    raise NetError(f"finds no checkpoint that can be read: {'; '.join(reasons)}; {hint}", label=str(folder))


def move_away(folder: Path, number: int) -> None:
    """Rename a checkpoint, so that it is none any more."""
    path, copy = folder / str(number), 1
    while (target := path.with_name(f"{number}.unreadable{copy}")).exists():
        copy += 1
    path.rename(target)


def brief(error: BaseException) -> str:
    """Return the first line of an error's text, cut to a length that can be read."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def listed(folder: Path) -> str:
    """Return the numbers of the whole checkpoints as text."""
    return ", ".join(map(str, numbers(folder))) or "none"


def rank(mode: str, value: Any) -> float:
    """Return a number that is larger for the better of two values, and smallest for NaN."""
    signed = float(value) if mode == "max" else -float(value)
    return -math.inf if math.isnan(signed) else signed


def _crc(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


NAME = ".lock"


def lock(folder: Path) -> Callable[[], None]:
    """Lock a folder, and return the function that unlocks it.

    The system drops the lock when the process dies, however it dies. Where there are no such locks, on Windows and some
    network drives, nothing is locked; over NFS they hold from one machine to another.

    Raises:
        NetError: if it is locked already; with the number of the process.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return lambda: None
    path = folder / NAME
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
        if _is_there(path, file):
            break
        os.close(file)  # another unlocked and removed it in between
    with suppress(OSError):  # a full disk
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def unlock() -> None:
        with suppress(OSError):
            path.unlink()
        os.close(file)

    return unlock


def _is_there(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


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
        check_no_search(self.folder)
        self._lock = lock(self.folder)
        return self.folder

    def open(self, keep: int, better: Callable[[Mapping[str, Any]], float] | None = None, saved: int = 0) -> None:
        """Begin behind the checkpoint `saved`; the other arguments are those of `storage.manager`."""
        self.saved, self._broken = saved, False
        self._manager = manager(self.folder, keep, better, self._finished)
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

    def save(self, packed: Packed, about: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Begin to write a checkpoint.

        Raises:
            OSError: if the one before could not be written.
        """
        with self._errors():
            self._manager.wait_until_finished()
            self._began = time.perf_counter()
            write(self._manager, packed, about, metrics)
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
                f"a checkpoint could not be written to {self.folder} ({brief(error)}); whole are: "
                f"{listed(self.folder)}. With room made, the same goes on from the newest"
            ) from error
