"""Where the boxes of a network lie: below what they read, in the column of what they continue; and how lines go."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from jaxnets.plot.flow import INPUT, OUTPUT, Box

GAP, AISLE, CHANNEL = 24.0, 20.0, 14.0  # below a box, between columns, between long lines
PAD, HEAD, STACK = 14.0, 30.0, 4.0  # around a box's children, above them, and behind a box that stands for several
MEETING = 20.0

Point = tuple[float, float]


@dataclass
class Placed:
    """A box with its size and, within the box around it, its place.

    Attributes:
        box: the box.
        width: in pixels.
        height: likewise.
        x: of the left edge.
        y: of the upper edge.
        enter: where lines come in, from the left edge.
        leave: where lines go out, likewise.
        inside: its children by name.
        lines: polylines between them.
    """

    box: Box
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    enter: float = 0.0
    leave: float = 0.0
    inside: "dict[str, Placed]" = field(default_factory=dict)
    lines: list[list[Point]] = field(default_factory=list)


def place(box: Box, measure: Callable[[Box], tuple[float, float]]) -> Placed:
    """Lay out a box and all in it; `measure` gives width and height that its own text needs."""
    if not box.children:
        width, height = (MEETING, MEETING) if box.meeting else measure(box)
        return Placed(box, width, height, enter=width / 2, leave=width / 2)
    inside = {name: place(child, measure) for name, child in box.children.items()}
    reads = {name: [start for start, end in box.lines if end == name] for name in (*inside, OUTPUT)}
    order = _order(box, reads)
    columns = _columns(order, reads)
    stacks = [[inside[n] for n in inside if columns[n] == c] for c in range(1 + max(columns.values()))]
    axes = [max(child.enter for child in stack) for stack in stacks]  # one line straight down each column
    widths = [axis + max(child.width - child.enter for child in stack) for axis, stack in zip(axes, stacks)]
    least = measure(box)[0] - 2 * PAD
    left = PAD + max(0.0, (least - sum(widths) - AISLE * (len(widths) - 1)) / 2)
    bottoms = [HEAD - GAP + 8] * len(widths)  # of what stands in each column so far
    for name in order:
        child, column = inside[name], columns[name]
        child.x = left + sum(widths[:column]) + AISLE * column + axes[column] - child.enter
        above = [inside[each].y + inside[each].height for each in reads[name] if each in inside]
        child.y = max([bottoms[column], *above]) + GAP
        bottoms[column] = child.y + child.height
    right = left + sum(widths) + AISLE * (len(widths) - 1)
    placed = Placed(box, 0.0, max(bottoms) + GAP + 8, inside=inside)
    ends = _center(placed, reads, left, right)
    placed.enter, placed.leave = ends[INPUT], ends[OUTPUT]
    channels = _draw(placed, ends, right)
    placed.width = max(right + PAD + CHANNEL * channels, least + 2 * PAD)
    return placed


def _order(box: Box, reads: dict[str, list[str]]) -> list[str]:
    """Return the boxes with each behind all that it reads."""
    order: dict[str, None] = {}

    def visit(name: str, seen: tuple[str, ...]) -> None:
        for each in reads[name]:
            if each in box.children and each not in seen:
                visit(each, (*seen, name))
        order[name] = None

    for name in box.children:
        visit(name, (name,))
    return list(order)


def _columns(order: list[str], reads: dict[str, list[str]]) -> dict[str, int]:
    """Return a column for each box: that of the first box it reads which nothing continues yet, or a new one."""
    columns, ends = {INPUT: 0}, {0: INPUT}
    linked = {start for starts in reads.values() for start in starts}
    for name in order:
        own = [columns[each] for each in reads[name] if ends.get(columns[each]) == each]
        alone = not reads[name] and name not in linked  # nothing is known of it: it stands below the others
        columns[name] = own[0] if own else 0 if alone else len(ends)
        ends[columns[name]] = name
    del columns[INPUT]
    return columns


def _center(placed: Placed, reads: dict[str, list[str]], left: float, right: float) -> dict[str, float]:
    """Move a last box that joins several below their middle; return the x of the two ends."""
    middle, inside = (left + right) / 2, placed.inside
    ends = {INPUT: middle, OUTPUT: middle}
    first = [child.x + child.enter for name, child in inside.items() if reads[name] == [INPUT]]
    if first:
        ends[INPUT] = (min(first) + max(first)) / 2
    if len(reads[OUTPUT]) == 1 and reads[OUTPUT][0] in inside:
        name = reads[OUTPUT][0]
        child = inside[name]
        above = [inside[each].x + inside[each].leave for each in reads[name] if each in inside]
        below = all(child.y >= other.y + other.height for each, other in inside.items() if each != name)
        if len(above) > 1 and below:
            child.x = min(max((min(above) + max(above)) / 2 - child.enter, left), right - child.width)
        ends[OUTPUT] = child.x + child.leave
    return ends


def _draw(placed: Placed, ends: dict[str, float], right: float) -> int:
    """Draw every line; return how many channels beside the columns the long ones need."""
    used: list[list[tuple[float, float]]] = []

    def end_of(name: str, lower: bool) -> Point:
        if name in ends:
            return ends[name], HEAD - 8 if name == INPUT else placed.height - 8
        child = placed.inside[name]
        return (child.x + child.leave, child.y + child.height) if lower else (child.x + child.enter, child.y)

    for start, end in sorted(placed.box.lines, key=lambda line: end_of(line[1], False)[1] - end_of(line[0], True)[1]):
        a, b = end_of(start, True), end_of(end, False)
        early, late = (HEAD if start == INPUT else a[1] + GAP / 2), b[1] - GAP / 2
        line = [a, (a[0], late), (b[0], late), b]
        if _hits(line, placed):
            line = [a, (a[0], early), (b[0], early), b]
        if _hits(line, placed):  # round everything, in the first channel that is free there
            free = (
                number for number, spans in enumerate(used) if all(b[1] <= low or a[1] >= high for low, high in spans)
            )
            channel = next(free, len(used))
            used += [[]] if channel == len(used) else []
            used[channel].append((a[1], b[1]))
            x = right + 8 + CHANNEL * channel
            line = [a, (a[0], early), (x, early), (x, late), (b[0], late), b]
            if end in placed.inside and placed.inside[end].box.meeting:  # into its side
                child = placed.inside[end]
                side = child.y + child.height / 2
                line[3:] = [(x, side), (child.x + child.width, side)]
        points = [point for number, point in enumerate(line) if number == 0 or point != line[number - 1]]
        placed.lines.append(points)
    return len(used)


def _hits(line: list[Point], placed: Placed) -> bool:
    """Tell whether a line goes through a box."""
    for (x, y), (a, b) in itertools.pairwise(line):
        for child in placed.inside.values():
            across = min(x, a) < child.x + child.width - 1 and max(x, a) > child.x + 1
            if across and min(y, b) < child.y + child.height - 1 and max(y, b) > child.y + 1:
                return True
    return False
