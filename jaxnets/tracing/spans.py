"""The input positions on which each element of an array depends, axis by axis: intervals or exact sets.

Along a spatial axis of the input, an element depends on the positions from a first to a last one. In a deep network
these intervals usually differ along only one or two axes of an array, so the other axes are stored with length 1. An
axis that is stored in full has one element more than the array, the *ghost*: the next element, if there were one. It
gives an axis of one element a stride, and lets the pattern continue beyond the edges where a window extends over them.

Receptive fields are intervals. Connections need exact sets, since a dilated window skips positions: a boolean for each
position, which costs more memory and can't continue beyond the edges.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# The first and the negated last position of an element that depends on nothing.
NEVER = 2**40


@dataclass(frozen=True)
class Span:
    """The input positions on which each element of an array depends.

    Attributes:
        shape: the shape of the array.
        bounds: for each axis of the input that is followed an array `(2, *axes)` of the first position and the negated
            last one, or for exact sets `(positions, *axes)`, false where the element depends on the position; so the
            union of two is their minimum. Along each axis its length is 1, or one more than the array's. First > last
            means that the element depends on nothing.
        beyond: whether the pattern continues beyond the edges of an array; otherwise there is nothing.
    """

    shape: tuple[int, ...]
    bounds: tuple[np.ndarray, ...]
    beyond: bool

    def take(self, axis: int, index: np.ndarray) -> "Span":
        """Take elements along an axis; the last index is that of the ghost."""
        shape = (*self.shape[:axis], len(index) - 1, *self.shape[axis + 1 :])
        return self._new(shape, [self._taken(array, axis, index) for array in self.bounds])

    def window(
        self, axis: int, count: int, size: int = 1, stride: int = 1, before: int = 0, dilation: int = 1, base: int = 1
    ) -> "Span":
        """Join the elements of each of `count` windows along an axis dilated by `base` and padded by `before`."""
        shape = (*self.shape[:axis], count, *self.shape[axis + 1 :])
        # Where each window begins, that of the ghost included.
        starts, bounds = stride * np.arange(count + 1) - before, []
        for array in self.bounds:
            places = [starts + dilation * element for element in range(size)]
            if array.shape[axis + 1] == 1 and (self.beyond or base > 1):
                # Nothing changes along the axis, so each window equals any of its elements.
                places = []
            parts = [self._between(array, axis, place, base) for place in places]
            bounds.append(functools.reduce(_join, parts) if parts else array)
        return self._new(shape, bounds)

    def over(self, axes: Sequence[int]) -> "Span":
        """Join all elements along some axes, and remove the axes."""
        bounds = []
        for array in self.bounds:
            for axis in axes:
                if array.shape[axis + 1] > 1:
                    # Without the ghost
                    real = np.take(array, range(self.shape[axis]), axis + 1)
                    array = _plain(real).min(axis + 1, keepdims=True, initial=NEVER)
            bounds.append(array.squeeze(tuple(axis + 1 for axis in axes)))
        return self._new(tuple(n for axis, n in enumerate(self.shape) if axis not in axes), bounds)

    def running(self, axis: int, *, reverse: bool = False) -> "Span":
        """Join each element along an axis with all elements before it, or after it if `reverse`."""
        bounds = []
        for array in self.bounds:
            if array.shape[axis + 1] > 1:
                ghost = np.take(array, [self.shape[axis]], axis + 1)
                real = np.take(array, range(self.shape[axis]), axis + 1)
                # In reverse the ghost, which is after all elements, is joined with none of them.
                line = real if reverse else np.concatenate([real, ghost], axis + 1)
                line = np.flip(line, axis + 1) if reverse else line
                line = np.minimum.accumulate(_plain(line), axis + 1)
                array = np.concatenate([np.flip(line, axis + 1), ghost], axis + 1) if reverse else line
            bounds.append(array)
        return self._new(self.shape, bounds)

    def place(self, shape: Sequence[int], axes: Sequence[int]) -> "Span":
        """Transpose and broadcast: axis k becomes axis `axes[k]` of `shape`; along new axes nothing changes."""
        bounds, order = [], np.argsort(axes)
        new = [axis for axis in range(len(shape)) if axis not in axes]
        for array in self.bounds:
            for axis, (n, target) in enumerate(zip(self.shape, axes, strict=True)):
                # An axis of length 1 is broadcast.
                if n != shape[target]:
                    array = np.take(array, [0], axis + 1)
            array = array.transpose(0, *(1 + order))
            bounds.append(np.expand_dims(array, tuple(1 + axis for axis in new)))
        return self._new(tuple(shape), bounds)

    def reshape(self, shape: Sequence[int]) -> "Span":
        """Return the elements in another shape, in row-major order."""
        bounds, groups = list(self.bounds), reshape_groups(self.shape, tuple(shape))
        for number, array in enumerate(bounds):
            # Axis 0 of the bounds holds the first and the negated last position.
            at = 1
            for old, new in groups:
                array = self._regrouped(array, at, old, new)
                at += len(new)
            bounds[number] = array
        return self._new(tuple(shape), bounds)

    def everything(self, shape: Sequence[int]) -> "Span":
        """Return the span of an array whose every element depends on all elements of this one."""
        return self.over(range(len(self.shape))).place(shape, ())

    def interval(self, axis: int) -> np.ndarray:
        """Return each element's first and last position along an axis of the input, (1, 0) for an empty interval."""
        array = self._real(axis)
        first, last = array[0], -array[1]
        return np.stack([np.where(first > last, 1, first), np.where(first > last, 0, last)])

    def counts(self) -> np.ndarray:
        """Return on how many elements of the input each element depends, by exact sets along all axes of the input."""
        sizes = ((~self._real(axis)).sum(0) for axis in range(len(self.bounds)))
        return np.broadcast_to(math.prod(sizes, start=np.ones((), int)), self.shape)

    def _real(self, axis: int) -> np.ndarray:
        """Return the bounds along an axis of the input without the ghosts."""
        array = self.bounds[axis]
        for each, n in enumerate(self.shape, start=1):
            array = np.take(array, range(n), each) if array.shape[each] > 1 else array
        return array

    def _new(self, shape: tuple[int, ...], bounds: Sequence[np.ndarray]) -> "Span":
        return replace(self, shape=shape, bounds=tuple(self._compressed(array) for array in bounds))

    def _compressed(self, array: np.ndarray) -> np.ndarray:
        """Store axes along which nothing changes with length 1."""
        for axis in range(1, array.ndim):
            if array.shape[axis] > 1:
                line = np.moveaxis(array, axis, 0)
                # Without a pattern beyond the edges the ghost is irrelevant.
                if (line[: None if self.beyond else -1] == line[:1]).all():
                    array = np.take(array, [0], axis)
        return array

    def _taken(self, array: np.ndarray, axis: int, index: np.ndarray) -> np.ndarray:
        """Take elements of bounds along an axis of the array, beyond its edges too."""
        n, outside = self.shape[axis], (index < 0) | (index >= self.shape[axis])
        if array.shape[axis + 1] == 1:
            if self.beyond or not outside[:-1].any():
                return array
            # Elements outside depend on nothing, so the axis must be stored in full.
            array = np.repeat(array, n + 1, axis + 1)
        out = self._along(np.moveaxis(array, axis + 1, 0), index)
        if not self.beyond:
            out[outside] = NEVER
        return np.moveaxis(out, 0, axis + 1)

    def _along(self, line: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Take elements of a sequence `(n, ...)`; with `beyond`, its pattern continues beyond its ends."""
        if self.beyond and ((index < 0) | (index >= len(line))).any():
            return continued(line, index)
        return line[index.clip(0, len(line) - 1)]

    def _between(self, array: np.ndarray, axis: int, place: np.ndarray, base: int) -> np.ndarray:
        """Take elements of an axis dilated by `base`; between its elements there are empty intervals."""
        taken = self._taken(array, axis, -(-place // base))
        if base == 1:
            return taken
        nothing = (place % base != 0).reshape([-1 if each == axis else 1 for each in range(len(self.shape))])
        if taken.dtype == bool:
            return taken | nothing
        # An empty interval: last = first − 1.
        return np.stack([taken[0], np.where(nothing, 1 - taken[0], taken[1])])

    def _regrouped(self, array: np.ndarray, at: int, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
        """Reshape the axes `old` of bounds, from axis `at` on, to `new`."""
        stored = array.shape[at : at + len(old)]
        rest = (*array.shape[:at], *(1 for _ in new), *array.shape[at + len(old) :])
        if all(n == 1 for n in stored):
            return array.reshape(rest)
        if old == new:
            return array
        # An axis of length 1 is removed.
        if not new:
            return np.take(array, 0, at)
        # For each new index, ghosts included, the flat index and from it the old indices; only the first of these can
        # exceed its axis.
        steps = [math.prod(new[axis + 1 :]) for axis in range(len(new))]
        lines = np.ix_(*(step * np.arange(n + 1) for step, n in zip(steps, new, strict=True)))
        flat = functools.reduce(np.add, lines)
        first, *others = (flat // math.prod(old[axis + 1 :]) for axis in range(len(old)))
        others = [place % n for place, n in zip(others, old[1:])]
        if stored[0] > 1:
            array = np.moveaxis(self._along(np.moveaxis(array, at, 0), np.arange(first.max() + 1)), 0, at)
        # Along an axis stored with length 1, every index is 0.
        index = [0 * place if n == 1 else place for place, n in zip((first, *others), stored, strict=True)]
        return array[(*(slice(None) for _ in range(at)), *index)]


def whole_input(shape: Sequence[int], axes: Sequence[int], *, beyond: bool = False, exact: bool = False) -> Span:
    """Return the span of an input, whose every element depends on its own position along the `axes`."""
    bounds = []
    for axis in axes:
        places = np.arange(shape[axis] + 1)
        rows = places[:-1, None] != places if exact else np.stack([places, -places])
        bounds.append(rows.reshape(len(rows), *(-1 if each == axis else 1 for each in range(len(shape)))))
    return Span(tuple(shape), tuple(bounds), beyond)


def union(spans: Sequence[Span]) -> Span:
    """Join spans of the same shape, element by element."""
    first = spans[0]
    return first._new(first.shape, [functools.reduce(_join, each) for each in zip(*(s.bounds for s in spans))])


def concatenate(spans: Sequence[Span | None], lengths: Sequence[int], axis: int) -> Span:
    """Concatenate arrays of these `lengths` along an axis; `None` is an array that does not depend on the input."""
    known = next(span for span in spans if span is not None)
    shape = (*known.shape[:axis], sum(lengths), *known.shape[axis + 1 :])
    bounds = []
    for number, like in enumerate(known.bounds):
        nothing = np.full((len(like), *(1 for _ in shape)), NEVER).astype(like.dtype)
        parts = [nothing if span is None else span.bounds[number] for span in spans]
        # An axis along which any part changes is stored in full.
        full = [max(part.shape[each] for part in parts) for each in range(like.ndim)]
        lines = []
        for part, n in zip(parts, lengths, strict=True):
            full[axis + 1] = n + 1
            # The ghost of the last part is that of the whole.
            last = len(lines) == len(lengths) - 1
            lines.append(np.take(np.broadcast_to(part, full), range(n + last), axis + 1))
        bounds.append(np.concatenate(lines, axis + 1))
    return known._new(shape, bounds)


def stack(spans: Sequence[Span]) -> Span:
    """Stack arrays of the same shape along a new first axis."""
    shape = (len(spans), *spans[0].shape)
    bounds = []
    for arrays in zip(*(span.bounds for span in spans), strict=True):
        # (n, 2, ...)
        line = np.stack(np.broadcast_arrays(*arrays))
        bounds.append(np.moveaxis(spans[0]._along(line, np.arange(len(spans) + 1)), 0, 1))
    return spans[0]._new(shape, bounds)


def supported(span: Span, axis: int, support: np.ndarray) -> Span:
    """Join, for each output along an axis, the elements that it reads: `support` is boolean, `(elements, outputs)`."""
    if support.any(0).all() and all(array.shape[axis + 1] == 1 for array in span.bounds):
        # All elements have the same intervals, so the outputs have them too.
        shape = (*span.shape[:axis], support.shape[1], *span.shape[axis + 1 :])
        return span.over([axis]).place(shape, [each for each in range(len(shape)) if each != axis])
    parts = []
    for column in support.T:
        chosen = np.flatnonzero(column)
        # The appended 0 is for the ghost, which `over` drops.
        parts.append(span.take(axis, np.append(chosen, 0)).over([axis]) if len(chosen) else None)
    known = next((part for part in parts if part is not None), None)
    if known is None:
        return span
    nothing = replace(known, bounds=tuple(np.full_like(array, NEVER) for array in known.bounds))
    stacked = stack([nothing if part is None else part for part in parts])
    # Stacking has put the outputs first: they move to the contracted axis.
    order = [*range(1, axis + 1), 0, *range(axis + 1, len(span.shape))]
    return stacked.place([stacked.shape[each] for each in order], np.argsort(order).tolist())


def continued(line: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Take elements of a sequence `(n, ...)` that continues beyond its ends with its shortest period."""
    length, shift = period(line)
    # The number of whole periods before each index; negative below 0.
    turns = (index // length).reshape(-1, *(1 for _ in line.shape[1:]))
    return line[index % length] + turns * shift


def period(line: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the shortest period of a sequence and its shift, with line[i + period] = line[i] + shift.

    >>> period(np.array([0, 0, 1, 1, 2, 2]))
    (2, array(1))
    """
    for length in range(1, len(line)):
        shift = line[length:] - line[:-length]
        if (shift == shift[:1]).all():
            return length, np.asarray(shift[0])
    return 1, np.zeros_like(line[0])


def _empty(array: np.ndarray) -> np.ndarray:
    # First > last
    return array[0] + array[1] > 0


def _plain(array: np.ndarray) -> np.ndarray:
    """Return bounds with all empty intervals equal, so that their minimum is the union."""
    return array if array.dtype == bool else np.where(_empty(array), NEVER, array)


def _join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the hull of two intervals, or the union of two sets; an empty interval does not change the other."""
    if a.dtype == bool:
        return a & b
    return np.where(_empty(a), b, np.where(_empty(b), a, np.minimum(a, b)))


def reshape_groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the smallest groups of neighboring axes that hold the same elements before and after a reshape.

    >>> reshape_groups((2, 3, 4), (6, 4))
    [((2, 3), (6,)), ((4,), (4,))]
    """
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        a, b = i, j
        if i < len(old) and j < len(new) and old[i] == new[j]:
            i, j = i + 1, j + 1
        elif i < len(old) and (old[i] == 1 or j == len(new)):
            # An axis of length 1 disappears.
            i += 1
        elif i == len(old):
            # An axis of length 1 appears.
            j += 1
        else:
            i, j = i + 1, j + 1
            # Extend the group on the side with fewer elements until both sides agree.
            while math.prod(old[a:i]) != math.prod(new[b:j]):
                if math.prod(old[a:i]) < math.prod(new[b:j]):
                    i += 1
                else:
                    j += 1
        groups.append((old[a:i], new[b:j]))
    return groups
