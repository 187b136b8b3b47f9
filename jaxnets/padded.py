"""Sequences of unequal length in one rectangular array."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.errors import NetError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Padded:
    """A batch of sequences of unequal length: `values` filled up to the longest, and the true `lengths`.

    Example *i* is `values[i, :lengths[i]]`; what stands behind that never changes an output, a final
    carry or a gradient of a layer of this library. A `Padded` is a pytree, so it passes through `jit`,
    `vmap`, `grad` and `scan` as an array does. A plain function, or a layer made by `jn.layer`, is given the
    values with zeros behind the end, and refused if it mixes them with what stands before.

    Attributes:
        values: `(batch, time, ...)`, any dtype.
        lengths: `(batch,)`, integers from 0 to `time`.

    >>> import jax.numpy as jnp
    >>> sequences = Padded(jnp.array([[1, 2, 0], [3, 4, 5]]), jnp.array([2, 3]))
    >>> print(sequences.mask)
    [[ True  True False]
     [ True  True  True]]
    """

    values: Any
    lengths: Any

    @property
    def mask(self) -> jax.Array:
        """Where a value is real rather than padding: booleans `(batch, time)`."""
        time = jnp.shape(self.values)[1]
        steps = jax.lax.broadcasted_iota(jnp.int32, (jnp.shape(self.lengths)[0], time), 1)
        return steps < jnp.asarray(self.lengths, jnp.int32)[:, None]

    def zeroed(self) -> jax.Array:
        """Return the values with zeros in place of padding, whatever stood there (NaN included)."""
        values = jnp.asarray(self.values)
        mask = jnp.expand_dims(self.mask, tuple(range(2, values.ndim)))
        return jnp.where(mask, values, jnp.zeros((), values.dtype))


def check_padded(x: Padded) -> None:
    """Check the ranks, and that there is one length for each sequence.

    Raises:
        NetError: if `values` is not at least `(batch, time)` or `lengths` is not integers `(batch,)`.
    """
    values, lengths = jnp.shape(x.values), jnp.shape(x.lengths)
    if len(values) < 2 or lengths != values[:1] or not jnp.issubdtype(jnp.result_type(x.lengths), jnp.integer):
        raise NetError(
            f"expects Padded(values, lengths) with values (batch, time, ...) and integer lengths (batch,), "
            f"got values {values} and lengths {lengths} {jnp.result_type(x.lengths)}"
        )


def step_check(function: Callable[..., Any], written: Any) -> Callable[..., None]:
    """Return a check that `function(params, *sequences)`, of values of `Padded`, reads no padding for a real output.

    `written` is the function as somebody wrote it; those of this library know what they do with padding. The check
    traces the function, once for each set of shapes, and lets it pass where that does not tell.
    """
    own = (getattr(written, "__module__", None) or "").startswith("jaxnets.")
    passed: set[Any] = set()

    def check(params: Any, *sequences: Any) -> None:
        leaves, structure = jax.tree.flatten((params, sequences))
        shapes = structure, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        if own or shapes in passed:
            return
        from jaxnets.tracing.steps import mixed  # read when it is asked for: few networks need it

        specs = (jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in sequences)
        if (what := mixed(lambda *sequences: function(params, *sequences), *specs)) is not None:
            raise NetError(
                f"expects a function of each step and those before it for Padded values {jnp.shape(sequences[0])}, got "
                f"one that mixes {what}: padding would change its outputs; write jn.Net(init, apply), whose apply gets "
                f"the Padded itself, and leave padding out by its mask"
            )
        passed.add(shapes)

    return check
