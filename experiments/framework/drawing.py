"""Panels of the studies' figures: lines and points with 95 % intervals over seeds, in one style."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.plot.style import COLORS, MARKERS, bootstrap
from jaxnets.plot.style import panels as panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def line(axes: "Axes", x: Sequence[Any] | np.ndarray, values: Any, label: str, place: int, **options: Any) -> None:
    """Draw the mean over seeds with its 95 % band.

    Args:
        axes: the panel.
        x: one number for each column of `values`.
        values: `(seeds, x)`.
        label: for the legend.
        place: which color and marker of the palette.
        **options: for `Axes.plot`.
    """
    middle, low, high = bootstrap(values)
    color = COLORS[place % len(COLORS)]
    # Markers would cover a line with many points.
    marker = {"marker": MARKERS[place % len(MARKERS)], "markersize": 4} if len(x) <= 12 else {}
    axes.plot(x, middle, color=color, label=label, linewidth=1.5, **(marker | options))
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def bars(axes: "Axes", labels: Sequence[str], values: Any, **options: Any) -> None:
    """Draw means over seeds `(seeds, labels)` as points with their 95 % intervals, the first label on top."""
    rows = np.arange(len(labels))[::-1]
    for row, middle, low, high, color in zip(rows, *bootstrap(values), COLORS * len(labels)):
        axes.errorbar(middle, row, xerr=[[middle - low], [high - middle]], fmt="o", color=color, capsize=3, **options)
    axes.set_yticks(rows, labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)


def compared(axes: "Axes", labels: Sequence[str], kinds: Mapping[str, Any]) -> None:
    """Draw a row for each label, with the mean and 95 % interval of each kind `(seeds, labels)` one below another."""
    rows = np.arange(len(labels))[::-1]
    for place, (kind, values) in enumerate(kinds.items()):
        middle, low, high = bootstrap(values)
        at = rows + 0.15 * (len(kinds) - 1) - 0.3 * place
        axes.errorbar(middle, at, xerr=[middle - low, high - middle], fmt=MARKERS[place], color=COLORS[place],
                      capsize=2, markersize=4, label=kind)  # fmt: skip
    axes.set_yticks(rows, labels)
    # Above the first row there is space for the legend.
    axes.set_ylim(-0.6, len(labels) + 0.45 * len(kinds))


def logarithmic(axes: "Axes", sides: str) -> None:
    """Make "x", "y" or "xy" logarithmic, with plain numbers at its ticks where it spans less than two decades."""
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
    """Give a panel its title, axis labels, grid and legend."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7.5, frameon=False)
