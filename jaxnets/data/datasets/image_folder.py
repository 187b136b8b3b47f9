"""Pictures as squares of numbers from 0 to 1, whatever mode, depth and orientation their files have."""

import importlib.util
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, missing
from jaxnets.data.datasets import local


def decode(picture: Any, *, size: int, resize: int, grayscale: bool) -> np.ndarray:
    """Return the square in the middle of a picture, whose shorter side was scaled before.

    The picture is turned as its EXIF tag says. Gray pictures of 16 bits keep their depth; of color ones Pillow gives
    the upper 8 bits. Transparency is dropped.

    Args:
        picture: a file, or an image of Pillow's.
        size: height and width of the square.
        resize: what the shorter side is scaled to, bilinear and antialiased.
        grayscale: whether to return brightness, 0.299 red + 0.587 green + 0.114 blue.

    Returns:
        `(size, size, 3)`, or `(size, size, 1)` of a gray one, float32 from 0 to 1.

    Raises:
        ValueError: for numbers of a depth that does not say which of them is white.
        Exception: whatever Pillow raises for a damaged file.
    """
    from PIL import Image, ImageOps

    opened = Image.open(picture) if isinstance(picture, str | Path) else picture
    with opened:
        whites = _white(opened)
        ImageOps.exif_transpose(opened, in_place=True)
        if whites is not None:
            image = Image.fromarray(np.asarray(opened, np.float32) * np.float32(255 / whites))
        else:
            if opened.mode == "P" and "transparency" in opened.info:  # otherwise Pillow warns
                opened = opened.convert("RGBA")
            image = opened.convert("L" if grayscale else "RGB")
        width, height = image.size
        short = min(width, height)
        scaled = image.resize((int(resize * width / short), int(resize * height / short)), Image.Resampling.BILINEAR)
    left, top = (round((length - size) / 2) for length in scaled.size)
    square = np.asarray(scaled.crop((left, top, left + size, top + size)), np.float32) / 255
    if square.ndim == 2:
        square = square[..., None]
    return square if grayscale else np.broadcast_to(square, (size, size, 3)).copy()


def _white(image: Any) -> int | None:
    """Return the value of white in a mode of more than 8 bits, `None` in any other."""
    if image.mode[0] not in "IF":
        return None
    tags = getattr(image, "tag_v2", {})  # a TIFF's: bits a value, and whether 0 is black
    full = image.mode.startswith("I;16") and (not tags or (tags.get(258), tags.get(262)) == ((16,), 1))
    if full or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 65535
    kind = "float" if image.mode == "F" else "integer"
    raise ValueError(f"its {kind} values do not say which of them is white; convert it to 8 bits, or to 16 unsigned")


ENDINGS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
SYSTEM = {  # what systems leave behind in folders, in lower case; names that begin with a dot need no mention
    *("__macosx", "__pycache__", "@eadir", "#recycle", "#snapshot", "$recycle.bin"),
    *("lost+found", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
}
Example = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, repr=False, eq=False)
class ImageFolder:
    """Pictures of known class, a sequence whose items are `(image, label)`; `image_folder` makes it.

    An item is decoded when it is asked for: an image `(size, size, 3)` float32 from 0 to 1, red, green, blue, or
    `(size, size, 1)` where it is gray, and a label, int32. A slice, or an array of indices such as `jn.data.split`
    gives, is a folder of those pictures. `jn.data.stream` reads from it.

    Attributes:
        pictures: the files, or whatever else `Image.open` takes.
        labels: `(examples,)` int32, an index into `classes`.
        classes: the classes' names.
        size: height and width of an image.
        resize: what the shorter side is scaled to, before `size` is cut out of the middle.
        grayscale: whether images have one channel.
    """

    pictures: Sequence[Any]
    labels: np.ndarray
    classes: tuple[str, ...]
    size: int
    resize: int
    grayscale: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int | np.integer) -> Example: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray | jax.Array) -> "ImageFolder": ...

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice) and np.ndim(index) == 0:
            label = self.labels[number := operator.index(index)]  # first, as it knows the range
            return self._decoded(number), label
        chosen = np.arange(len(self))[index]
        if chosen.ndim != 1:
            raise IndexError(f"ImageFolder takes a number, a slice or indices along one axis, got {chosen.ndim} axes")
        pictures: Any = self.pictures
        some = pictures[chosen] if isinstance(pictures, _Column) else [pictures[number] for number in chosen]
        return replace(self, pictures=some, labels=self.labels[chosen])

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} images of {len(self.classes)} classes, size={self.size})"

    def _decoded(self, number: int) -> np.ndarray:
        picture = self.pictures[number]
        try:
            return decode(picture, size=self.size, resize=self.resize, grayscale=self.grayscale)
        except Exception as error:  # Pillow raises many kinds for what is damaged, or larger than it takes
            what = picture if isinstance(picture, str | Path) else f"picture {number}"
            raise NetError(f"can't decode {what}: {error or type(error).__name__}", label="image_folder") from error


