"""Figures of a sweep: means over seeds with 95 % bands."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.plot.images import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colors, apart for every kind of color vision; a second round differs in its line.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MOST = 8


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over the first axis and half the width of its 95 % t interval, t s / √n; 0 for one value.

    >>> mean, half = interval(np.array([1.0, 2.0, 3.0]))
    >>> f"{mean:.2f} ± {half:.2f}"
    '2.00 ± 2.48'
    """
    count = len(values)
    if count == 1:
        return values[0], np.zeros_like(values[0])
    from scipy.special import stdtrit  # Student's quantile

    return values.mean(0), stdtrit(count - 1, 0.975) * values.std(0, ddof=1) / np.sqrt(count)


def by_hyperparameter(
    x: str,
    values: np.ndarray,
    hp: dict[str, np.ndarray],
    config: np.ndarray,
    metric: str,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> "Figure":
    """Draw a metric against a hyperparameter, a line for each combination of the others."""
    figure = canvas(5.6, 3.8)
    axes = figure.subplots()
    scale, name = _percent(metric)
    _, first = np.unique(config, return_index=True)  # a trial of each configuration
    others = [other for other in hp if other != x and len(np.unique(hp[other])) > 1]
    combinations = [tuple(hp[other][trial].item() for other in others) for trial in first]
    spots = [(hp[x][trial].item(), *interval(scale * values[config == number])) for number, trial in enumerate(first)]
    lines = {each: sorted(s for s, c in zip(spots, combinations) if c == each) for each in dict.fromkeys(combinations)}
    if len(lines) > 1 and len(lines) == len(spots):  # drawn at random: no two share the others
        where, mean, half = map(np.array, zip(*spots, strict=True))
        low, high = _band(mean, half, scale, limits)
        ends = np.abs((mean - low, high - mean))
        axes.errorbar(where, mean, ends, fmt="o", color=COLORS[0], markersize=4, elinewidth=1, alpha=0.8)
    else:
        for number, (combination, line) in enumerate(lines.items()):
            where, mean, half = map(np.array, zip(*line, strict=True))
            text = _written(dict(zip(others, combination, strict=True)))
            _line(axes, number, where, mean, _band(mean, half, scale, limits), text, marker="o")
        if others:
            _legend(axes, len(lines))
    _spread(axes, np.unique(hp[x]))
    axes.set_xlabel(x)
    _finish(figure, axes, name, config, values)
    return figure


def over_epochs(
    rows: np.ndarray,
    values: np.ndarray,
    hp: dict[str, np.ndarray],
    config: np.ndarray,
    metric: str,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> "Figure":
    """Draw a metric over epochs for configurations from the one with the most at the end to the one with the least."""
    from matplotlib.ticker import MaxNLocator

    figure = canvas(5.6, 3.8)
    axes = figure.subplots()
    scale, name = _percent(metric)
    final = np.array([values[config == number].mean() for number in range(config.max() + 1)])
    order = np.argsort(-final)  # NaN comes last
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(MOST, len(order))).round().astype(int))]
    for number, each in enumerate(chosen):
        mean, half = interval(scale * rows[config == each].astype(np.float64))
        trial = int(np.flatnonzero(config == each)[0])
        text = _written({name: column[trial].item() for name, column in hp.items() if len(np.unique(column)) > 1})
        _line(axes, number, np.arange(1, rows.shape[1] + 1), mean, _band(mean, half, scale, limits), text)
    if len(final) > 1:
        _legend(axes, len(chosen))
    low, high = axes.dataLim.intervaly
    if "loss" in name and 0 < 10 * low < high:
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, axes, name, config, values)
    return figure


def _band(
    mean: np.ndarray, half: np.ndarray, scale: float, limits: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of an interval, within what the metric can be."""
    low, high = (scale * limit for limit in limits)
    return np.maximum(mean - half, low), np.minimum(mean + half, high)


def _line(
    axes: "Axes",
    number: int,
    x: np.ndarray,
    mean: np.ndarray,
    band: tuple[np.ndarray, np.ndarray],
    text: str,
    marker: str = "",
) -> None:
    color, style = COLORS[number % len(COLORS)], ("-", "--", ":")[number // len(COLORS) % 3]
    axes.plot(x, mean, style, color=color, label=text, marker=marker, markersize=4)
    axes.fill_between(x, *band, color=color, alpha=0.15, linewidth=0)


def _spread(axes: "Axes", x: np.ndarray) -> None:
    """Choose a logarithmic axis for values that are more evenly spread so; with a linear stretch where 0 is one."""
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
    if lines > 5:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.legend(frameon=False, fontsize=8)


def _finish(figure: "Figure", axes: "Axes", name: str, config: np.ndarray, values: np.ndarray) -> None:
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)
    notes = []
    trials = len(config) // (config.max() + 1)
    if trials > 1:
        notes.append(f"mean of {trials} networks and its 95 % interval")
    if lost := int(np.isnan(values).sum()):
        notes.append(f"{lost} of {len(values)} networks without a finite value")
    if notes:
        axes.set_title("; ".join(notes), fontsize=9)


def _percent(metric: str) -> tuple[float, str]:
    name = metric.replace("/", " ")
    return (100.0, f"{name} (%)") if metric.endswith("accuracy") else (1.0, name)


def _written(hp: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in hp.items()
    )
