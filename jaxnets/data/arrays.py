"""Arrays in memory or in memory-mapped files as a source of examples, which worker processes can open too."""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxnets.core.errors import NetError


class Arrays:
    """A source over arrays with the examples along the first axis; an index returns one example, or several.

    Attributes:
        data: inputs, targets and optionally weights `(examples,)`; inputs and targets are pytrees of arrays.
        takes_several: whether an array of indices returns several examples at once.
    """

    def __init__(self, data: tuple[Any, ...]) -> None:
        data = jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, data)
        leaves = jax.tree.leaves(data)
        if len(data) not in (2, 3) or not leaves or any(np.ndim(leaf) == 0 for leaf in leaves):
            raise NetError(
                "expects a source, or a pair of arrays (inputs, targets) with the examples along the first axis"
            )
        if len({len(leaf) for leaf in leaves}) > 1:
            raise NetError(f"expects as many inputs as targets, got arrays {[np.shape(leaf) for leaf in leaves]}")
        if len(data) == 3 and np.ndim(data[2]) != 1:
            raise NetError(f"expects weights (examples,), got {np.shape(data[2])}")
        self.data = data
        self.takes_several: bool = all(isinstance(leaf, np.ndarray) for leaf in leaves)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.data)[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return jax.tree.map(lambda leaf: leaf[index], self.data)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle for a worker process; a memory-mapped array is pickled as its place in the file, without values."""
        return vars(self) | {"data": jax.tree.map(_sent, self.data)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        opened = jax.tree.map(lambda leaf: leaf() if isinstance(leaf, partial) else leaf, state["data"])
        vars(self).update(state | {"data": opened})


def _sent(leaf: Any) -> Any:
    """Return a function that maps a memory-mapped array again, or the array itself if it is not contiguous."""
    if not isinstance(leaf, np.memmap) or leaf.filename is None or not leaf.flags.c_contiguous:
        return leaf
    # A slice reports the offset of the whole array: add the distance between the two.
    whole = leaf
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    begin = leaf.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return partial(np.memmap, leaf.filename, leaf.dtype, "r", whole.offset + begin, leaf.shape)
