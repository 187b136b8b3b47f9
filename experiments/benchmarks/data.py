"""Data of the rows: real data of the right size, or noise where only the size matters."""

import numpy as np

import jaxnets as jn


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 digits of 8 × 8 as vectors, and their classes."""
    images, labels = jn.data.digits()
    return images.reshape(len(images), -1), labels


def mnist(examples: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Return digits of 28 × 28 × 1 and their classes, up to 4,000."""
    images, labels = jn.data.mnist5k()
    chosen = jn.data.split_indices(labels, (0.8, 0.2))[0][:examples]
    return images[chosen], labels[chosen]


def vowels() -> tuple[np.ndarray, np.ndarray]:
    """Return 270 utterances of 29 steps and 12 coefficients, and their speakers."""
    (utterances, speakers), _ = jn.data.japanese_vowels()
    return np.asarray(utterances.values), speakers


def text(examples: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return characters of successive parts of a text as tokens `(examples, length)`, and those that follow each."""
    codes = jn.data.text()[: examples * length + 1]
    return codes[:-1].reshape(examples, length), codes[1:].reshape(examples, length)


def noise(*shape: int) -> np.ndarray:
    """Return normal numbers."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def classes(examples: int, count: int = 10) -> np.ndarray:
    """Return random classes."""
    return np.random.default_rng(1).integers(0, count, examples).astype(np.int32)
