"""Sets in the cache of Hugging Face's `datasets`, where that is installed: offline unless asked otherwise."""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxnets.errors import missing

Part = tuple[np.ndarray, np.ndarray]


def load(repository: str, *, download: bool) -> dict[str, Any] | None:
    """Return the parts of a repository by name, or `None` where `datasets` is not installed or has not cached it.

    Args:
        repository: such as `ylecun/mnist`.
        download: whether what the cache lacks may be fetched. An error of the network is passed on.

    Raises:
        ModuleNotFoundError: if it is to be fetched, and `datasets` is not installed.
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
        except (ConnectionError, FileNotFoundError):  # what it raises for a set that is not cached
            return None


def arrays(
    repository: str, columns: tuple[str, str], *, download: bool, parts: tuple[str, str] = ("train", "test")
) -> tuple[Part, Part] | None:
    """Return training and test part of a set of small images as arrays, or `None` where it is not at hand.

    Args:
        repository: such as `ylecun/mnist`.
        columns: the names of the images' and of the labels' column.
        download: whether what the cache lacks may be fetched.
        parts: the names of the parts.

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

    return part(parts[0]), part(parts[1])


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the two libraries from the network for a while; each reads the environment only once, when imported."""
    switches = [importlib.import_module("datasets").config, importlib.import_module("huggingface_hub").constants]
    before = [each.HF_HUB_OFFLINE for each in switches]
    try:
        for each in switches:
            each.HF_HUB_OFFLINE = True
        yield
    finally:
        for each, value in zip(switches, before, strict=True):
            each.HF_HUB_OFFLINE = value
