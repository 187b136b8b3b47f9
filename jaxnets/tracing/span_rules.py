"""For each primitive, the intervals of its outputs from those of its operands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.tracing.jaxprs import ELEMENTWISE
from jaxnets.tracing.spans import Span, concatenate, stack, supported, union

Shape = tuple[int, ...]
# One for each output; `None` where the rule does not apply.
Made = Sequence[Span | None] | None
# Primitives whose outputs depend on the input as their operands do.
PASSED = """
    bitcast_convert_type convert_element_type copy copy_p device_put name opt_barrier optimization_barrier pvary
    reduce_precision sharding_constraint stop_gradient
"""


class Step(NamedTuple):
    """One operation, at least one of whose operands depends on the input.

    Attributes:
        params: the parameters of the primitive.
        spans: the spans of the operands; `None` for one that does not depend on the input.
        known: for each operand a function that computes it if it is a constant, else `None`.
        given: the shapes of the operands.
        shapes: the shapes of the outputs.
    """

    params: Mapping[str, Any]
    spans: Sequence[Span | None]
    known: Sequence[Callable[[], Any] | None]
    given: Sequence[Shape]
    shapes: Sequence[Shape]


def elementwise(spans: Sequence[Span | None], shape: Shape) -> Span:
    """Join the operands element by element."""
    return union([s if s.shape == shape else s.place(shape, range(len(s.shape))) for s in spans if s])


def _passed(op: Step) -> Made:
    return op.spans


def _convolution(op: Step) -> Made:
    span, p, (shape,) = op.spans[0], op.params, op.shapes
    # A kernel that depends on the input, or batch groups, have no rule.
    if span is None or op.spans[1] is not None or p["batch_group_count"] > 1:
        return None
    (batch, feature, *spatial), out = p["dimension_numbers"].lhs_spec, p["dimension_numbers"].out_spec
    sizes = [op.given[1][axis] for axis in p["dimension_numbers"].rhs_spec[2:]]
    # From axes of the input to axes of the output.
    target = {batch: out[0]}
    settings = (p["window_strides"], p["padding"], p["rhs_dilation"], p["lhs_dilation"])
    for axis, to, size, stride, (before, _), dilation, base in zip(spatial, out[2:], sizes, *settings):
        span = span.window(axis, shape[to], size, stride, before, dilation, base)
        target[axis] = to
    # Channels are joined: each output feature is taken to read all of them.
    return [span.over([feature]).place(shape, [target[axis] for axis in sorted(target)])]


def _product(op: Step) -> Made:
    (contracted, batched), (shape,) = op.params["dimension_numbers"], op.shapes
    made = []
    for side, span in enumerate(op.spans):
        if span is None:
            continue
        # The output has the batch axes, the free axes of the left operand, then those of the right one.
        axes = list(contracted[side])
        free = [axis for axis in range(len(span.shape)) if axis not in (*axes, *batched[side])]
        start = len(shape) - len(free) if side else len(batched[0])
        target = dict(zip(batched[side], range(len(shape)))) | dict(zip(free, range(start, len(shape))))
        known = op.known[1 - side]
        if known is not None and len(axes) == 1 and not batched[0] and len(op.given[1 - side]) == 2:
            # A constant that averages or interpolates, say: its zeros join nothing.
            matrix = np.asarray(known())
            # `support` is (elements, outputs); the outputs take the place of the contracted axis.
            span = supported(span, axes[0], (matrix.T if contracted[1 - side][0] else matrix) != 0)
            target[axes.pop()] = 0 if side else len(shape) - 1
        # Axes that are still contracted are joined whole.
        made.append(span.over(axes).place(shape, [target[axis] for axis in sorted(target)]))
    return [union(made)]


def _windows(op: Step) -> Made:
    span, p = op.spans[0], op.params
    if span is None or len(op.shapes) > 1:
        return None
    settings = (p["window_dimensions"], p["window_strides"], p["padding"], p["window_dilation"], p["base_dilation"])
    for axis, (count, size, stride, (before, _), dilation, base) in enumerate(zip(op.shapes[0], *settings)):
        span = span.window(axis, count, size, stride, before, dilation, base)
    return [span]


def _pad(op: Step) -> Made:
    # The operand, and the value of the padding
    span, value = op.spans
    if span is None or value is not None:
        return None
    for axis, (before, after, between) in enumerate(op.params["padding_config"]):
        if before or after or between:
            span = span.window(axis, op.shapes[0][axis], before=before, base=between + 1)
    return [span]


def _concatenate(op: Step) -> Made:
    axis = op.params["dimension"]
    return [concatenate(op.spans, [shape[axis] for shape in op.given], axis)]


def _split(op: Step) -> Made:
    (span,), axis, made, start = op.spans, op.params["axis"], [], 0
    for shape in op.shapes:
        # Element i of a part is element start + i of the whole.
        made.append(span and span.window(axis, shape[axis], before=-start))
        start += shape[axis]
    return made


def _stack(op: Step) -> Made:
    (shape,), axis = op.shapes, op.params["axis"]
    # Concatenate along a new first axis, and move that to its place.
    parts = [span and span.place((1, *span.shape), range(1, len(shape))) for span in op.spans]
    order = [axis, *(each for each in range(len(shape)) if each != axis)]
    return [concatenate(parts, [1] * len(parts), 0).place(shape, order)]


def _unstack(op: Step) -> Made:
    (span,), axis = op.spans, op.params["axis"]
    return [span and span.window(axis, 1, before=-place).over([axis]) for place in range(len(op.shapes))]


def _dynamic_slice(op: Step) -> Made:
    span, *starts = op.spans
    if span is None or any(starts):
        return None
    for axis, (n, count, start) in enumerate(zip(op.given[0], op.shapes[0], op.known[1:], strict=True)):
        # From an unknown start, each element may be any element along the axis.
        if count < n and start is None:
            span = _forget(span, axis, count)
        elif count < n and start is not None:
            # JAX clips the start so that the slice lies inside; the last index is the ghost's.
            span = span.take(axis, np.clip(int(start()), 0, n - count) + np.arange(count + 1))
    return [span]


def _gather(op: Step) -> Made:
    (span, indices), known, (shape,) = op.spans, op.known[1], op.shapes
    numbers, sizes = op.params["dimension_numbers"], op.params["slice_sizes"]
    # Axes of the output that run over the indices
    rows = [axis for axis in range(len(shape)) if axis not in numbers.offset_dims]
    # A table of constants, read at indices that depend on the input.
    if span is None and indices is not None:
        return [indices.over([len(indices.shape) - 1]).place(shape, rows)]
    if span is None or indices is not None or numbers.operand_batching_dims:
        return None
    # Axes of which a slice is taken.
    parts = [axis for axis, (n, size) in enumerate(zip(span.shape, sizes)) if size < n]
    # Axes that disappear, since the slice has a single element there
    gone = tuple(numbers.collapsed_slice_dims)
    # A list of indices `(n, 1)` into one axis
    simple = len(op.given[1]) == 2 and gone == tuple(numbers.start_index_map) and len(gone) == 1
    if known is not None and simple and set(parts) <= set(gone):
        index = np.asarray(known())[:, 0].astype(int).clip(0, span.shape[gone[0]] - 1)
        # The ghost continues the last step.
        ghost = 2 * index[-1] - index[-2] if len(index) > 1 else index[-1]
        target = dict(zip([axis for axis in range(len(sizes)) if axis not in gone], numbers.offset_dims))
        target[gone[0]] = rows[0]
        return [span.take(gone[0], np.append(index, ghost)).place(shape, [target[axis] for axis in sorted(target)])]
    for axis in parts:
        span = _forget(span, axis, sizes[axis])
    return [span.over(gone).place(shape, numbers.offset_dims)]


def _reduce(op: Step) -> Made:
    axes = op.params["axes"] if "axes" in op.params else op.params["dimensions"]
    # Scalar operands are the initial values of `reduce`.
    whole = union([span for span, shape in zip(op.spans, op.given) if span and shape])
    return [whole.over(axes)] * len(op.shapes)


def _scan_slice(op: Step) -> Made:
    span, known = op.spans[0], op.known[1]
    if span is None or known is None:
        return None
    step = known()
    # A single element, whose ghost plays no part
    return [span.take(0, np.array([step, step])).over([0])]


def _scan_stack(op: Step) -> Made:
    some = next(span for span in op.spans if span is not None)
    # A row that does not depend on the input gets the intervals of another row, an upper bound.
    return [stack([some if span is None else span for span in op.spans])]


def _choice(op: Step) -> Made:
    index, *branches = op.spans
    spans = [span for span in branches if span is not None]
    # Which branch is taken depends on the input.
    if index is not None:
        spans.append(index.everything(op.shapes[0]))
    return [union(spans)]


def _sort(op: Step) -> Made:
    axis = op.params.get("dimension", len(op.given[0]) - 1)
    whole = union([span for span in op.spans if span])
    # A sorted element may come from anywhere along the axis.
    return [_forget(whole, axis, shape[axis]) for shape in op.shapes]


def _fft(op: Step) -> Made:
    span, (shape,), rank = op.spans[0], op.shapes, len(op.params["fft_lengths"])
    if span is None:
        return None
    # A frequency depends on all positions along its axis.
    for axis in range(len(shape) - rank, len(shape)):
        span = _forget(span, axis, shape[axis])
    return [span]


def _forget(span: Span, axis: int, count: int) -> Span:
    """Return `count` elements along an axis, each of which may be any of its elements."""
    shape = (*span.shape[:axis], count, *span.shape[axis + 1 :])
    return span.over([axis]).place(shape, [each for each in range(len(shape)) if each != axis])


def _moved(change: Callable[[Mapping[str, Any], Span, Shape], Span]) -> Callable[[Step], Made]:
    """Return the rule of a primitive that moves the elements of its first operand."""

    def rule(op: Step) -> Made:
        span = op.spans[0]
        return None if span is None else [change(op.params, span, op.shapes[0])]

    return rule


def _slice(p: Mapping[str, Any], span: Span, shape: Shape) -> Span:
    strides = p["strides"] or (1,) * len(shape)
    for axis, (start, stride, count) in enumerate(zip(p["start_indices"], strides, shape, strict=True)):
        if (start, stride, count) != (0, 1, span.shape[axis]):
            span = span.window(axis, count, stride=stride, before=-start)
    return span


def _tile(p: Mapping[str, Any], span: Span, shape: Shape) -> Span:
    for axis, (n, count) in enumerate(zip(span.shape, p["reps"], strict=True)):
        span = span.take(axis, np.arange(n * count + 1) % n) if count > 1 else span
    return span


def _reverse(p: Mapping[str, Any], span: Span, shape: Shape) -> Span:
    for axis in p["dimensions"]:
        # The ghost of the reversed axis, at index −1, lies before the first element.
        span = span.take(axis, shape[axis] - 1 - np.arange(shape[axis] + 1))
    return span


RULES: dict[str, Callable[[Step], Made]] = {
    **dict.fromkeys(ELEMENTWISE, lambda op: [elementwise(op.spans, op.shapes[0])]),
    **dict.fromkeys(PASSED.split(), _passed),
    **dict.fromkeys(("argmax", "argmin", "reduce", "reduce_and", "reduce_max", "reduce_min", "reduce_or"), _reduce),
    **dict.fromkeys(
        ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"),
        _moved(lambda p, span, _: span.running(p["axis"], reverse=p["reverse"])),
    ),
    **dict.fromkeys(("reduce_prod", "reduce_sum", "reduce_xor"), _reduce),
    **dict.fromkeys(("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"), _windows),
    **dict.fromkeys(("sort", "top_k"), _sort),
    "broadcast_in_dim": _moved(lambda p, span, shape: span.place(shape, p["broadcast_dimensions"])),
    "choice": _choice,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "dynamic_slice": _dynamic_slice,
    "fft": _fft,
    "gather": _gather,
    "pad": _pad,
    "reshape": _moved(lambda p, span, shape: span.reshape(shape)),
    "rev": _moved(_reverse),
    "scan_slice": _scan_slice,
    "scan_stack": _scan_stack,
    "slice": _moved(_slice),
    "split": _split,
    "stack": _stack,
    "squeeze": _moved(lambda p, span, _: span.over(p["dimensions"])),
    "unstack": _unstack,
    "tile": _moved(_tile),
    "transpose": _moved(lambda p, span, shape: span.place(shape, np.argsort(p["permutation"]).tolist())),
}
