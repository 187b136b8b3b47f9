"""CIFAR-10 and CIFAR-100 in their binary version, from a local folder; the Python version, a pickle, is not read."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.data.datasets import local

Part = tuple[np.ndarray, np.ndarray]
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """The files and the record format of one of the two sets.

    Attributes:
        name: the name of the function that reads the set.
        archive: the published archive.
        md5: the published MD5 sum of the archive.
        train: the files of the training part, in order.
        test: the files of the test part.
        classes: the number of classes of each label byte; the label bytes precede the image.
        labels: the column of each label on Hugging Face's hub.
    """

    name: str
    archive: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def repository(self) -> str:
        """The repository on Hugging Face's hub."""
        return f"uoft-cs/{self.name}"


CIFAR10 = Layout(
    "cifar10",
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    ("test_batch.bin",),
    (10,),
    ("label",),
)
CIFAR100 = Layout(
    "cifar100",
    "cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
    ("train.bin",),
    ("test.bin",),
    (20, 100),
    ("coarse_label", "fine_label"),
)


def cifar10(folder: str | Path | None = None, *, verify: bool = True, download: bool = False) -> tuple[Part, Part]:
    """Return CIFAR-10, color images of ten classes, from a local folder.

    The classes: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck. The file is
    `cifar-10-binary.tar.gz`, or its content: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`. Without
    them, `uoft-cs/cifar10` is read from the cache of Hugging Face's `datasets`, if that is installed. Nothing is
    fetched without `download=True`.

    Args:
        folder: the folder with the files, or with a subfolder `cifar10` or `cifar-10-batches-bin` of them. Default:
            `$JAXNETS_DATA/cifar10`.
        verify: whether to check the archive against its published MD5 sum, and the parts against their published size.
        download: whether Hugging Face's `datasets` may fetch what its cache lacks.

    Returns:
        The training part, 50,000, and the test part, 10,000: images `(examples, 32, 32, 3)` float32 from 0 to 1, red,
        green, blue, and labels `(examples,)` int32 from 0 to 9.

    Raises:
        FileNotFoundError: if the files are not found; the message lists the files and the folders searched.
        NetError: if a file is damaged, not the published one, or of the Python version.

    Krizhevsky, "Learning multiple layers of features from tiny images" (2009).

    >>> cifar10("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: the set cifar10 is not here. Expected: cifar-10-binary.tar.gz, ...
    """
    return _read(CIFAR10, folder, 0, verify, download)


def cifar100(
    folder: str | Path | None = None, *, coarse: bool = False, verify: bool = True, download: bool = False
) -> tuple[Part, Part]:
    """Return CIFAR-100, color images of 100 classes in 20 groups, from a local folder.

    The file is `cifar-100-binary.tar.gz`, or its content: `train.bin` and `test.bin`. In Hugging Face's cache it is
    `uoft-cs/cifar100`.

    Args:
        folder: the folder with the files, or with a subfolder `cifar100` or `cifar-100-binary` of them. Default:
            `$JAXNETS_DATA/cifar100`.
        coarse: whether the labels are the 20 groups instead of the 100 classes.
        verify: whether to check the archive against its published MD5 sum, and the parts against their published size.
        download: whether Hugging Face's `datasets` may fetch what its cache lacks.

    Returns:
        The training part, 50,000, and the test part, 10,000: images `(examples, 32, 32, 3)` float32 from 0 to 1, red,
        green, blue, and labels `(examples,)` int32.

    Raises:
        FileNotFoundError: if the files are not found; the message lists the files and the folders searched.
        NetError: if a file is damaged, not the published one, or of the Python version.

    Krizhevsky, "Learning multiple layers of features from tiny images" (2009).

    >>> cifar100("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: the set cifar100 is not here. Expected: cifar-100-binary.tar.gz, ...
    """
    return _read(CIFAR100, folder, 0 if coarse else 1, verify, download)


def _read(layout: Layout, folder: str | Path | None, which: int, verify: bool, download: bool) -> tuple[Part, Part]:
    folders = local.places(layout.name, folder)
    names = layout.train + layout.test
    with labeled_as(layout.name):
        # The unpacked files first, then the archive.
        contents = {name: file.read_bytes() for name in names if (file := local.find(folders, [name]))}
        where = "the folder"
        if len(contents) < len(names) and (archive := local.find(folders, [layout.archive])):
            contents, where = _unpacked(layout, archive, verify), str(archive)
        if contents:
            if missing := ", ".join(name for name in names if name not in contents):
                raise NetError(f"expects {', '.join(names)}, and {where} lacks {missing}")
            train, test = ({name: contents[name] for name in part} for part in (layout.train, layout.test))
            return (
                _part(layout, train, which, 50_000 if verify else None),
                _part(layout, test, which, 10_000 if verify else None),
            )
        stem = layout.train[0].removesuffix(".bin")
        inner = [f"{place}{stem}" for place in ("", "cifar-10-batches-py/", "cifar-100-python/")]
        if pickled := local.find(folders, [layout.archive.replace("binary", "python"), *inner]):
            raise NetError(
                f"does not read {pickled}: the Python version is pickle, which can run code when it is opened; "
                f"get the binary version, {layout.archive}"
            )
    if folder is None:
        found = local.arrays(layout.repository, ("img", layout.labels[which]), download=download)
        if found is not None:
            return found
    raise local.absent(layout.name, [layout.archive, *names], folders, layout.repository)


def _unpacked(layout: Layout, archive: Path, verify: bool) -> dict[str, bytes]:
    """Return the files of an archive by name. They are unpacked in memory, so no path in the archive can do harm."""
    content = archive.read_bytes()
    if verify:
        local.check_md5(content, layout.md5, archive)
    members = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                name = Path(member.name).name
                if name in layout.train + layout.test and (file := tar.extractfile(member)) is not None:
                    members[name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise NetError(f"can't unpack {archive}, it is damaged: {error}") from None
    return members


def _part(layout: Layout, files: Mapping[str, bytes], which: int, examples: int | None) -> Part:
    # A record: the label bytes, then the red, green and blue planes.
    width = len(layout.classes) + PIXELS
    for name, content in files.items():
        if len(content) % width or not content:
            raise NetError(
                f"expects a multiple of {width} bytes in {name}, one record per image, got {len(content)}: "
                f"it is damaged"
            )
    rows = np.frombuffer(b"".join(files.values()), np.uint8).reshape(-1, width)
    for column, classes in enumerate(layout.classes):
        if rows[:, column].max() >= classes:
            raise NetError(
                f"expects labels from 0 to {classes - 1} in {next(iter(files))}, got {rows[:, column].max()}: it is "
                f"damaged, or from another set"
            )
    if examples not in (None, len(rows)):
        raise NetError(
            f"expects {examples} images in {', '.join(files)}, got {len(rows)}; verify=False reads it anyway"
        )
    # (images, channels, height, width) → (images, height, width, channels)
    images = rows[:, len(layout.classes) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    pixels = np.ascontiguousarray(images, np.float32)
    # In place, to save a copy of 600 MB.
    pixels /= 255
    return pixels, rows[:, which].astype(np.int32)