def image_folder(
    folder: str | Path,
    *,
    size: int = 224,
    resize: int | None = None,
    classes: Sequence[str] | None = None,
    grayscale: bool = False,
) -> ImageFolder:
    """Return the pictures in a folder that has a subfolder for each class, such as `cats/` and `dogs/`.

    Classes are numbered in the order of their names, or as `classes` has them: give those of the training part to the
    others, which may lack one. Pictures may lie deeper inside a class's folder. Formats are told by the names'
    endings: jpg, jpeg, png, ppm, bmp, pgm, tif, tiff, webp; other files are passed over, and so are hidden files and
    folders, and those that systems leave behind, such as `.ipynb_checkpoints`, `__MACOSX` and `@eaDir`. Links are
    followed, but for those that lead back to where they came from.

    A picture is turned as its EXIF tag says and becomes red, green and blue, without transparency; its shorter side is
    scaled to `resize` (bilinear, antialiased), and the square in its middle is cut out: torchvision's
    `Resize(resize)`, `CenterCrop(size)`. Gray pictures of 16 bits keep their depth, of color ones the upper 8 bits are
    read; where values do not say which of them is white, in TIFF files of floats or of 32 bits, a picture is refused.

    Args:
        folder: the folder.
        size: height and width of the images, in pixels.
        resize: what the shorter side is scaled to, at least `size`; if not given, 8/7 of `size`, 256 for 224.
        classes: the names of all classes, in the order of their labels; the subfolders' if not given.
        grayscale: whether images are `(size, size, 1)`, 0.299 red + 0.587 green + 0.114 blue.

    Raises:
        FileNotFoundError: if there is no such folder.
        ModuleNotFoundError: if Pillow is not installed.
        NetError: if it has no subfolder, one without a picture, or one that is none of `classes`; if two classes share
            a folder; on reading, for a picture that is damaged, refused, or larger than Pillow takes.

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
    >>> pictures[1:], image_folder(folder, classes=["bird", "cat", "dog"])[0][1].item()
    (ImageFolder(1 images of 2 classes, size=8), 1)
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder: image_folder expects one with a subfolder for each class")
    with labeled_as("image_folder"):
        resize = _check_sizes(size, resize)
        names = _classes(root, classes)
        files, labels, owners = [], [], {}
        for label, name in enumerate(names):
            found = _pictures(root, name, owners) if classes is None or (root / name).is_dir() else []
            if not found and classes is None:
                raise NetError(f"expects pictures ({', '.join(sorted(ENDINGS))}) in {root / name}, found none")
            files += found
            labels += [label] * len(found)
        if not files:
            raise NetError(
                f"expects pictures ({', '.join(sorted(ENDINGS))}) of {', '.join(names)} in {root}, found none"
            )
    return ImageFolder(files, np.array(labels, np.int32), names, size, resize, grayscale)


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
        if folder is None and (found := local.load(repository, download=download)) is not None:
            with labeled_as("imagenet"):
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


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _classes(root: Path, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes: the subfolders', or those given, which must have them all."""
    found = sorted(each.name for each in root.iterdir() if each.is_dir() and not _is_hidden(each.name))
    for each in root.iterdir():
        if each.is_symlink() and not each.exists() and not _is_hidden(each.name):
            raise NetError(f"finds the link {each}, which leads nowhere; remove it, or bring back what it leads to")
    if given is None:
        if not found:
            raise NetError(f"expects a subfolder for each class in {root}, found none")
        return tuple(found)
    names = tuple(given)
    if isinstance(given, str) or not names or not all(isinstance(name, str) for name in names):
        raise NetError(f"expects classes as a sequence of names, got {given!r}")
    if len(set(names)) < len(names):
        raise NetError(f"expects classes that differ, got {names}")
    if unknown := sorted(set(found) - set(names)):
        raise NetError(
            f"finds the folder {unknown[0]} in {root}, which is none of classes={names}; add it, or move it elsewhere"
        )
    return names


def _pictures(root: Path, name: str, owners: dict[str, str]) -> list[str]:
    """Return the pictures of a class: each folder's own, and then those of its folders, which is torchvision's order.

    Args:
        root: the folder of all classes.
        name: of the class.
        owners: the class of each folder that was read, by its real path; to be added to.
    """
    places: dict[str, tuple[str, list[str]]] = {}
    top = root / name
    above = [os.path.realpath(root), os.path.realpath(top)]
    for place, folders, files in os.walk(top, onerror=_fail, followlinks=True):
        real = os.path.realpath(place)
        back = place != str(top) and any(os.path.commonpath([real, each]) == real for each in above)
        if back or real in places:  # a loop, or a second way to the same folder
            folders.clear()
            continue
        if (owner := owners.setdefault(real, name)) != name:
            raise NetError(f"finds {place} in two classes, {owner} and {name}: a link leads there; remove it")
        places[real] = place, files
        folders[:] = sorted(each for each in folders if not _is_hidden(each))
    return [
        os.path.join(place, file)
        for place, files in sorted(places.values())
        for file in sorted(files)
        if os.path.splitext(file)[1].lower() in ENDINGS and not _is_hidden(file)
    ]


def _fail(error: OSError) -> None:
    raise error


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
    """A column of pictures of Hugging Face's `datasets`, decoded one at a time.

    Attributes:
        rows: the data set.
        numbers: which of its rows.
    """

    rows: Any
    numbers: np.ndarray

    def __getitem__(self, index: Any) -> Any:
        chosen = self.numbers[index]
        return self.rows[int(chosen)]["image"] if chosen.ndim == 0 else _Column(self.rows, chosen)


def _cached(rows: Any, size: int, resize: int) -> ImageFolder:
    labels = np.asarray(rows["label"][:], np.int32)
    pictures: Any = _Column(rows, np.arange(len(labels)))
    return ImageFolder(pictures, labels, tuple(rows.features["label"].names), size, resize)
