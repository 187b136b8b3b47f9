"""One writer at a time in a folder, among threads and processes."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from jaxnets.errors import NetError

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
            mend = "give each run a folder of its own, or wait until that one has ended"
            raise NetError(f"is being written to by {holder}; {mend}", label=str(folder)) from None
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
