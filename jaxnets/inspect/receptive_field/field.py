"""Receptive fields of layers by tracing: size, stride, padding, center, and the exact intervals."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.net import describe
from jaxnets.inspect.trace import Model, input_of, model_of
from jaxnets.tracing.flatten import Unrolled
from jaxnets.tracing.jaxprs import warn_assumed
from jaxnets.tracing.layers import of_network
from jaxnets.tracing.operation import Path, Value
from jaxnets.tracing.reach import reach
from jaxnets.tracing.spans import NEVER, Span, period


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a layer's units: one value for each spatial axis of the input, in pixels.

    Unit i sees the positions i · stride - padding to i · stride - padding + size - 1. These may be beyond the edges, in
    the padding; `intervals` are cut at the edges. A unit is a position of the layer's output with all its channels.

    Attributes:
        size: the number of positions from the first to the last that a unit sees. Where the layer's output lacks the
            axis (after a global pool, `flatten` or a dense layer), only positions inside the input count.
        stride: the number of positions from one unit to the next, a fraction where a layer upsamples. `None` where the
            output lacks the axis or the intervals do not move evenly.
        padding: how far the first unit sees beyond the first position.
        center: the middle of the interval that the first unit sees, as a position.
        whole: whether every unit sees the input from edge to edge.
        intervals: for each axis the first and the last position of the input that each unit sees, `(2, units)`, with
            first > last where it sees nothing; `(2, 1)` for all units together where the output lacks the axis.
        layers: the receptive field of every layer by path, in the order in which the layers ran.
        unknown: primitives of JAX without a rule; each of their outputs is assumed to depend on all of their inputs.
    """

    size: tuple[int, ...]
    stride: tuple[int | float | None, ...]
    padding: tuple[int, ...]
    center: tuple[float, ...]
    whole: bool
    intervals: tuple[np.ndarray, ...] = field(repr=False)
    layers: Mapping[str, "ReceptiveField"] = field(default_factory=dict, repr=False)
    unknown: tuple[str, ...] = field(default=(), repr=False)

    @property
    def units(self) -> tuple[int, ...]:
        """The number of units along each axis, 1 where the output lacks the axis."""
        return tuple(interval.shape[1] for interval in self.intervals)

    def box(self, *unit: int) -> tuple[tuple[int, int], ...]:
        """Return the first and the last position along each axis that a unit sees, including those beyond the edges.

        Args:
            *unit: the index of the unit along each axis; negative ones count from the end.

        Raises:
            NetError: if there is no such unit.
        """
        if len(unit) != len(self.units) or not all(-n <= each < n for each, n in zip(unit, self.units)):
            raise NetError(f"has {' × '.join(map(str, self.units)) or 'no'} units, got {unit}", label="receptive_field")
        found = []
        for each, size, stride, padding, interval in zip(
            unit, self.size, self.stride, self.padding, self.intervals, strict=True
        ):
            first, last = (int(end) for end in interval[:, each])
            if isinstance(stride, int):
                first = each % interval.shape[1] * stride - padding
                last = first + size - 1
            found.append((first, last))
        return tuple(found)


def receptive_field(
    model: Any, x: Any, *more: Any, axes: Sequence[int] | None = None, params: Any = None, state: Any = None
) -> ReceptiveField:
    """Return the receptive field of every layer of a network, a Flax module or any JAX function, in evaluation.

    The function traces the program on shapes and follows, through all operations, the interval of input positions on
    which each element of each array depends. So it works for any program. An interval contains every position that
    *may* matter, whatever the values of the parameters, including those that a dilated window skips. Size, stride and
    padding are those of units far from the edges, whatever the size of the input. A layer that runs several times, such
    as in a `repeat`, has the field of its last run.

    For kernel sizes k₁, k₂, …, strides s₁, s₂, … and padding p₁, p₂, … of successive layers,
    size = 1 + Σ (kᵢ - 1) s₁ ⋯ sᵢ₋₁, stride = s₁ s₂ ⋯, and padding = Σ pᵢ s₁ ⋯ sᵢ₋₁. A kernel of dilation d is
    d (k - 1) + 1 wide. Where several paths meet, the field is the union of theirs.

    Args:
        model: a `Net`, a Flax Linen or NNX module, or a function of arrays.
        x: the first input: an array, its spec, or a shape of float32.
        *more: the other inputs of a function or a module.
        axes: the spatial axes of `x`; by default all but the first and the last, or for integers all but the first.
        params: parameters of the network or module, or their shapes; default: those of an abstract initialization. With
            them a function is called as `model(params, x, *more)`.
        state: the state of the network with `params`.

    Returns:
        The field of the output, or of the first if there are several; `layers` has those of the layers by path.

    Raises:
        NetError: if `x` is not a single array, or the output does not depend on it.

    Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks" (2019).

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> field = receptive_field(jn.models.lenet5(), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32))
    >>> field.layers["pool2"]
    ReceptiveField(size=(16, 16), stride=(4, 4), padding=(2, 2), center=(5.5, 5.5), whole=False)
    >>> field.size, field.whole
    ((28, 28), True)
    """
    x = input_of(x)
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise NetError(f"expects one array or its spec as the input, got {type(x).__name__}", label="receptive_field")
    found, assumed = of_model(model_of(model, x, *more, params=params, state=state), axes)
    warn_assumed(assumed, stacklevel=2)
    return found


