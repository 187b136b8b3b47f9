"""Fingerprints of a source and of transforms: short texts, from a few examples spread over the source."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

# The most examples to which the transforms are applied.
PROBES = 8


def crc(leaves: Iterable[Any]) -> str:
    """Return one CRC-32 of the values, dtypes and shapes of arrays, as eight hexadecimal digits."""
    total = 0
    for leaf in map(np.asarray, leaves):
        values = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        total = zlib.crc32(f"{total} {leaf.dtype} {leaf.shape} {values}".encode())
    return f"{total:08x}"


def contents(source: Any, transforms: Sequence[Any], most: int) -> dict[str, str]:
    """Return texts that identify a source and its transforms.

    Everything is read twice; a source or transform that returns other values the second time is described as varying.
    An example that can't be read is described by the type of its error.

    Args:
        source: returns examples by number.
        transforms: functions `(generator, example) -> example`, which must draw only from the generator.
        most: the largest number of examples to read.

    >>> kept = [contents(range(0, 9 * step, step), (), most=3) for step in (1, 2)]
    >>> kept[0]
    {'source': 'CRC-32 of 3 examples ...', 'transforms': 'none'}
    >>> kept[0] == kept[1]
    False
    """
    # Evenly spread, the first and the last among them.
    numbers = np.unique(np.linspace(0, len(source) - 1, min(len(source), most)).round().astype(int)).tolist()

    def transformed(number: int) -> Any:
        generator, example = np.random.default_rng(0), source[number]
        for transform in transforms:
            example = transform(generator, example)
        return example

    names = ", ".join(getattr(each, "__qualname__", type(each).__name__) for each in transforms)
    # Every k-th, so that at most PROBES are left.
    few = numbers[:: -(-len(numbers) // PROBES)]
    return {
        "source": f"CRC-32 of {len(numbers)} examples {_twice(source.__getitem__, numbers)}",
        "transforms": f"{names}, CRC-32 {_twice(transformed, few)}" if names else "none",
    }


def _twice(read: Callable[[int], Any], numbers: Sequence[int]) -> str:
    first, second = (zlib.crc32(" ".join(_described(read, number) for number in numbers).encode()) for _ in range(2))
    return f"{first:08x}" if first == second else "that vary"


def _described(read: Callable[[int], Any], number: int) -> str:
    try:
        leaves, structure = jax.tree.flatten(read(number))
        return f"{structure} {crc(leaves)}"
    # Whatever the source raises: the stream raises it again when the example is due.
    except Exception as error:
        return type(error).__name__
