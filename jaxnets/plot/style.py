"""Shared parts of all figures: a palette, the size of a panel, and the 95 % interval of a mean."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.core.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colors that contrast with white in the palette of Okabe and Ito (2008), distinct for every kind of color vision.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
BLUE, ORANGE, GREEN = COLORS[:3]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def canvas(width: float, height: float) -> "Figure":
    """Return an empty figure of the given size in inches, which a notebook displays.

    Raises:
        ModuleNotFoundError: if matplotlib is not installed.
    """
    figure: Any = require("matplotlib.figure", "experiments")

    class Shown(figure.Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return Shown(figsize=(width, height), layout="constrained", dpi=150)


def panels(columns: int, rows: int = 1, *, width: float = 4.2, height: float = 3.2) -> tuple["Figure", list["Axes"]]:
    """Return a figure and its axes, row by row. Panels have a size in inches, so that text keeps its proportion.

    Args:
        columns: the number of panels side by side; three of the default width fill a page.
        rows: the number of panels one above another.
        width: the width of a panel.
        height: the height of a panel.
    """
    figure = canvas(width * columns, height * rows)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def bootstrap(values: Any, *, draws: int = 10_000, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return the mean over the first axis and the ends of its 95 % interval, by bootstrap.

    The interval is between two percentiles of the means of resampled values. For few values the percentiles 2.5 and
    97.5 are too narrow; their levels are moved out to where Student's interval would be for normal values (Hesterberg,
    "What Teachers Should Know About the Bootstrap" (2015), section 5.3). No interval is wider than the values' range:
    for fewer than five values it is that range, and covers the expectation less often.

    Args:
        values: `(seeds, ...)`; for a comparison, the differences or logarithms of ratios of runs that share a seed.
        draws: the number of resampled means.
        seed: the seed of the resampling.

    Returns:
        Mean, low and high, float64 `(...)`. All three are the value if there is only one, and NaN if one is NaN.

    Raises:
        ValueError: if there is no value.

    >>> mean, low, high = bootstrap([1.0, 2.0, 3.0])
    >>> print(mean, low, high)
    2.0 1.0 3.0
    """
    from scipy.special import ndtr, stdtrit

    values = np.asarray(values, np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"expects a value for each seed along the first axis, got the shape {values.shape}")
    count = len(values)
    columns = values.reshape(count, -1).T  # (columns, seeds)
    middle = np.array([column.mean() for column in columns])
    if count == 1:
        low = high = middle
    else:
        # The share in each tail: Student's interval has t s / √n, the bootstrap's means s √((n - 1) / n) / √n.
        share = ndtr(-np.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.975))
        places = np.random.default_rng(seed).integers(count, size=(draws, count))
        levels = [100 * share, 100 * (1 - share)]
        low, high = np.array([np.percentile(column[places].mean(1), levels) for column in columns]).reshape(-1, 2).T
    # [()] converts an array without axes to a number.
    middle, low, high = (each.reshape(values.shape[1:])[()] for each in (middle, low, high))
    return middle, low, high
