"""The figures of the report."""

from typing import Any

from experiments.benchmarks import analysis


def ratios(results: Any) -> Any:
    """Return a figure of all ratios with their intervals and goals, on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    allocators = [name for name in ("default", "tuned") if any(analysis.of_allocator(results, name))]
    found = {name: list(analysis.verdicts(results, name)) for name in allocators}
    titles = list(dict.fromkeys(each.title for each in found[allocators[0]]))
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(titles)), layout="constrained", dpi=110)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, group in zip(axes, analysis.GROUPS):
        for shift, (allocator, color) in enumerate(zip(allocators, ("C0", "C1"))):
            own = [each for each in found[allocator] if each.group == group]
            places = [titles.index(each.title) + 0.22 * shift for each in own]
            times = [each.times for each in own]
            spread = [[each.times - each.low for each in own], [each.high - each.times for each in own]]
            axis.errorbar(
                times, places, xerr=spread, fmt="o", color=color, label=f"{allocator} allocator", markersize=4
            )
            if shift == 0:
                aims = [(each.goal, place) for each, place in zip(own, places) if each.goal is not None]
                axis.plot(*zip(*aims, strict=True), "|", color="black", markersize=12, label="goal") if aims else None
        axis.axvline(1, color="gray", linewidth=0.8)
        axis.set(xscale="log", title=f"beside {'PyTorch' if group == 'PyTorch' else 'the best on JAX'}")
        axis.set_xlabel("its time / our time")
        axis.set_xticks([0.5, 1, 2, 3, 5, 10, 20], ["½", "1", "2", "3", "5", "10", "20"])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="x", which="both", alpha=0.2)
    axes[0].set_yticks(range(len(titles)), titles)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=3, fontsize="small")
    return figure


def grows(results: Any) -> list[Any]:
    """Return the records of growth."""
    return [record for _, record in analysis.of_allocator(results, "default") if record["growth"]]


def growth(results: Any) -> Any:
    """Return a figure of time over work for each kind of growth, with a line of slope 1 through the largest size."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    records = grows(results)
    figure = Figure(figsize=(2.4 * len(records), 2.8), layout="constrained", dpi=110)
    for axis, record in zip(figure.subplots(1, len(records), squeeze=False)[0], records):
        points = analysis.growth(record)
        work, seconds = zip(*points, strict=True)
        axis.loglog(work, seconds, "o-", markersize=4)
        axis.loglog(work, [seconds[-1] * each / work[-1] for each in work], ":", color="gray")
        for size, at in zip(record["contestants"], points):
            axis.annotate(size, at, textcoords="offset points", xytext=(4, -10), fontsize=7)
        axis.set(title=record["growth"], xlabel="FLOP")
        axis.xaxis.set_minor_formatter(NullFormatter())  # where less than a decade is shown, they overlap
    figure.axes[0].set_ylabel("seconds a turn")
    return figure
