"""Rules that return, for each primitive, the positions on which its outputs depend from those of its operands."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxnets.tracing.jaxprs import ELEMENTWISE
from jaxnets.tracing.operation import Operation
from jaxnets.tracing.spans import Span, concatenate, stack, supported, union

Shape = tuple[int, ...]
# One for each operand; `None` for one that does not depend on the input. At least one does.
Spans = Sequence[Span | None]
# One for each output; `None` where the rule does not apply.
Made = Spans | None
Rule = Callable[[Operation, Spans], Made]
# Primitives whose outputs depend on the input as their operands do.
PASSED = """
    bitcast_convert_type convert_element_type copy copy_p device_put name opt_barrier optimization_barrier pvary
    reduce_precision sharding_constraint stop_gradient
"""


def elementwise(op: Operation, spans: Spans) -> Made:
    """Join the operands element by element."""
    return [
        union([s if s.shape == out.shape else s.place(out.shape, range(len(s.shape))) for s in spans if s])
        for out in op.outputs
    ]


def _convolution(op: Operation, spans: Spans) -> Made:
    (span, kernel), p, shape = spans, op.params, op.outputs[0].shape
    # A kernel that depends on the input, or batch groups, have no rule.
    if span is None or kernel is not None or p["batch_group_count"] > 1:
        return None
    (batch, feature, *spatial), out = p["dimension_numbers"].lhs_spec, p["dimension_numbers"].out_spec
    sizes = [op.inputs[1].shape[axis] for axis in p["dimension_numbers"].rhs_spec[2:]]
    # From axes of the input to axes of the output.
    target = {batch: out[0]}
    settings = (p["window_strides"], p["padding"], p["rhs_dilation"], p["lhs_dilation"])
    for axis, to, size, stride, (before, _), dilation, base in zip(spatial, out[2:], sizes, *settings):
        span = span.window(axis, shape[to], size, stride, before, dilation, base)
        target[axis] = to
    # Channels are joined: each output feature is assumed to read all of them.
    return [span.over([feature]).place(shape, [target[axis] for axis in sorted(target)])]


def _product(op: Operation, spans: Spans) -> Made:
    (contracted, batched), shape = op.params["dimension_numbers"], op.outputs[0].shape
    made = []
    for side, span in enumerate(spans):
        if span is None:
            continue
        # The output has the batch axes, the free axes of the left operand, then those of the right one.
        axes = list(contracted[side])
        free = [axis for axis in range(len(span.shape)) if axis not in (*axes, *batched[side])]
        start = len(shape) - len(free) if side else len(batched[0])
        target = dict(zip(batched[side], range(len(shape)))) | dict(zip(free, range(start, len(shape))))
        other = op.inputs[1 - side]
        if other.known is not None and len(axes) == 1 and not batched[0] and len(other.shape) == 2:
            # A constant matrix, which may average or interpolate: its zeros join nothing.
            matrix = np.asarray(other.known())
            # `support` is (elements, outputs); the outputs replace the contracted axis.
            span = supported(span, axes[0], (matrix.T if contracted[1 - side][0] else matrix) != 0)
            target[axes.pop()] = 0 if side else len(shape) - 1
        # Axes that are still contracted are joined whole.
        made.append(span.over(axes).place(shape, [target[axis] for axis in sorted(target)]))
    return [union(made)]


def _concatenate(op: Operation, spans: Spans) -> Made:
    axis = op.params["dimension"]
    return [concatenate(spans, [value.shape[axis] for value in op.inputs], axis)]


def _stack(op: Operation, spans: Spans) -> Made:
    shape, axis = op.outputs[0].shape, op.params["axis"]
    # Concatenate along a new first axis, and move it to its place.
    parts = [span and span.place((1, *span.shape), range(1, len(shape))) for span in spans]
    order = [axis, *(each for each in range(len(shape)) if each != axis)]
    return [concatenate(parts, [1] * len(parts), 0).place(shape, order)]


def _gather(op: Operation, spans: Spans) -> Made:
    (span, indices), known, shape = spans, op.inputs[1].known, op.outputs[0].shape
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
    simple = len(op.inputs[1].shape) == 2 and gone == tuple(numbers.start_index_map) and len(gone) == 1
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


def _reduce(op: Operation, spans: Spans) -> Made:
    axes = op.params["axes"] if "axes" in op.params else op.params["dimensions"]
    # Scalar operands are the initial values of `reduce`.
    whole = union([span for span in spans if span and span.shape])
    return [whole.over(axes)] * len(op.outputs)


def _scan_stack(op: Operation, spans: Spans) -> Made:
    some, shape = next(span for span in spans if span is not None), op.outputs[0].shape
    # In a rolled program one row represents those of all steps.
    if len(spans) != shape[0]:
        return [some.place(shape, range(1, len(shape)))]
    # A row that does not depend on the input gets the positions of another row, an upper bound.
    return [stack([some if span is None else span for span in spans])]


def _choice(op: Operation, spans: Spans) -> Made:
    index, *branches = spans
    joined = [span for span in branches if span is not None]
    # Which branch is taken depends on the input.
    if index is not None:
        joined.append(index.everything(op.outputs[0].shape))
    return [union(joined)]


def _sort(op: Operation, spans: Spans) -> Made:
    axis = op.params.get("dimension", len(op.inputs[0].shape) - 1)
    whole = union([span for span in spans if span])
    # A sorted element may come from anywhere along the axis.
    return [_forget(whole, axis, out.shape[axis]) for out in op.outputs]


def _forget(span: Span, axis: int, count: int) -> Span:
    """Return `count` elements along an axis, each of which may be any of its elements."""
    shape = (*span.shape[:axis], count, *span.shape[axis + 1 :])
    return span.over([axis]).place(shape, [each for each in range(len(shape)) if each != axis])


def _moved(change: Callable[[Operation, Span, Shape], Span]) -> Rule:
    """Return the rule of a primitive with one output, which moves or joins elements of only its first operand."""

    def rule(op: Operation, spans: Spans) -> Made:
        span, *others = spans
        if span is None or any(others) or len(op.outputs) > 1:
            return None
        return [change(op, span, op.outputs[0].shape)]

    return rule


def _windows(op: Operation, span: Span, shape: Shape) -> Span:
    p = op.params
    settings = (p["window_dimensions"], p["window_strides"], p["padding"], p["window_dilation"], p["base_dilation"])
    for axis, (count, size, stride, (before, _), dilation, base) in enumerate(zip(shape, *settings)):
        span = span.window(axis, count, size, stride, before, dilation, base)
    return span


def _pad(op: Operation, span: Span, shape: Shape) -> Span:
    for axis, (before, after, between) in enumerate(op.params["padding_config"]):
        if before or after or between:
            span = span.window(axis, shape[axis], before=before, base=between + 1)
    return span


def _slice(op: Operation, span: Span, shape: Shape) -> Span:
    strides = op.params["strides"] or (1,) * len(shape)
    for axis, (start, stride, count) in enumerate(zip(op.params["start_indices"], strides, shape, strict=True)):
        if (start, stride, count) != (0, 1, span.shape[axis]):
            span = span.window(axis, count, stride=stride, before=-start)
    return span


def _dynamic_slice(op: Operation, span: Span, shape: Shape) -> Span:
    for axis, (n, count, start) in enumerate(zip(span.shape, shape, op.inputs[1:], strict=True)):
        # From an unknown start, each element may be any element along the axis.
        if count < n and start.known is None:
            span = _forget(span, axis, count)
        elif count < n and start.known is not None:
            # JAX clips the start so that the slice is inside; the last index is the ghost's.
            span = span.take(axis, np.clip(int(start.known()), 0, n - count) + np.arange(count + 1))
    return span


def _scan_slice(op: Operation, span: Span, shape: Shape) -> Span:
    # In a rolled program one slice represents those of all steps.
    if len(op.inputs) == 1:
        return span.over([0])
    step = op.inputs[1].known
    assert step is not None
    # A single element, whose ghost is not used
    return span.take(0, np.array([step(), step()])).over([0])


def _split(op: Operation, spans: Spans) -> Made:
    (span,), axis, made, start = spans, op.params["axis"], [], 0
    for out in op.outputs:
        # Element i of a part is element start + i of the whole.
        made.append(span and span.window(axis, out.shape[axis], before=-start))
        start += out.shape[axis]
    return made


def _unstack(op: Operation, spans: Spans) -> Made:
    (span,), axis = spans, op.params["axis"]
    return [span and span.window(axis, 1, before=-place).over([axis]) for place in range(len(op.outputs))]


def _fft(op: Operation, span: Span, shape: Shape) -> Span:
    # A frequency depends on all positions along its axis.
    for axis in range(len(shape) - len(op.params["fft_lengths"]), len(shape)):
        span = _forget(span, axis, shape[axis])
    return span


def _tile(op: Operation, span: Span, shape: Shape) -> Span:
    for axis, (n, count) in enumerate(zip(span.shape, op.params["reps"], strict=True)):
        span = span.take(axis, np.arange(n * count + 1) % n) if count > 1 else span
    return span


def _reverse(op: Operation, span: Span, shape: Shape) -> Span:
    for axis in op.params["dimensions"]:
        # The ghost of the reversed axis, at index −1, is before the first element.
        span = span.take(axis, shape[axis] - 1 - np.arange(shape[axis] + 1))
    return span


def _running(op: Operation, span: Span, shape: Shape) -> Span:
    return span.running(op.params["axis"], reverse=op.params["reverse"])


def _named(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    return {name: rule for names, rule in rules.items() for name in names.split()}


RULES = _named(
    {
        " ".join(ELEMENTWISE): elementwise,
        PASSED: lambda op, spans: spans,
        # A step of a rolled loop is assumed to read only its own carry, not the inputs of the loop.
        "carry": lambda op, spans: spans[:1],
        "argmax argmin reduce reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor": _reduce,
        "broadcast_in_dim": _moved(lambda op, span, shape: span.place(shape, op.params["broadcast_dimensions"])),
        "choice": _choice,
        "concatenate": _concatenate,
        "conv_general_dilated": _convolution,
        "cumlogsumexp cummax cummin cumprod cumsum": _moved(_running),
        "dot_general": _product,
        "dynamic_slice": _moved(_dynamic_slice),
        "fft": _moved(_fft),
        "gather": _gather,
        "pad": _moved(_pad),
        "reduce_window reduce_window_max reduce_window_min reduce_window_sum": _moved(_windows),
        "reshape": _moved(lambda op, span, shape: span.reshape(shape)),
        "rev": _moved(_reverse),
        "scan_slice": _moved(_scan_slice),
        "scan_stack": _scan_stack,
        "slice": _moved(_slice),
        "sort top_k": _sort,
        "split": _split,
        "squeeze": _moved(lambda op, span, shape: span.over(op.params["dimensions"])),
        "stack": _stack,
        "tile": _moved(_tile),
        "transpose": _moved(lambda op, span, shape: span.place(shape, np.argsort(op.params["permutation"]).tolist())),
        "unstack": _unstack,
    }
)
