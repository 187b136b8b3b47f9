"""Several documents in one row of a rectangular array, which do not read each other."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, known, shown
from jaxnets.core.padded import Padded


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class Packed(Padded):
    """Rows of several documents, each followed by the next, the rest padding: `Padded` with the number of a document.

    Step t of row *i* belongs to document `segments[i, t]`, and `lengths[i]` is the length of all documents of the row.
    In layers of this library, a document gives what it gives alone: attention reads only within a document, and
    positions restart at each. What is defined over a whole sequence, such as a recurrent network or a convolution over
    time, is refused. A plain function, or a layer made by `jn.layer`, may not mix steps. A loss of steps,
    `jn.losses.sequence`, averages over the real steps of a row.

    `jn.data.pack` makes one of a list of documents, and `jn.data.unpack` returns them.

    Attributes:
        values: `(batch, time, ...)`, any dtype.
        lengths: `(batch,)`, integers from 0 to `time`.
        segments: `(batch, time)`, integers that do not fall along a row, equal within a document and different for
            neighbors. Those of padding have no meaning.

    Raises:
        NetError: as in `Padded`; for segments that are not integers, have another shape, or (if known) fall.

    >>> import jax.numpy as jnp
    >>> rows = Packed(jnp.array([[5, 6, 7, 8, 0]]), jnp.array([4]), jnp.array([[0, 0, 1, 1, -1]]))
    >>> print(rows.positions)
    [[0 1 0 1 0]]
    """

    segments: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        values, lengths, segments = self.values, self.lengths, self.segments
        if not (hasattr(values, "shape") and hasattr(values, "dtype")):
            # Not arrays: axes for `vmap`, for instance.
            return
        steps = tuple(values.shape)[: len(lengths.shape) + 1]
        if not hasattr(segments, "shape") or tuple(segments.shape) != steps:
            raise NetError(
                f"expects integer segments {steps}, one for each step, got {shown(segments)}", label="Packed"
            )
        if not jnp.issubdtype(segments.dtype, jnp.integer):
            raise NetError(f"expects integer segments, got {segments.dtype} {segments.shape}", label="Packed")
        given = (known(x) if isinstance(x, jax.Array | np.ndarray) else None for x in (segments, lengths))
        numbers, ends = given
        if numbers is None or ends is None or steps[-1] < 2:
            return
        # Only neighbors that are both real are compared.
        falls = (np.diff(numbers.astype(np.int64), axis=-1) < 0) & (np.arange(1, steps[-1]) < ends[..., None])
        if falls.any():
            row = np.argwhere(falls)[0][:-1]
            raise NetError(
                f"expects segments that do not fall along a row, got {numbers[tuple(row)].tolist()[:20]} in row "
                f"{row[-1]}; number its documents in order",
                label="Packed",
            )

    @property
    def positions(self) -> jax.Array:
        """The position of each step in its document, from 0, `(batch, time)` int32; 0 for padding."""
        segments = jnp.asarray(self.segments)
        steps = jax.lax.broadcasted_iota(jnp.int32, segments.shape, 1)
        begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
        # The last beginning at or before each step.
        return jnp.where(self.mask, steps - jax.lax.cummax(jnp.where(begins, steps, 0), 1), 0)


def both_packed(x: Any, y: Any) -> bool:
    """Tell whether two sequences, one of which reads the other, are both `Packed`.

    Raises:
        NetError: if only one of them is.
    """
    packed = isinstance(x, Packed), isinstance(y, Packed)
    if packed[0] != packed[1]:
        raise NetError("expects both sequences Packed or neither, got one; number the documents of both alike")
    return all(packed)
