"""Sequences of unequal length, padded to one rectangular array."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey

from jaxnets.core.errors import NetError, is_traced, known, shown


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class Padded:
    """A batch of sequences of unequal length: `values` padded to the longest, and the true `lengths`.

    Example *i* is `values[i, :lengths[i]]`. In layers of this library, padding never changes an output, a final carry
    or a gradient. A plain function, or a layer made by `jn.layer`, gets the values with zeros for padding; it is an
    error if it mixes padding into real outputs. A `Padded` is a pytree, so it passes through `jit`, `vmap`, `grad` and
    `scan` as an array does.

    `jn.data.pad` pads arrays of unequal length. A slice, a mask or an array of indices selects sequences, and a single
    index returns one, without its padding; `len` is their number. The constructor checks its arguments and turns lists
    into arrays; a transformation of the pytree may put in other leaves.

    Attributes:
        values: `(batch, time, ...)`, any dtype. Both attributes may have further leading axes, for stacked batches.
        lengths: `(batch,)`, integers from 0 to `time`.

    Raises:
        NetError: for lengths that are not integers, have another batch size, or (if known) lie outside 0 … time; for a
            list of sequences of unequal length.

    >>> import jax.numpy as jnp
    >>> sequences = Padded(jnp.array([[1, 2, 0], [3, 4, 5]]), jnp.array([2, 3]))
    >>> print(sequences.mask)
    [[ True  True False]
     [ True  True  True]]
    >>> print(sequences[0], sequences[1:].lengths, len(sequences))
    [1 2] [3] 2
    """

    values: Any
    lengths: Any

    def __post_init__(self) -> None:
        for each in fields(self):
            if isinstance(given := getattr(self, each.name), list):
                object.__setattr__(self, each.name, _array(each.name, given))
        values, lengths = self.values, self.lengths
        if not (hasattr(values, "shape") and hasattr(values, "dtype")):
            # Not arrays: axes for `vmap`, for instance.
            return
        if not (hasattr(lengths, "shape") and hasattr(lengths, "dtype")):
            raise NetError(f"expects integer lengths (batch,), got {shown(lengths)}", label="Padded")
        # Stacked batches: lengths (..., batch), values (..., batch, time, *features).
        rank = len(lengths.shape)
        fits = tuple(values.shape)[:rank] == tuple(lengths.shape) and len(values.shape) > rank
        if not (fits and jnp.issubdtype(lengths.dtype, jnp.integer)):
            hint = "; the lengths of a mask are mask.sum(1)" if lengths.dtype == bool else ""
            raise NetError(_misfit(values, lengths) + hint, label="Padded")
        numbers = known(lengths) if isinstance(lengths, jax.Array | np.ndarray) else None
        time = values.shape[rank]
        if numbers is not None and (wrong := (numbers < 0) | (numbers > time)).any():
            first = numbers[wrong][0]
            raise NetError(f"expects lengths from 0 to {time}, the width of the values, got {first}", label="Padded")

    @classmethod
    def from_sequences(cls, sequences: Sequence[Any], *, fill: Any = 0) -> "Padded":
        """Pad sequences of unequal length to the longest.

        Args:
            sequences: arrays or lists `(time, ...)`, at least one; only `time` may differ.
            fill: the value of the padding.

        Returns:
            A `Padded` of NumPy arrays: values `(batch, longest, ...)` in the common dtype of the sequences, and lengths
            in int32.

        Raises:
            NetError: for no sequences, or sequences that differ in more than `time`.

        >>> padded = Padded.from_sequences([[1, 2], [3, 4, 5], []])
        >>> padded.values.tolist(), padded.lengths.tolist()
        ([[1, 2, 0], [3, 4, 5], [0, 0, 0]], [2, 3, 0])
        """
        arrays = [_array("sequences", each) for each in sequences]
        if not arrays:
            raise NetError("expects at least one sequence, got none", label="Padded.from_sequences")
        # An empty list shows neither the features nor the dtype.
        full = [each for each in arrays if each.size] or arrays
        shapes = {each.shape[1:] for each in full}
        if len(shapes) > 1 or not all(each.ndim for each in arrays):
            found = ", ".join(map(str, sorted({each.shape for each in arrays})[:6]))
            raise NetError(f"expects sequences (time, ...) that differ in time alone, got {found}", label="Padded")
        lengths = np.array([len(each) for each in arrays], np.int32)
        values = np.full((len(arrays), lengths.max(), *shapes.pop()), fill, np.result_type(*full))
        # The rest of each row keeps `fill`.
        for row, each in zip(values, arrays):
            if each.size:
                row[: len(each)] = each
        return Padded(values, lengths)

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], None]:
        """Return the arrays with their names."""
        return tuple((GetAttrKey(each.name), getattr(self, each.name)) for each in fields(self)), None

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        """Return the arrays."""
        return tuple(getattr(self, each.name) for each in fields(self)), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, ...]) -> Self:
        """Return a `Padded` of other leaves, unchecked: transformations put in more than arrays."""
        new = object.__new__(cls)
        for each, leaf in zip(fields(cls), leaves, strict=True):
            object.__setattr__(new, each.name, leaf)
        return new

    def with_values(self, values: Any) -> Self:
        """Return the same sequences with other values, `(batch, time, ...)`; a `Packed` keeps its documents.

        >>> import jax.numpy as jnp
        >>> sequences = Padded(jnp.array([[1, 2, 0], [3, 4, 5]]), jnp.array([2, 3]))
        >>> sequences.with_values(sequences.values + 1).lengths.tolist()
        [2, 3]
        """
        return replace(self, values=values)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        """Return the sequences that a slice, a mask or an array of indices selects; or one, for a single index.

        Raises:
            IndexError: for a single index out of range.
            NetError: for a single index that is traced, or of a sequence whose length is traced.
        """
        index = np.asarray(index, None if index else int) if isinstance(index, list) else index
        index = np.asarray(index) if isinstance(index, bool) else index
        single = isinstance(index, int | np.integer) or (hasattr(index, "shape") and not index.shape)
        kinds = (jnp.integer,) if single else (jnp.integer, np.bool_)
        dtype = getattr(index, "dtype", None)
        if dtype is not None and not any(jnp.issubdtype(dtype, kind) for kind in kinds):
            raise NetError(f"expects integers or a mask as indices, got {shown(index)}", label="Padded")
        if not single and not isinstance(index, slice | np.ndarray | jax.Array):
            hint = "index the values for single steps"
            raise NetError(
                f"expects one index, a slice or an array of indices, got {shown(index)}; {hint}", label="Padded"
            )
        if single and not is_traced(index):
            index = operator.index(index)  # pyright: ignore[reportArgumentType]
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} sequences")
        leaves = jax.tree.leaves(self)
        # NumPy's arrays take no traced index.
        leaves = map(jnp.asarray, leaves) if is_traced(index) else leaves
        chosen = type(self)(*(leaf[index] for leaf in leaves))
        if not single or len(np.shape(self.lengths)) > 1:
            return chosen
        if (length := known(chosen.lengths)) is None:
            hint = "index by an array, x[index[None]], which keeps the padding"
            raise NetError(f"expects a sequence of known length, got a traced one; {hint}", label="Padded")
        return chosen.values[: int(length)]

    @property
    def mask(self) -> jax.Array:
        """Booleans `(batch, time)`, true for values and false for padding."""
        time = np.shape(self.values)[1]
        # (batch, time): the number of each step.
        steps = jax.lax.broadcasted_iota(jnp.int32, (np.shape(self.lengths)[0], time), 1)
        return steps < jnp.asarray(self.lengths, jnp.int32)[:, None]

    def zeroed(self) -> jax.Array:
        """Return the values with zeros for padding, even if it was NaN."""
        values = jnp.asarray(self.values)
        # (batch, time, 1, ...)
        mask = jnp.expand_dims(self.mask, tuple(range(2, values.ndim)))
        return jnp.where(mask, values, jnp.zeros((), values.dtype))


def check_padded(x: Padded) -> None:
    """Check the ranks of values and lengths, and that every sequence has a length.

    Raises:
        NetError: if `values` is not at least `(batch, time)` or `lengths` is not integers `(batch,)`.
    """
    values, lengths = np.shape(x.values), np.shape(x.lengths)
    if len(values) < 2 or lengths != values[:1] or not jnp.issubdtype(jnp.result_type(x.lengths), jnp.integer):
        raise NetError(_misfit(x.values, x.lengths))


def _misfit(values: Any, lengths: Any) -> str:
    return (
        f"expects values (batch, time, ...) and integer lengths (batch,), "
        f"got values {np.shape(values)} and lengths {np.shape(lengths)} {jnp.result_type(lengths)}"
    )


def _array(name: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError:
        hint = "jn.data.pad(sequences) pads them"
        raise NetError(f"expects {name} as one array, got a list of unequal lengths; {hint}", label="Padded") from None


def step_check(function: Callable[..., Any], written: Any) -> Callable[..., None]:
    """Return a check that `function(params, *sequences)` mixes no padding into a real output.

    The sequences are the values of `Padded`. The check traces the function once for each set of shapes, and passes if
    the trace does not show whether it does. With `apart`, for the values of `Packed`, the function may not mix any
    steps, and the trace must show that it does not. `written` is the function inside, of the user or of this library;
    those of this library pass.
    """
    own = (getattr(written, "__module__", None) or "").startswith("jaxnets.")
    passed: set[Any] = set()

    def check(params: Any, *sequences: Any, apart: bool = False) -> None:
        leaves, structure = jax.tree.flatten((params, sequences))
        shapes = apart, structure, *((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        if own or shapes in passed:
            return
        # Imported here: it is slow, and few networks need it.
        from jaxnets.tracing.reach import mixed

        # Three stand for a size that is symbolic, in a program exported for any batch.
        sizes = (tuple(n if isinstance(n, int) else 3 for n in np.shape(x)) for x in sequences)
        specs = (jax.ShapeDtypeStruct(each, jnp.result_type(x)) for each, x in zip(sizes, sequences, strict=True))
        what = mixed(lambda *sequences: function(params, *sequences), *specs, apart=apart)
        if what is not None and apart:
            raise NetError(
                f"expects a function of single steps for Packed values {np.shape(sequences[0])}, got one that mixes "
                f"{what}: documents would read each other; write jn.Net(init, apply), whose apply gets the Packed "
                f"itself, and keep its segments apart"
            )
        if what is not None:
            raise NetError(
                f"expects a function of each step and those before it for Padded values {np.shape(sequences[0])}, got "
                f"one that mixes {what}: padding would change its outputs; write jn.Net(init, apply), whose apply gets "
                f"the Padded itself, and leave padding out by its mask"
            )
        passed.add(shapes)

    return check
