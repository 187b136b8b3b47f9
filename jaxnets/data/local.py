"""Where the files of a named set lie on this machine, and what is said when they don't."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxnets.errors import NetError

VARIABLE = "JAXNETS_DATA"


def places(name: str, folder: str | Path | None) -> list[Path]:
    """Return the folders in which the files of a set may lie, the likeliest first.

    `folder` itself and `folder/name`, or without it `$JAXNETS_DATA/name`; below each also torchvision's `MNIST/raw`
    and the folders that the published archives unpack to.
    """
    if folder is not None:
        roots = [Path(folder).expanduser(), Path(folder).expanduser() / name]
    elif root := os.environ.get(VARIABLE):
        roots = [Path(root).expanduser() / name]
    else:
        roots = []
    inner = {
        "mnist": "MNIST/raw",
        "fashion_mnist": "FashionMNIST/raw",
        "cifar10": "cifar-10-batches-bin",
        "cifar100": "cifar-100-binary",
    }
    return roots + [root / inner[name] for root in roots if name in inner]


def find(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """Return the first file of one of some names in some folders, if there is one."""
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def absent(
    name: str, expected: Sequence[str], folders: Sequence[Path], repository: str | None = None
) -> FileNotFoundError:
    """Return the error that says which files were expected, where they were looked for, and what else would do."""
    looked = ", ".join(map(str, folders)) or f"no folder, as neither folder= nor {VARIABLE} is given"
    lines = [
        f"the set {name} is not here. Expected: {', '.join(expected)}. Looked in: {looked}.",
        f"Give the folder by folder=, or set {VARIABLE} to the folder that holds {name}/.",
    ]
    if repository is not None:
        lines.append(
            f"Or pip install 'jaxnets[hub]' to read {repository} from the cache of Hugging Face datasets; "
            f"download=True fetches it into there."
        )
    return FileNotFoundError(" ".join(lines))


def check_md5(content: bytes, expected: str, file: Path, *, others: dict[str, str] | None = None) -> None:
    """Check a file's content against its published MD5 sum.

    Args:
        content: the bytes.
        expected: the published sum, in hexadecimal.
        file: for the error.
        others: sums of other sets' files that bear the same name, each with the set's name.

    Raises:
        NetError: if the sum is another.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found == expected:
        return
    if found in (others or {}):
        guess = f"it is the file of {(others or {})[found]}, which bears the same name"
    else:
        guess = "it is damaged, or another file of this name: fetch it anew, or pass verify=False to read it as it is"
    raise NetError(f"{file} has the MD5 sum {found}, and not the published {expected}: {guess}")