def of_model(model: Model, axes: Sequence[int] | None = None) -> tuple[ReceptiveField, set[str]]:
    """Return the field of a model in its first input, and the primitives that were assumed to work element by element.

    Raises:
        NetError: if the output does not depend on the first input.
    """
    x = model.inputs[0]
    last = len(x.shape) - int(jnp.issubdtype(x.dtype, jnp.inexact))
    spatial = tuple(range(1, max(1, last))) if axes is None else tuple(range(len(x.shape))[axis] for axis in axes)
    args = (model.params, model.state, None, *model.inputs)
    closed = jax.make_jaxpr(lambda *args: model.call(*args, train=False)[0])(*args)
    inputs = [Value(var.aval) for var in closed.jaxpr.invars]
    program, image = Unrolled().program(closed, inputs), inputs[len(jax.tree.leaves(args[:3]))]
    # Once with the pattern continued beyond the edges, once only inside the input
    endless, inside = (reach(program, [image], spatial, beyond=beyond) for beyond in (True, False))
    if not endless.outputs or endless.outputs[0] is None or inside.outputs[0] is None:
        raise NetError(f"finds that the output does not depend on {describe(x)}", label="receptive_field")
    of = functools.partial(_field, spatial, x.shape)
    fields = {path: of(span, inside.layers[path]) for path, span in endless.layers.items()}
    if model.net is not None:
        fields = of_network(model.net, fields, of(*endless.inputs, *inside.inputs), model.parameters)
    layers = {"/".join(path): field for path, field in fields.items()}
    whole = of(endless.outputs[0], inside.outputs[0])
    return replace(whole, layers=layers, unknown=tuple(sorted(endless.unknown))), endless.assumed


def sizes_by_layer(model: Model) -> tuple[dict[Path, tuple[int, ...]], set[str]]:
    """Return the size of each layer's field by path, and the primitives that were assumed to work element by element.

    There are no sizes if the input is not an image, or if nothing in the output depends on it.
    """
    x = model.inputs[0] if len(model.inputs) == 1 else None
    if not isinstance(x, jax.ShapeDtypeStruct) or len(x.shape) < 3 or not jnp.issubdtype(x.dtype, jnp.inexact):
        return {}, set()
    try:
        whole, assumed = of_model(model)
    except NetError:
        return {}, set()
    return {(): whole.size, **{tuple(path.split("/")): field.size for path, field in whole.layers.items()}}, assumed


def _field(axes: tuple[int, ...], shape: Sequence[int], beyond: Span, inside: Span) -> ReceptiveField:
    rows, intervals, whole = [], [], bool(axes)
    for number, axis in enumerate(axes):
        endless, within = (replace(span, bounds=(span.bounds[number],)) for span in (beyond, inside))
        others = list(range(len(beyond.shape)))
        if len(beyond.shape) >= len(shape) and endless.bounds[0].shape[axis + 1] > 1:  # the output has this axis too
            others.remove(axis)
            rows.append(_row(np.broadcast_to(endless.over(others).bounds[0], (2, beyond.shape[axis] + 1)).T))
            intervals.append(np.broadcast_to(within.over(others).interval(0), (2, beyond.shape[axis])))
            first, last = intervals[-1]
        else:
            first, last = within.interval(0).reshape(2, -1)
            seen = np.flatnonzero(first <= last)[:1]
            start, end = (int(first[seen[0]]), int(last[seen[0]])) if len(seen) else (0, -1)
            rows.append((int((last - first + 1).max(initial=0)), None, -start, (start + end) / 2))
            intervals.append(within.over(others).interval(0)[:, None])
        whole = whole and bool((first <= 0).all() and (last >= shape[axis] - 1).all())
    size, stride, padding, center = zip(*rows, strict=True) if rows else ((), (), (), ())
    return ReceptiveField(size, stride, padding, center, whole, tuple(intervals))


def _row(line: np.ndarray) -> tuple[int, int | float | None, int, float]:
    """Return size, stride, padding and center from the bounds `(units + 1, 2)` along one axis, including the ghost."""
    units = len(line) - 1
    first, last = line[:units, 0], -line[:units, 1]
    seen = (first <= last) & (first < NEVER)
    if not seen.any():
        return 0, None, 0, 0.0
    turn, shift = period(line)
    # Even means that both bounds move by the same amount, in a pattern seen at least twice.
    even = shift[0] == -shift[1] != 0 and turn <= max(1, units // 2)
    stride = int(shift[0]) / turn if even else None
    stride = int(stride) if stride is not None and stride.is_integer() else stride
    start, end = int(first[seen][0]), int(last[seen][0])
    return int((last - first + 1)[seen].max()), stride, -start, (start + end) / 2
