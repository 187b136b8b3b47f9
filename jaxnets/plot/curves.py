"""Curves of a training history: each scalar over epochs, in training and in validation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.plot.style import BLUE, GREEN, ORANGE, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Color and label by the prefix of a name in the history.
LINES = {
    "": (BLUE, "training"),
    "validation/": (ORANGE, "validation"),
    "ema/validation/": (GREEN, "validation of the average"),
}


def curves(histories: Mapping[str, Any] | Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> "Figure":
    """Draw scalars over epochs, in training and in validation: the mean over runs, with a band from least to largest.

    A run that stopped early counts up to its last epoch. Accuracies are in percent. The axis of a loss that falls by
    more than a factor of ten is logarithmic.

    Args:
        histories: one history as returned by `fit`, or one for each seed.
        names: what to draw, in one panel each; `validation/<name>` and `ema/validation/<name>` are drawn in the same
            panel. Default: the loss and each other scalar, but not a part of the objective that equals the loss.

    Raises:
        NetError: for no histories, or a name that they don't have.

    >>> figure = curves({"loss": [1.0, 0.5], "validation/loss": [1.1, 0.7], "f1": [0.4, 0.8]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'f1']
    """
    runs = [histories] if isinstance(histories, Mapping) else list(histories)
    if not runs or not runs[0]:
        raise NetError("finds no history to draw", label="curves")
    chosen = _scalars(runs) if names is None else list(names)
    for name in chosen:
        if not all(name in run for run in runs):
            raise NetError(f"finds no {name!r}; the histories have {', '.join(runs[0])}", label="curves")
    columns = len(chosen) if len(chosen) <= 3 else 2 if len(chosen) == 4 else 3
    figure, grid = panels(columns, -(-len(chosen) // columns))
    for axes in grid[len(chosen) :]:
        axes.remove()
    for axes, name in zip(grid, chosen):
        _panel(axes, name, runs)
    # Colors mean the same in all panels, so that one legend is enough.
    grid[0].legend(frameon=False)
    if len(runs) > 1:
        figure.suptitle(f"mean of {len(runs)} seeds; the band is their range", fontsize=9)
    return figure


def _panel(axes: "Axes", name: str, runs: list[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    percent = name.endswith("accuracy")
    for prefix, (color, label) in LINES.items():
        if not all(f"{prefix}{name}" in run for run in runs):
            continue
        values = _stacked([np.asarray(run[f"{prefix}{name}"], np.float64) for run in runs])  # (runs, epochs)
        values = 100 * values if percent else values
        known = ~np.isnan(values).all(0)
        epochs, values = 1 + np.flatnonzero(known), values[:, known]
        marker = "o" if len(epochs) == 1 else None
        axes.plot(epochs, np.nanmean(values, 0), color=color, label=label, marker=marker)
        axes.fill_between(epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{name} (%)" if percent else name)
    low, high = axes.dataLim.intervaly
    if name == "loss" and 0 < 10 * low < high:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _scalars(runs: list[Mapping[str, Any]]) -> list[str]:
    """Return the names of the training values with one value per epoch, the loss first."""
    first = {name: np.asarray(values) for name, values in runs[0].items()}
    names = [name for name, values in first.items() if values.ndim == 1 and not name.startswith(tuple(LINES)[1:])]
    loss = [name for name in names if name == "loss"]
    # If the objective has a single part, that equals the loss.
    others = [name for name in names if not loss or not np.array_equal(first[name], first["loss"], equal_nan=True)]
    return loss + others


def _stacked(values: list[np.ndarray]) -> np.ndarray:
    """Return runs of different lengths as one array, padded with NaN."""
    longest = max(map(len, values))
    return np.stack([np.pad(each, (0, longest - len(each)), constant_values=np.nan) for each in values])
