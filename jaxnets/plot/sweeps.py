"""Figures of a sweep: means over seeds with their 95 % intervals."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.plot.style import COLORS, bootstrap, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 8  # curves that one figure can show


def by_hyperparameter(
    x: str, values: np.ndarray, hp: dict[str, np.ndarray], config: np.ndarray, metric: str
) -> "Figure":
    """Draw a metric against a hyperparameter, a line for each combination of the others.

    Args:
        x: the hyperparameter.
        values: the metric's value of each trial, `(trials,)`.
        hp: each hyperparameter's values `(trials,)`.
        config: the number of each trial's configuration, `(trials,)`.
        metric: its name.
    """
    figure, (axes,) = panels(1, width=5.6, height=3.8)
    scale, name = _percent(metric)
    # The hyperparameters of a configuration are those of its first trial.
    _, first = np.unique(config, return_index=True)
    others = [other for other in hp if other != x and len(np.unique(hp[other])) > 1]
    points: dict[tuple, list[tuple]] = {}  # (x, mean, low, high) by the other hyperparameters
    for number, trial in enumerate(first):
        point = hp[x][trial].item(), *bootstrap(scale * values[config == number])
        points.setdefault(tuple(hp[other][trial].item() for other in others), []).append(point)
    if 1 < len(points) == len(first):
        # Random draws: no two configurations share the other hyperparameters, so lines would have one point each.
        where, mean, low, high = map(np.array, zip(*(point for line in points.values() for point in line)))
        ends = np.abs((mean - low, high - mean))  # not below 0 by rounding
        axes.errorbar(where, mean, ends, fmt="o", color=COLORS[0], markersize=4, elinewidth=1, alpha=0.8)
    else:
        for number, (combination, line) in enumerate(points.items()):
            where, mean, low, high = map(np.array, zip(*sorted(line)))
            _line(axes, number, where, mean, low, high, _text(dict(zip(others, combination))), marker="o")
        if others:
            _legend(axes, len(points))
    _choose_scale(axes, np.unique(hp[x]))
    axes.set_xlabel(x)
    _finish(axes, name, config, values)
    return figure


def over_epochs(
    rows: np.ndarray, values: np.ndarray, hp: dict[str, np.ndarray], config: np.ndarray, metric: str
) -> "Figure":
    """Draw a metric over epochs for up to eight configurations, from the largest final value to the smallest.

    Args:
        rows: the metric's history, `(trials, epochs)`.
        values: the metric's value of each trial, `(trials,)`.
        hp: each hyperparameter's values `(trials,)`.
        config: the number of each trial's configuration, `(trials,)`.
        metric: its name.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = panels(1, width=5.6, height=3.8)
    scale, name = _percent(metric)
    final = np.array([values[config == number].mean() for number in range(config.max() + 1)])
    order = np.argsort(-final)  # NaN comes last
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(MOST, len(order))).round().astype(int))]
    for number, each in enumerate(chosen):
        trial = int(np.flatnonzero(config == each)[0])
        text = _text({name: column[trial].item() for name, column in hp.items() if len(np.unique(column)) > 1})
        bands = bootstrap(scale * rows[config == each].astype(np.float64))
        _line(axes, number, np.arange(1, rows.shape[1] + 1), *bands, text)
    if len(final) > 1:
        _legend(axes, len(chosen))
    low, high = axes.dataLim.intervaly
    if "loss" in name and 0 < 10 * low < high:
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, name, config, values)
    return figure


def _line(
    axes: "Axes", number: int, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, text: str,
    marker: str = "",
) -> None:  # fmt: skip
    # Where colors repeat, the line style differs.
    color, style = COLORS[number % len(COLORS)], ("-", "--", ":")[number // len(COLORS) % 3]
    axes.plot(x, mean, style, color=color, label=text, marker=marker, markersize=4)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _choose_scale(axes: "Axes", x: np.ndarray) -> None:
    """Make the axis logarithmic if the values are then spaced more evenly, and linear around 0 if 0 is one of them."""
    positive = x[x > 0].astype(float)
    if (x < 0).any() or len(positive) < 2 or positive.max() < 10 * positive.min() or x.dtype.kind == "b":
        return
    if _unevenness(np.log(positive)) <= _unevenness(positive):
        if len(positive) == len(x):
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=float(positive.min()))


def _unevenness(x: np.ndarray) -> float:
    steps = np.diff(np.sort(x))
    return float(steps.std() / steps.mean())


def _legend(axes: "Axes", lines: int) -> None:
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if lines > 5 else {}
    axes.legend(frameon=False, fontsize=8, **beside)


def _finish(axes: "Axes", name: str, config: np.ndarray, values: np.ndarray) -> None:
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)
    notes = []
    trials = len(config) // (config.max() + 1)
    if trials > 1:
        # For fewer than five values the interval is their range; see `bootstrap`.
        notes.append(f"mean of {trials} networks and {'its 95 % interval' if trials > 4 else 'their range'}")
    if lost := int(np.isnan(values).sum()):
        notes.append(f"{lost} of {len(values)} networks without a finite value")
    axes.set_title("; ".join(notes), fontsize=9)


def _percent(metric: str) -> tuple[float, str]:
    """Return a metric's factor and label: accuracies are drawn in percent."""
    name = metric.replace("/", " ")
    return (100.0, f"{name} (%)") if metric.endswith("accuracy") else (1.0, name)


def _text(hp: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in hp.items()
    )
