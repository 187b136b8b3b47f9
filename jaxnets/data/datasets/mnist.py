"""MNIST and Fashion-MNIST from IDX files, plain or gzipped, in a local folder."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.data.datasets import local

Part = tuple[np.ndarray, np.ndarray]
# The dtypes of IDX files, by the third byte.
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# MD5 sums of the uncompressed files.
SUMS = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
REPOSITORIES = {"mnist": "ylecun/mnist", "fashion_mnist": "zalando-datasets/fashion_mnist"}


def mnist(folder: str | Path | None = None, *, verify: bool = True, download: bool = False) -> tuple[Part, Part]:
    """Return MNIST, 60,000 handwritten digits for training and 10,000 for testing, from a local folder.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`, gzipped (`.gz`) or not. Without them, `ylecun/mnist` is read from the cache of Hugging
    Face's `datasets`, if that is installed. Nothing is fetched without `download=True`.

    Args:
        folder: the folder with the files, or with a subfolder `mnist` of them. Default: `$JAXNETS_DATA/mnist`.
        verify: whether to check the files against their published MD5 sums.
        download: whether Hugging Face's `datasets` may fetch what its cache lacks.

    Returns:
        The training and the test part: images `(examples, 28, 28, 1)` float32 from 0 (paper) to 1 (ink), labels
        `(examples,)` int32 from 0 to 9.

    Raises:
        FileNotFoundError: if the files are not found; the message lists the files and the folders searched.
        NetError: if a file is damaged, or not the published one.

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998).

    >>> mnist("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: the set mnist is not here. Expected: train-images-idx3-ubyte (or .gz), ...
    """
    return _read("mnist", folder, verify, download)


def fashion_mnist(
    folder: str | Path | None = None, *, verify: bool = True, download: bool = False
) -> tuple[Part, Part]:
    """Return Fashion-MNIST, images of ten kinds of clothing in the format of MNIST, from a local folder.

    The classes: T-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot. The files have the
    same names as MNIST's, but other MD5 sums. In Hugging Face's cache it is `zalando-datasets/fashion_mnist`.

    Args:
        folder: the folder with the files, or with a subfolder `fashion_mnist` of them. Default:
            `$JAXNETS_DATA/fashion_mnist`.
        verify: whether to check the files against their published MD5 sums.
        download: whether Hugging Face's `datasets` may fetch what its cache lacks.

    Returns:
        The training part, 60,000, and the test part, 10,000: images `(examples, 28, 28, 1)` float32 from 0 to 1, labels
        `(examples,)` int32 from 0 to 9.

    Raises:
        FileNotFoundError: if the files are not found; the message lists the files and the folders searched.
        NetError: if a file is damaged, or not the published one.

    Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms"
    (2017).

    >>> fashion_mnist("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: the set fashion_mnist is not here. Expected: train-images-idx3-ubyte (or .gz), ...
    """
    return _read("fashion_mnist", folder, verify, download)


def read_idx(file: str | Path) -> np.ndarray:
    """Read the array in an IDX file, the format of MNIST, plain or gzipped.

    The format: two zero bytes, a byte for the dtype, a byte for the rank, the sizes as big-endian 32-bit integers, then
    the values, the last axis fastest.

    Args:
        file: the path.

    Returns:
        An array of the file's shape and dtype (uint8, int8, int16, int32, float32 or float64).

    Raises:
        NetError: if the file is damaged, too short or too long, or not an IDX file.

    LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998), the file format.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "labels")
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> read_idx(file)
    array([7, 8, 9], dtype=uint8)
    """
    with labeled_as("read_idx"):
        return _array(_content(Path(file).expanduser()), file)


def _content(file: Path) -> bytes:
    """Return the bytes of a file, unpacked if it is gzipped."""
    raw = file.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise NetError(f"can't unpack {file}, it is damaged: {error}") from None


def _array(content: bytes, file: str | Path) -> np.ndarray:
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise NetError(
            f"expects an IDX file, which begins with 00 00, dtype and rank, got {file}, which begins with "
            f"{content[:4].hex(' ')}"
        )
    dtype, rank = np.dtype(TYPES[content[2]]), content[3]
    # The values follow the header: four bytes, and four more per axis.
    begin = 4 + 4 * rank
    shape = tuple(np.frombuffer(content[4:begin], ">u4").tolist()) if len(content) >= begin else None
    wanted = None if shape is None else begin + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if wanted != len(content):
        raise NetError(f"expects {wanted or begin} bytes in {file} by its header, got {len(content)}: it is damaged")
    return np.frombuffer(content, dtype, offset=begin).reshape(shape or ()).astype(dtype.newbyteorder("="))


def _read(name: str, folder: str | Path | None, verify: bool, download: bool) -> tuple[Part, Part]:
    folders = local.places(name, folder)
    files = {}
    for stem in SUMS[name]:
        # Some copies have a dot in the name.
        dotted = stem.replace("-idx", ".idx")
        files[stem] = local.find(folders, [f"{each}{end}" for each in (stem, dotted) for end in ("", ".gz")])
    if all(file is None for file in files.values()) and folder is None:
        found = local.arrays(REPOSITORIES[name], ("image", "label"), download=download)
        if found is not None:
            return tuple((images[..., None], labels) for images, labels in found)  # pyright: ignore
    if missing := [stem for stem, file in files.items() if file is None]:
        raise local.absent(name, [f"{stem} (or .gz)" for stem in missing], folders, REPOSITORIES[name])
    with labeled_as(name):
        return _part(name, "train", files, verify), _part(name, "t10k", files, verify)


def _part(name: str, prefix: str, files: dict[str, Path | None], verify: bool) -> Part:
    part, examples = ("train", 60_000) if prefix == "train" else ("test", 10_000)
    arrays = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        stem = f"{prefix}-{kind}"
        file = files[stem] or Path(stem)
        content = _content(file)
        # Before the MD5 sum, so that a truncated file is reported as such.
        arrays.append(_array(content, file))
        if verify:
            others = {sums[stem]: other for other, sums in SUMS.items() if other != name}
            local.check_md5(content, SUMS[name][stem], file, others=others)
    images, labels = arrays
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or len(labels) == 0:
        raise NetError(
            f"expects images (examples, 28, 28) and labels (examples,) in the {part} part, such as {examples} of "
            f"them, got {images.shape} and {labels.shape}"
        )
    if labels.min() < 0 or labels.max() > 9:
        raise NetError(f"expects labels from 0 to 9 in the {part} part, got {labels.min()} to {labels.max()}")
    return images[..., None].astype(np.float32) / 255, labels.astype(np.int32)
