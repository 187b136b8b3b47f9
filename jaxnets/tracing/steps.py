"""Whether a function of padded sequences reads the padding."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxnets.tracing.reach import Reach, Value
from jaxnets.tracing.spans import Span, whole_input


def mixed(function: Callable[..., Any], *sequences: Any) -> str | None:
    """Say what a function of arrays `(batch, time, ...)` mixes, later steps or sequences; `None` if neither.

    The function is traced on shapes, and of each element of its output it is found on which sequences and steps that
    may depend. Earlier steps of the same sequence are real where the element's own step is, so that a running sum mixes
    nothing. `None` also where it is not known: for a function that JAX can't trace, or an operation without a rule.

    >>> import jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((2, 4, 3), jnp.float32)
    >>> mixed(lambda x: jax.nn.softmax(x, axis=1), x), mixed(lambda x: x - x.mean(0)[None], x), mixed(jax.nn.softmax, x)
    ('later steps into earlier ones', 'the sequences of a batch', None)
    """
    try:
        closed = jax.make_jaxpr(function)(*sequences)
    except Exception:  # whatever is wrong with it, the call itself will say
        return None
    reach = Reach()
    made = reach.run(closed, [Value(whole_input(x.shape, (0, 1), beyond=False)) for x in sequences], ())
    spans = [each.span for each in made if each.span is not None and len(each.span.shape) > 1]
    if reach.unknown:
        return None
    if any((_place(span, 1) < span.interval(1)[1]).any() for span in spans):
        return "later steps into earlier ones"
    return "the sequences of a batch" if any(_other(span) for span in spans) else None


def _other(span: Span) -> bool:
    """Tell whether an element depends on another sequence than its own."""
    first, last = span.interval(0)
    return bool(((first <= last) & ((first < _place(span, 0)) | (last > _place(span, 0)))).any())


def _place(span: Span, axis: int) -> np.ndarray:
    """Return where each element stands along an axis."""
    return np.arange(span.shape[axis]).reshape([-1 if each == axis else 1 for each in range(len(span.shape))])
