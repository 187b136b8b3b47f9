"""What a source holds and what transforms do, as short text, by some examples spread over the source."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

PROBES = 8  # examples that transforms are tried on


def crc(leaves: Iterable[Any]) -> str:
    """Return the CRC-32 of arrays, their types and shapes, as text."""
    total = 0
    for leaf in map(np.asarray, leaves):
        values = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        total = zlib.crc32(f"{total} {leaf.dtype} {leaf.shape} {values}".encode())
    return f"{total:08x}"


def contents(source: Any, transforms: Sequence[Any], most: int) -> dict[str, str]:
    """Return texts by which a source, and transforms, can be told from others.

    What gives other values when it is asked again is said to vary; an example that can't be read counts as such.

    Args:
        source: gives examples by number.
        transforms: functions `(generator, example) -> example`, which must draw from the generator alone.
        most: how many examples are looked at.

    >>> kept = [contents(range(0, 9 * step, step), (), most=3) for step in (1, 2)]
    >>> kept[0]
    {'source': 'CRC-32 of 3 examples ...', 'transforms': 'none'}
    >>> kept[0] == kept[1]
    False
    """
    numbers = np.unique(np.linspace(0, len(source) - 1, min(len(source), most)).round().astype(int)).tolist()

    def transformed(number: int) -> Any:
        generator, example = np.random.default_rng(0), source[number]
        for transform in transforms:
            example = transform(generator, example)
        return example

    names = ", ".join(getattr(each, "__qualname__", type(each).__name__) for each in transforms)
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
    except Exception as error:  # whatever the source raises; the stream raises it when the example is due
        return type(error).__name__
