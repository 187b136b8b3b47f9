"""Folders of pictures, one subfolder a class, each picture decoded when it is asked for."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.data import hub, local
from jaxnets.errors import NetError, check_count, labelled_as, missing

ENDINGS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
Example = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, repr=False)
class ImageFolder:
    """Pictures of known class, a sequence whose items are `(image, label)`; `image_folder` makes it.

    An item is decoded when it is asked for: an image `(size, size, 3)` float32 from 0 to 1, red, green, blue, and a
    label, int32. `jn.data.stream` reads from it.

    Attributes:
        pictures: the files, or whatever else `Image.open` takes.
        labels: `(examples,)` int32, an index into `classes`.
        classes: the classes' names, sorted.
        size: height and width of an image.
        resize: what the shorter side is scaled to, before `size` is cut out of the middle.
    """

    pictures: Sequence[Any]
    labels: np.ndarray
    classes: tuple[str, ...]
    size: int
    resize: int

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return _square(self.pictures[index], self.resize, self.size), self.labels[index]

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} images of {len(self.classes)} classes, size={self.size})"


def image_folder(folder: str | Path, *, size: int = 224, resize: int | None = None) -> ImageFolder:
    """Return the pictures in a folder that has a subfolder for each class, such as `cats/` and `dogs/`.

    Classes are numbered in the order of their names. Pictures may lie deeper inside a class's folder. Formats are
    told by the names' endings: jpg, jpeg, png, ppm, bmp, pgm, tif, tiff, webp; other files are passed over. A
    picture becomes red, green and blue, its shorter side is scaled to `resize` (bilinear, antialiased), and the
    square in its middle is cut out: torchvision's `Resize(resize)`, `CenterCrop(size)`.

    Args:
        folder: the folder.
        size: height and width of the images, in pixels.
        resize: what the shorter side is scaled to, at least `size`; if not given, 8/7 of `size`, 256 for 224.

    Raises:
        FileNotFoundError: if there is no such folder.
        ModuleNotFoundError: if Pillow is not installed.
        NetError: if it has no subfolder, or one without a picture; on reading, for a picture that is damaged.

    >>> import numpy as np, pathlib, tempfile
    >>> from PIL import Image
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (folder / name).mkdir()
    ...     Image.fromarray(np.full((10, 20, 3), 255, np.uint8)).save(folder / name / "one.png")
    >>> pictures = image_folder(folder, size=8)
    >>> image, label = pictures[1]
    >>> pictures, pictures.classes, image.shape, image.max().item(), label.item()
    (ImageFolder(2 images of 2 classes, size=8), ('cat', 'dog'), (8, 8, 3), 1.0, 1)
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder: image_folder expects one with a subfolder for each class")
    with labelled_as("image_folder"):
        resize = _check_sizes(size, resize)
        classes = tuple(sorted(each.name for each in root.iterdir() if each.is_dir()))
        if not classes:
            raise NetError(f"expects a subfolder for each class in {root}, found none")
        files, labels = [], []
        for label, name in enumerate(classes):
            found = [  # each folder's own files, and then those of its folders: torchvision's order
                os.path.join(place, file)
                for place, _, inside in sorted(os.walk(root / name, followlinks=True))
                for file in sorted(inside)
                if os.path.splitext(file)[1].lower() in ENDINGS
            ]
            if not found:
                raise NetError(f"expects pictures ({', '.join(sorted(ENDINGS))}) in {root / name}, found none")
            files += found
            labels += [label] * len(found)
    return ImageFolder(files, np.array(labels, np.int32), classes, size, resize)


def imagenet(
    folder: str | Path | None = None,
    *,
    size: int = 224,
    resize: int | None = None,
    verify: bool = True,
    download: bool = False,
) -> tuple[ImageFolder, ImageFolder]:
    """Return the pictures of ImageNet's challenge of 2012, 1,281,167 to train and 50,000 to validate on.

    They are read from folders `train` and `val`, each with a subfolder a class, named by WordNet numbers such as
    `n01440764`; the validation pictures, published in one heap, must have been sorted into such. Without them, and
    with Hugging Face's `datasets` installed, `ILSVRC/imagenet-1k` is read from its cache. Nothing is fetched unless
    `download` says so. Labels of the test part were never published.

    Args:
        folder: holds `train` and `val`, or a folder `imagenet` that does; if not given, `$JAXNETS_DATA/imagenet` is
            looked in.
        size: height and width of the images, in pixels.
        resize: what the shorter side is scaled to, as in `image_folder`.
        verify: whether there must be 1,000 classes.
        download: let Hugging Face's `datasets` fetch what its cache lacks.

    Raises:
        FileNotFoundError: if the folders are nowhere; says what was expected, and where.
        NetError: if the parts differ in their classes, or there are not 1,000.

    Russakovsky et al., "ImageNet large scale visual recognition challenge" (2015).

    >>> imagenet("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: the set imagenet is not here. Expected: train/n01440764/, ...
    """
    repository = "ILSVRC/imagenet-1k"
    folders = local.places("imagenet", folder)
    root = next((each for each in folders if (each / "train").is_dir() and (each / "val").is_dir()), None)
    if root is None:
        if folder is None and (found := hub.load(repository, download=download)) is not None:
            with labelled_as("imagenet"):
                chosen = _check_sizes(size, resize)
            return _cached(found["train"], size, chosen), _cached(found["validation"], size, chosen)
        raise local.absent("imagenet", ["train/n01440764/, …", "val/n01440764/, …"], folders, repository)
    train, validation = (image_folder(root / part, size=size, resize=resize) for part in ("train", "val"))
    if train.classes != validation.classes:
        odd = sorted(set(train.classes) ^ set(validation.classes))
        raise NetError(f"expects the same classes in train and val of {root}, but {odd[0]} is in one", label="imagenet")
    if verify and len(train.classes) != 1000:
        raise NetError(
            f"expects 1000 classes in {root}, found {len(train.classes)}; verify=False takes them as they are",
            label="imagenet",
        )
    return train, validation


def _check_sizes(size: int, resize: int | None) -> int:
    check_count("size", size)
    resize = round(size * 8 / 7) if resize is None else resize
    if resize < size:
        raise NetError(f"expects resize ≥ size={size}, got {resize}: a square of that size is cut out")
    if importlib.util.find_spec("PIL") is None:
        raise missing("PIL", "data")
    return resize


@dataclass(frozen=True)
class _Column:
    """A column of pictures of Hugging Face's `datasets`, decoded one at a time."""

    rows: Any

    def __getitem__(self, index: int) -> Any:
        return self.rows[int(index)]["image"]


def _cached(rows: Any, size: int, resize: int) -> ImageFolder:
    return ImageFolder(
        _Column(rows),  # pyright: ignore
        np.asarray(rows["label"][:], np.int32),
        tuple(rows.features["label"].names),
        size,
        resize,
    )


def _square(picture: Any, resize: int, size: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(picture) if isinstance(picture, str | Path) else picture
        with opened, opened.convert("RGB") as image:
            width, height = image.size
            short = min(width, height)
            scaled = image.resize(
                (int(resize * width / short), int(resize * height / short)), Image.Resampling.BILINEAR
            )
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise NetError(f"can't decode {picture}: {error}", label="image_folder") from None
    left, top = (round((length - size) / 2) for length in scaled.size)
    return np.asarray(scaled.crop((left, top, left + size, top + size)), np.float32) / 255
