"""What the figures of all studies share: size, colors for every kind of color vision, bands over seeds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.framework.study import bands
from jaxnets.plot.images import canvas as canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), those that stand out on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def panels(columns: int, rows: int = 1, *, width: float = 4.2, height: float = 3.2) -> tuple["Figure", list["Axes"]]:
    """Return a figure and its axes, row by row; three columns of the usual width fill a page."""
    figure = canvas(width * columns, height * rows)
    return figure, list(np.ravel(figure.subplots(rows, columns)))


def line(axes: "Axes", x: Sequence[Any] | np.ndarray, values: Any, label: str, place: int, **how: Any) -> None:
    """Draw the mean over seeds `(seeds, x)` with its 95 % band, in the color and with the marker of a place."""
    middle, low, high = bands(values)
    color = COLORS[place % len(COLORS)]
    marker = {"marker": MARKERS[place % len(MARKERS)], "markersize": 4} if len(x) <= 12 else {}
    axes.plot(x, middle, color=color, label=label, linewidth=1.5, **(marker | how))
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def bars(axes: "Axes", labels: Sequence[str], values: Any, **how: Any) -> None:
    """Draw means over seeds `(seeds, bars)` as points with their 95 % intervals, one above another."""
    middle, low, high = bands(values)
    places = np.arange(len(labels))[::-1]
    for place, each, down, up, color in zip(places, middle, low, high, COLORS * len(labels)):
        axes.errorbar(each, place, xerr=[[each - down], [up - each]], fmt="o", color=color, capsize=3, **how)
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)


def compared(axes: "Axes", labels: Sequence[str], kinds: Mapping[str, Any]) -> None:
    """Draw a row a label, and in it the mean and 95 % interval of each kind, all of them `(seeds, labels)`."""
    rows = np.arange(len(labels))[::-1]
    for place, (kind, values) in enumerate(kinds.items()):
        middle, low, high = bands(values)
        at = rows + 0.15 * (len(kinds) - 1) - 0.3 * place
        axes.errorbar(middle, at, xerr=[middle - low, high - middle], fmt=MARKERS[place], color=COLORS[place],
                      capsize=2, markersize=4, label=kind)  # fmt: skip
    axes.set_yticks(rows, labels)
    axes.set_ylim(-0.6, len(labels) + 0.45 * len(kinds))  # room for the legend


def logarithmic(axes: "Axes", sides: str) -> None:
    """Make "x", "y" or "xy" logarithmic, with ticks that are written as plain numbers where they span few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for side in sides:
        axes.set(**{f"{side}scale": "log"})
        axis = axes.xaxis if side == "x" else axes.yaxis
        low, high = axis.get_view_interval()
        if high < 100 * low:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def finish(axes: "Axes", title: str, x: str, y: str = "", *, legend: bool = True) -> None:
    """Give a panel its title, axes and legend."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7.5, frameon=False)
