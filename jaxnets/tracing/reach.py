"""The part of the input that each array of a program depends on, and whether examples or time steps mix."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnets.tracing.flatten import Unrolled
from jaxnets.tracing.jaxprs import is_elementwise
from jaxnets.tracing.layers import shared
from jaxnets.tracing.operation import Operation, Path, Program, Value
from jaxnets.tracing.span_rules import RULES, elementwise
from jaxnets.tracing.spans import Span, union, whole_input


class Reach(NamedTuple):
    """What the arrays of a program depend on.

    Attributes:
        inputs: the span of each input that was followed.
        outputs: the span of each output of the program; `None` for one that does not depend on the input.
        layers: by path, the span of the last array made in the layer that is read outside it.
        unknown: primitives without a rule, whose outputs were assumed to depend on all of their inputs.
        assumed: primitives without a rule that were assumed to work element by element.
    """

    inputs: list[Span]
    outputs: list[Span | None]
    layers: dict[Path, Span]
    unknown: set[str]
    assumed: set[str]


def reach(
    program: Program, inputs: Sequence[Value], axes: Sequence[int], *, beyond: bool = False, exact: bool = False
) -> Reach:
    """Follow positions along some axes of the inputs through a program.

    Args:
        program: an unrolled program, or a rolled one whose carries are followed for one step.
        inputs: the values to follow, all of one rank.
        axes: the axes along which their positions are followed.
        beyond: whether the pattern continues beyond the edges of an array.
        exact: whether to follow sets of positions, not intervals.
    """
    # Spans of the values that depend on the input, and the number of the operation that made each.
    spans = {value: whole_input(value.shape, axes, beyond=beyond, exact=exact) for value in inputs}
    number = dict.fromkeys(inputs, -1)
    last: dict[Path, Value] = {}
    unknown: set[str] = set()
    assumed: set[str] = set()

    def read(value: Value, reader: Path) -> Span | None:
        """Return the span of a value, and record the layers that the value leaves on its way to the reader."""
        if value in spans:
            # The layers around the value, except those that it shares with the reader.
            for depth in range(shared(value.path, reader) + 1, len(value.path) + 1):
                path = value.path[:depth]
                # If several values leave a layer, the one made last counts.
                if path not in last or number[last[path]] <= number[value]:
                    last[path] = value
        return spans.get(value)

    for count, operation in enumerate(program.operations):
        found = [read(value, operation.path) for value in operation.inputs]
        if any(found):
            outputs = _outputs(operation, found, unknown, assumed)
            made = {value: span for value, span in zip(operation.outputs, outputs, strict=True) if span is not None}
            spans |= made
            number |= dict.fromkeys(made, count)
    ends = [read(value, ()) for value in program.outputs]
    layers = {path: spans[value] for path, value in last.items()}
    return Reach([spans[value] for value in inputs], ends, layers, unknown, assumed)


def _outputs(operation: Operation, spans: list[Span | None], unknown: set[str], assumed: set[str]) -> list[Span | None]:
    rule = RULES.get(operation.name)
    if rule is None and operation.equation is not None and is_elementwise(operation.equation):
        assumed.add(operation.name)
        rule = elementwise
    outputs = None if rule is None else rule(operation, spans)
    # A rule returns `None` for a case that it does not cover, such as a kernel that depends on the input.
    if outputs is not None:
        return [*outputs]
    unknown.add(operation.name)
    # Without a rule, each element may depend on anything that the operands depend on.
    return [union([span.everything(out.shape) for span in spans if span]) for out in operation.outputs]


def links(operations: Sequence[Operation], inputs: Sequence[Value], outputs: Sequence[Value]) -> int:
    """Return how many elements of the inputs each output element depends on, summed over the output elements.

    Returns 0 if no element depends on two elements of the same input.

    The count is exact where each axis can be followed separately (windows, slices, reductions), otherwise an upper
    bound.
    """
    program = Program(operations, inputs, outputs)

    def spans(*, exact: bool) -> Iterator[Span]:
        for value in inputs:
            found = reach(program, [value], range(len(value.shape)), exact=exact)
            yield from (span for span in found.outputs if span is not None)

    # Most layers work element by element, as the intervals show; exact sets of many positions are large.
    intervals = (span.interval(axis) for span in spans(exact=False) for axis in range(len(span.bounds)))
    if all((last <= first).all() for first, last in intervals):
        return 0
    counts = [span.counts() for span in spans(exact=True)]
    return sum(int(count.sum()) for count in counts) if any((count > 1).any() for count in counts) else 0


def mixed(function: Callable[..., Any], *sequences: Any, apart: bool = False) -> str | None:
    """Say whether a function of arrays `(batch, time, ...)` mixes later steps or sequences; `None` if neither.

    The function is traced on shapes, and each element of its output is followed back to the sequences and steps on
    which it may depend. If a step is not padding, the earlier steps of its sequence are not padding either; so a
    running sum is allowed. The result is also `None` if it is unknown: for a function that JAX can't trace, or an
    operation without a rule. With `apart` no step may depend on another, and such an operation is taken to mix them.

    >>> import jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((2, 4, 3), jnp.float32)
    >>> mixed(lambda x: jax.nn.softmax(x, axis=1), x), mixed(lambda x: x - x.mean(0)[None], x), mixed(jax.nn.softmax, x)
    ('later steps into earlier ones', 'the sequences of a batch', None)
    >>> mixed(lambda x: jnp.cumsum(x, 1), x), mixed(lambda x: jnp.cumsum(x, 1), x, apart=True)
    (None, 'steps')
    """
    try:
        jaxpr = jax.make_jaxpr(function)(*sequences)
    except Exception:
        # Calling the function raises the same error.
        return None
    inputs = [Value(var.aval, (), "input") for var in jaxpr.jaxpr.invars]
    found = reach(Unrolled().program(jaxpr, inputs), inputs, (0, 1))
    if found.unknown:
        return f"steps, as far as can be seen ({', '.join(sorted(found.unknown))})" if apart else None
    # Outputs without a time axis, such as a single value for each sequence, are not checked.
    spans = [span for span in found.outputs if span is not None and len(span.shape) > 1]
    if apart and any(_mixes(span, 1) for span in spans):
        return "steps"
    # The last step that an element depends on is compared with its own.
    if any((_positions(span, 1) < span.interval(1)[1]).any() for span in spans):
        return "later steps into earlier ones"
    return "the sequences of a batch" if any(_mixes(span, 0) for span in spans) else None


def _mixes(span: Span, axis: int) -> bool:
    first, last = span.interval(axis)
    own = _positions(span, axis)
    # A nonempty interval that contains more than the element's own place.
    return bool(((first <= last) & ((first < own) | (last > own))).any())


def _positions(span: Span, axis: int) -> np.ndarray:
    """Return the position of each element along an axis, shaped to broadcast."""
    return np.arange(span.shape[axis]).reshape([-1 if each == axis else 1 for each in range(len(span.shape))])
