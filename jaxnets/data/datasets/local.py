"""Find datasets on this machine: local folders, and the cache of Hugging Face's `datasets`; offline by default."""

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, missing

Part = tuple[np.ndarray, np.ndarray]
# The environment variable with the folder of all datasets.
VARIABLE = "JAXNETS_DATA"


def load(repository: str, *, download: bool) -> dict[str, Any] | None:
    """Return the parts of a repository by name; `None` if `datasets` is not installed, or its cache lacks them.

    Args:
        repository: the repository, for example `ylecun/mnist`.
        download: whether `datasets` may fetch what its cache lacks. Network errors are passed on.

    Raises:
        ModuleNotFoundError: with `download`, if `datasets` is not installed.
    """
    if importlib.util.find_spec("datasets") is None:
        if download:
            raise missing("datasets", "hub")
        return None
    datasets = importlib.import_module("datasets")
    if download:
        return dict(datasets.load_dataset(repository))
    with _offline():
        try:
            return dict(datasets.load_dataset(repository))
        # The set is not cached.
        except (ConnectionError, FileNotFoundError):
            return None


def arrays(repository: str, columns: tuple[str, str], *, download: bool) -> tuple[Part, Part] | None:
    """Return the training and the test part of a set of small images as arrays; `None` as in `load`.

    Args:
        repository: the repository, for example `ylecun/mnist`.
        columns: the names of the columns of the images and of the labels.
        download: whether `datasets` may fetch what its cache lacks.

    Returns:
        For each part images `(examples, height, width[, channels])` float32 from 0 to 1, and labels int32.
    """
    found = load(repository, download=download)
    if found is None:
        return None
    image, label = columns

    def part(name: str) -> Part:
        pixels = np.stack([np.asarray(each) for each in found[name][image]])
        return pixels.astype(np.float32) / 255, np.asarray(found[name][label][:], np.int32)

    return part("train"), part("test")


@contextmanager
def _offline() -> Iterator[None]:
    """Keep both libraries offline: each reads its environment variable only once, when imported."""
    switches = [importlib.import_module("datasets").config, importlib.import_module("huggingface_hub").constants]
    before = [each.HF_HUB_OFFLINE for each in switches]
    try:
        for each in switches:
            each.HF_HUB_OFFLINE = True
        yield
    finally:
        for each, value in zip(switches, before, strict=True):
            each.HF_HUB_OFFLINE = value


def places(name: str, folder: str | Path | None) -> list[Path]:
    """Return the folders to search for the files of a set, in order.

    They are `folder` and `folder/name`, or by default `$JAXNETS_DATA/name`; then, inside each, torchvision's
    `MNIST/raw` or the folder that the published archive unpacks to.
    """
    root = (os.environ.get(VARIABLE) or None) if folder is None else folder
    roots = [] if root is None else [Path(root).expanduser() / name]
    roots = roots if folder is None else [Path(folder).expanduser(), *roots]
    inner = {
        "mnist": "MNIST/raw",
        "fashion_mnist": "FashionMNIST/raw",
        "cifar10": "cifar-10-batches-bin",
        "cifar100": "cifar-100-binary",
    }
    return roots + [root / inner[name] for root in roots if name in inner]


def find(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """Return the first existing file with one of the names, folder by folder; `None` if there is none."""
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def absent(
    name: str, expected: Sequence[str], folders: Sequence[Path], repository: str | None = None
) -> FileNotFoundError:
    """Return the error for a missing set: the expected files, the folders searched, and the alternatives."""
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


def check_md5(content: bytes, expected: str, file: Path, *, others: Mapping[str, str] = {}) -> None:
    """Check a file's content against its published MD5 sum.

    Args:
        content: the bytes.
        expected: the published sum, in hexadecimal.
        file: the file, for the error message.
        others: the sums of files of the same name in other sets, each with the name of its set.

    Raises:
        NetError: if the sums differ.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found == expected:
        return
    if found in others:
        guess = f"it is the file of {others[found]}, which has the same name"
    else:
        guess = "it is damaged, or another file of this name; fetch it again, or pass verify=False to read it anyway"
    raise NetError(f"expects the published MD5 sum {expected} of {file}, got {found}: {guess}")
