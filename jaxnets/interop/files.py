"""Files that appear whole or not at all, and replace no other by default."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def new_path(path: str | Path, *, overwrite: bool) -> Path:
    """Return the path of a file that may be written, with `~` expanded; call it before long work.

    Raises:
        FileNotFoundError: if its folder does not exist.
        FileExistsError: if there is a file and `overwrite` is false.
    """
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent}; create it first")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name, or pass overwrite=True")
    return path


@contextmanager
def new_file(path: str | Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Open a temporary file in the same folder, which is renamed once it is complete and removed after an error.

    Raises:
        FileNotFoundError: if its folder does not exist.
        FileExistsError: if there is a file and `overwrite` is false.
    """
    path = new_path(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path) -> None:
    """Rename a file without replacing one that was created in the meantime.

    Raises:
        FileExistsError: if there is such a file.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        # exFAT and some network drives have no hard links. Creating the file reserves the name.
        path.touch(exist_ok=False)
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink()
            raise
