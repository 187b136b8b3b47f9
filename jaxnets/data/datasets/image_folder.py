"""Folders of images, with one subfolder per class, such as ImageNet. Images are decoded when they are read."""

import importlib.util
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import jax
import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, missing
from jaxnets.data.datasets import local

ENDINGS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
# Files and folders that operating systems leave behind, in lower case; names with a leading dot are hidden anyway.
SYSTEM = {
    *("__macosx", "__pycache__", "@eadir", "#recycle", "#snapshot", "$recycle.bin"),
    *("lost+found", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
}
Example = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, repr=False, eq=False)
class ImageFolder:
    """A sequence of `(image, label)`, made by `image_folder` and read by `jn.data.stream`.

    An index decodes one image, `(size, size, 3)` float32 from 0 to 1, red, green, blue, or `(size, size, 1)` with
    `grayscale`, and returns it with its int32 label. A slice, or an array of indices such as from
    `jn.data.split_indices`, returns an `ImageFolder` of those images.

    Attributes:
        pictures: the files, or a dataset of Hugging Face, whose column `image` has the images.
        labels: `(examples,)` int32, indices into `classes`.
        classes: the names of the classes.
        size: the height and width of an image.
        resize: the length to which the shorter side is scaled, before the center crop to `size`.
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
            # The labels first: they raise an error for a number out of range.
            label = self.labels[number := operator.index(index)]
            return self._decoded(number), label
        chosen = np.arange(len(self))[index]
        if chosen.ndim != 1:
            raise IndexError(f"ImageFolder takes a number, a slice or indices along one axis, got {chosen.ndim} axes")
        # A dataset of Hugging Face selects rows without decoding their images.
        select = getattr(self.pictures, "select", lambda chosen: [self.pictures[number] for number in chosen])
        return replace(self, pictures=select(chosen), labels=self.labels[chosen])

    def take(self, per_class: int, *, seed: int = 0) -> "ImageFolder":
        """Return a random subset of some images of each class, in the order of the folder.

        Args:
            per_class: the number of images of each class, at least 1; all of a class that has fewer.
            seed: the same seed gives the same images on every machine.
        """
        with labeled_as("take"):
            check_count("per_class", per_class)
        order = np.random.default_rng(seed).permutation(len(self))
        chosen = [order[self.labels[order] == label][:per_class] for label in range(len(self.classes))]
        return self[np.sort(np.concatenate(chosen))]

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} images of {len(self.classes)} classes, size={self.size})"

    def _decoded(self, number: int) -> np.ndarray:
        picture = self.pictures[number]
        picture = picture["image"] if isinstance(picture, dict) else picture
        try:
            return decode(picture, size=self.size, resize=self.resize, grayscale=self.grayscale)
        # Pillow raises many kinds of errors for files that are damaged, or larger than its limit.
        except Exception as error:
            what = picture if isinstance(picture, str | Path) else f"picture {number}"
            raise NetError(f"can't decode {what}: {error or type(error).__name__}", label="image_folder") from error


def image_folder(
    folder: str | Path,
    *,
    size: int = 224,
    resize: int | None = None,
    classes: Sequence[str] | None = None,
    grayscale: bool = False,
    others: Literal["error", "skip"] = "error",
) -> ImageFolder:
    """Return the images in a folder that has a subfolder for each class, such as `cats/` and `dogs/`.

    Classes are numbered in the order of their names, or of `classes`: pass those of the training part to the other
    parts, which may lack one. Images may be nested deeper in the folder of a class. Files are recognized by their
    extensions: jpg, jpeg, png, ppm, bmp, pgm, tif, tiff, webp. Other files are skipped, as are hidden and system files
    and folders, such as `.ipynb_checkpoints`, `__MACOSX` and `@eaDir`. Links are followed, except those to a parent
    folder.

    An image is rotated by its EXIF tag and converted to red, green and blue, without transparency. Its shorter side is
    scaled to `resize` (bilinear, antialiased), and the square in its center is cropped: torchvision's `Resize(resize)`,
    `CenterCrop(size)`. Gray images of 16 bits keep their depth; for 16-bit colors Pillow reads the upper 8 bits. An
    image whose values do not define white, such as a TIFF file of floats or 32-bit integers, is an error.

    Args:
        folder: the folder.
        size: the height and width of the images, in pixels.
        resize: the length to which the shorter side is scaled, at least `size`. Default: 8/7 of `size`, 256 for 224.
        classes: the names of all classes, in the order of their labels. Default: the names of the subfolders.
        grayscale: whether images are `(size, size, 1)`, 0.299 red + 0.587 green + 0.114 blue.
        others: what to do with subfolders that are not in `classes`. `"skip"` leaves them out, to train on some of the
            classes, each of which must then have a folder.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ModuleNotFoundError: if Pillow is not installed.
        NetError: if it has no subfolder, a subfolder without images, a subfolder that is not in `classes` (or with
            `others="skip"` a class without one); if two
            classes share a folder; while reading, for an image that is damaged, does not define white, or is larger
            than Pillow's limit.

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
        raise FileNotFoundError(f"{root} is not a folder; image_folder expects one with a subfolder for each class")
    with labeled_as("image_folder"):
        resize = check_sizes(size, resize)
        names = _classes(root, classes, others)
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
    """Return the images of the ImageNet challenge 2012: 1,281,167 for training and 50,000 for validation.

    They are read from folders `train` and `val`, each with a subfolder per class, named by WordNet numbers such as
    `n01440764`; the validation images, published in a single folder, must have been sorted into subfolders. Without the
    folders, `ILSVRC/imagenet-1k` is read from the cache of Hugging Face's `datasets`, if that is installed. Nothing is
    fetched without `download=True`. The labels of the test part were never published.

    Args:
        folder: the folder with `train` and `val`, or with a subfolder `imagenet` of them. Default:
            `$JAXNETS_DATA/imagenet`.
        size: the height and width of the images, in pixels.
        resize: the length to which the shorter side is scaled, as in `image_folder`.
        verify: whether there must be 1,000 classes.
        download: whether Hugging Face's `datasets` may fetch what its cache lacks.

    Raises:
        FileNotFoundError: if the folders are not found; the message lists the folders searched.
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
                chosen = check_sizes(size, resize)
            return _cached(found["train"], size, chosen), _cached(found["validation"], size, chosen)
        raise local.absent("imagenet", ["train/n01440764/, …", "val/n01440764/, …"], folders, repository)
    train, validation = (image_folder(root / part, size=size, resize=resize) for part in ("train", "val"))
    if train.classes != validation.classes:
        odd = sorted(set(train.classes) ^ set(validation.classes))
        raise NetError(f"expects the same classes in train and val of {root}, but {odd[0]} is in one", label="imagenet")
    if verify and len(train.classes) != 1000:
        raise NetError(
            f"expects 1000 classes in {root}, found {len(train.classes)}; verify=False accepts that", label="imagenet"
        )
    return train, validation


def decode(picture: Any, *, size: int, resize: int, grayscale: bool) -> np.ndarray:
    """Decode, scale and crop a file or a Pillow image, as described in `image_folder` and `ImageFolder`.

    Raises:
        ValueError: for values that do not define white.
        Exception: whatever Pillow raises for a damaged file.
    """
    from PIL import Image, ImageOps

    opened = Image.open(picture) if isinstance(picture, str | Path) else picture
    with opened:
        whites = _white(opened)
        ImageOps.exif_transpose(opened, in_place=True)
        # More than 8 bits: scale in float32, where `convert` would clip.
        if whites is not None:
            image = Image.fromarray(np.asarray(opened, np.float32) * np.float32(255 / whites))
        else:
            # Avoids a warning by Pillow.
            if opened.mode == "P" and "transparency" in opened.info:
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
    """Return the value of white in a mode of more than 8 bits; `None` in other modes."""
    if image.mode[0] not in "IF":
        return None
    # The tags of a TIFF file: 258 is the number of bits per value, 262 is 1 if 0 is black.
    tags = getattr(image, "tag_v2", {})
    full = image.mode.startswith("I;16") and (not tags or (tags.get(258), tags.get(262)) == ((16,), 1))
    if full or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 65535
    kind = "float" if image.mode == "F" else "integer"
    raise ValueError(f"its {kind} values do not define white; convert it to 8 bits, or to 16 bits unsigned")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _classes(root: Path, given: Sequence[str] | None, others: str) -> tuple[str, ...]:
    """Return the names of the classes: those given, which must cover all subfolders, or the names of the subfolders."""
    if others not in ("error", "skip"):
        raise NetError(f"expects others as 'error' or 'skip', got {others!r}")
    found = sorted(each.name for each in root.iterdir() if each.is_dir() and not _is_hidden(each.name))
    for each in root.iterdir():
        if each.is_symlink() and not each.exists() and not _is_hidden(each.name):
            raise NetError(f"finds the broken link {each}; remove it, or restore its target")
    if given is None:
        if not found:
            raise NetError(f"expects a subfolder for each class in {root}, found none")
        return tuple(found)
    names = tuple(given)
    if isinstance(given, str) or not names or not all(isinstance(name, str) for name in names):
        raise NetError(f"expects classes as a sequence of names, got {given!r}")
    if len(set(names)) < len(names):
        raise NetError(f"expects distinct classes, got {names}")
    if others == "skip":
        if absent := sorted(set(names) - set(found)):
            raise NetError(f"finds no folder {absent[0]} in {root}, but {', '.join(found) or 'none'}")
    elif unknown := sorted(set(found) - set(names)):
        hint = 'add it, move the folder, or leave it out by others="skip"'
        raise NetError(f"finds the folder {unknown[0]} in {root}, which is not in classes={names}; {hint}")
    return names


def _pictures(root: Path, name: str, owners: dict[str, str]) -> list[str]:
    """Return the images of a class in torchvision's order: the files of each folder before those of its subfolders.

    Args:
        root: the folder of all classes.
        name: the class.
        owners: the class of each folder read so far, by its real path; updated here.
    """
    places: dict[str, tuple[str, list[str]]] = {}
    top = root / name
    above = [os.path.realpath(root), os.path.realpath(top)]
    for place, folders, files in os.walk(top, onerror=_fail, followlinks=True):
        real = os.path.realpath(place)
        back = place != str(top) and any(os.path.commonpath([real, each]) == real for each in above)
        # A link back to a parent folder, or a second path to the same one: do not descend.
        if back or real in places:
            folders.clear()
            continue
        if (owner := owners.setdefault(real, name)) != name:
            raise NetError(f"finds {place} in two classes, {owner} and {name}, through a link; remove it")
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


def check_sizes(size: int, resize: int | None) -> int:
    """Return the length to which the shorter side is scaled, checked."""
    check_count("size", size)
    resize = round(size * 8 / 7) if resize is None else resize
    if resize < size:
        raise NetError(f"expects resize ≥ size={size}, got {resize}; a square of that size is cropped")
    if importlib.util.find_spec("PIL") is None:
        raise missing("PIL", "data")
    return resize


def _cached(rows: Any, size: int, resize: int) -> ImageFolder:
    labels = np.asarray(rows["label"][:], np.int32)
    return ImageFolder(rows, labels, tuple(rows.features["label"].names), size, resize)
