"""Receptive fields: which part of the input one unit of a layer sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net, describe
from jaxnets.inspect.trace import input_of, model_of
from jaxnets.tracing.flatten import unrolled
from jaxnets.tracing.jaxprs import warn_assumed
from jaxnets.tracing.operation import Path, Value
from jaxnets.tracing.reach import reach
from jaxnets.tracing.spans import NEVER, Span, period, whole_input


@dataclass(frozen=True)
class ReceptiveField:
    """What the units of a layer see of the input: one number for each spatial axis of it, in pixels.

    Unit i sees the positions i · stride - padding to i · stride - padding + size - 1. They may lie beyond the edges,
    where padding stands; `intervals` has what is seen of the input itself. A unit is a place with all its channels.

    Attributes:
        size: how many positions a unit sees, from the first to the last. Where the units of a layer have no such axis
            of their own (behind a global pool, `flatten` or a dense layer) it is counted within the input.
        stride: positions from one unit to the next; a fraction where a layer samples up; `None` where the units of the
            layer have no such axis, or see parts that don't move on evenly.
        padding: how far the first unit looks beyond the first position.
        center: the middle of what the first unit sees, in positions.
        whole: whether every unit sees the input from edge to edge.
        intervals: for each axis the first and the last position of the input that each unit sees, `(2, units)`, first
            > last where it sees nothing; of all units together, `(2, 1)`, where the layer has no such axis.
        layers: the same for every layer, by its path, in the order in which they ran.
        unknown: primitives of JAX that were taken to mix all that they are given, for want of a rule.
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
        """How many units the layer has along each axis; 1 where it has no such axis."""
        return tuple(interval.shape[1] for interval in self.intervals)

    def box(self, *unit: int) -> tuple[tuple[int, int], ...]:
        """Return the first and the last position along each axis that a unit sees, beyond the edges too.

        Args:
            *unit: its number along each axis; negative ones count from the end.

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

    The program is traced on shapes, and the interval of input positions that each element of each array depends upon
    is followed through its operations, so that any program will do. The interval holds all that *may* count: whatever
    the parameters' values are, and with what a dilated window leaves out. Sizes, strides and padding are those of units
    far from the edges, whatever the size of the input. A layer that runs several times, in a `repeat`, has the field of
    the last time.

    With windows k₁, k₂, … of strides s₁, s₂, … and padding p₁, p₂, …, one after another,
    size = 1 + Σ (kᵢ - 1) s₁ ⋯ sᵢ₋₁, stride = s₁ s₂ ⋯, and padding = Σ pᵢ s₁ ⋯ sᵢ₋₁. Dilation d makes a window
    d (k - 1) + 1 wide. Of several paths, the largest field counts.

    Args:
        model: a `Net`, a Flax Linen or NNX module, or a function of arrays.
        x: an array, its spec, or a shape for float32; the first input.
        *more: the other inputs of a function or a module.
        axes: the spatial axes of `x`; if not given, all but the first and the last, or of integers all but the first.
        params: parameters of the network or module, if they are at hand; shapes will do. With them a function is
            called as `model(params, x, *more)`.
        state: the network's state, likewise.

    Returns:
        The field of the output (of several, the first), with those of the layers in `layers`, by path.

    Raises:
        NetError: if `x` is no single array, or the output does not depend on it.

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
    last = len(x.shape) - int(jnp.issubdtype(x.dtype, jnp.inexact))
    spatial = tuple(range(1, max(1, last))) if axes is None else tuple(range(len(x.shape))[axis] for axis in axes)
    known = model_of(model, x, *more, params=params, state=state)
    args = (known.params, known.state, None, *known.inputs)
    closed = jax.make_jaxpr(lambda *args: known.call(*args, train=False)[0])(*args)
    inputs = [Value(var.aval) for var in closed.jaxpr.invars]
    program, image = unrolled(closed, inputs), inputs[len(jax.tree.leaves(args[:3]))]
    found: list[dict[Path, Span]] = []
    for beyond in (True, False):  # with the pattern continued beyond the edges, and of the input itself
        followed = reach(program, {image: whole_input(x.shape, spatial, beyond=beyond)})
        if not followed.outputs or followed.outputs[0] is None:
            raise NetError(f"finds that the output does not depend on {describe(x)}", label="receptive_field")
        found.append({**followed.layers, (): followed.outputs[0]})
        unknown, assumed = followed.unknown, followed.assumed
    warn_assumed(assumed, stacklevel=2)
    fields = {"/".join(path): _field(span, found[1][path], spatial, x.shape) for path, span in found[0].items()}
    whole = fields.pop("")
    if known.net is not None:
        ends = (whole_input(x.shape, spatial, beyond=beyond) for beyond in (True, False))
        fields = dict(_of_children(known.net, "", fields, _field(*ends, axes=spatial, shape=x.shape)))
    return replace(whole, layers=fields, unknown=tuple(sorted(unknown)))


def _field(beyond: Span, inside: Span, axes: tuple[int, ...], shape: Sequence[int]) -> ReceptiveField:
    rows, intervals, whole = [], [], bool(axes)
    for number, axis in enumerate(axes):
        endless, within = (replace(span, bounds=(span.bounds[number],)) for span in (beyond, inside))
        others = list(range(len(beyond.shape)))
        if len(beyond.shape) >= len(shape) and endless.bounds[0].shape[axis + 1] > 1:  # the units have this axis too
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
    """Return size, stride, padding and center for the bounds `(units + 1, 2)` along one axis."""
    units = len(line) - 1
    first, last = line[:units, 0], -line[:units, 1]
    seen = (first <= last) & (first < NEVER)
    if not seen.any():
        return 0, None, 0, 0.0
    turn, shift = period(line)
    even = shift[0] == -shift[1] != 0 and turn <= max(1, units // 2)
    stride = int(shift[0]) / turn if even else None
    stride = int(stride) if stride is not None and stride.is_integer() else stride
    start, end = int(first[seen][0]), int(last[seen][0])
    return int((last - first + 1)[seen].max()), stride, -start, (start + end) / 2


def _of_children(
    net: Net, path: str, fields: Mapping[str, ReceptiveField], before: ReceptiveField
) -> dict[str, ReceptiveField]:
    """Return the fields of a net's own layers that ran; one that did nothing has the field of what it was given."""
    rows: dict[str, ReceptiveField] = {}
    given = before
    for name, child in net.children.items():
        own = f"{path}/{name}" if path else name
        inline = net.cut is not None and name != "downsample"  # one after another
        inner = _of_children(child, own, fields, given if inline else before)
        if own in fields or (inline and not inner and (not path or path in fields)):
            given = rows[own] = fields.get(own, given)
        rows |= inner
    return rows
