"""The page docs/benchmarks.md and its figures, generated from `results/`: nothing is written manually."""

import json
from pathlib import Path
from typing import Any

from experiments.benchmarks import analysis, figures
from experiments.benchmarks.goals import ALONE, GROWTH, SCAN, START
from experiments.benchmarks.rows.row import OURS

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
PAGE, FIGURES, RESULTS = DOCS / "benchmarks.md", DOCS / "figures" / "benchmarks", HERE / "results"

OPENING = """# Benchmarks

Written by `python -m experiments.benchmarks report` from the measurements in `experiments/benchmarks/results/`.

Every contestant builds the same network: its parameters and multiply-adds are counted and compared with exact values
before anything is timed. The contestants of a row take turns in one process; each row runs in a separate process.
Times are medians; a ratio is a peer's time over ours, with a 95 % interval from resampling turns. Above 1, jaxnets is
faster. "PyTorch" is the faster of eager and `torch.compile`; "best on JAX" is the fastest of Flax Linen, Flax NNX,
Equinox, Haiku and Keras, and in sweeps the faster of Flax's and Equinox's `vmap`. "Peak" is the floating-point rate of
a training step as a share of that of the largest matrix product in the same run. First turns, which compile, do not
count. "Memory" is the peak of a turn above what the process used before. In rows of decoding, where times are those of
a token, "PyTorch" is `generate` of Hugging Face's transformers, not compiled, and "Flax NNX" calls a jitted step for
each token or, "scanned", has them all in one program.

Measure on your own machine, CPU or one GPU:

```bash
pip install '.[experiments,data,benchmarks]' torch onnxruntime onnxscript transformers
python -m experiments.benchmarks --quick                  # fewer rows and peers
python -m experiments.benchmarks --full --json own.json   # everything, both allocators
python -m experiments.benchmarks --gpu --json gpu.json    # the rows for a GPU, in at most nine minutes
```

`--gpu` measures an epoch of an MLP, gradients of LSTMs, ResNet-50 in bfloat16, and populations of MLPs and CNNs, beside
PyTorch and Flax Linen where they are installed. The GPU's peak is its data sheet's for bfloat16, and the operations of
a step are its multiply-adds, counted by `jn.inspect`. Populations are given by the time of a trial; one by one, four
trials are measured. Each row is written when it is measured, into a new file; rows that are not done after `--limit`
seconds are listed as not measured. `--tiny` tries the command out on any machine.
"""


BUSY = 0.1  # cores that other processes may use while a row is measured before the report mentions it


def main(*, check: bool) -> int:
    """Write the page and its figures, or check that the page is up to date; return the exit code."""
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))}
    # The newest measurements first.
    found = dict(sorted(found.items(), key=lambda item: _newest(item[1]), reverse=True))
    text = page(found)
    if check:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print("out of date: docs/benchmarks.md")
        return 1
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, results in found.items():
        figures.ratios(results).savefig(FIGURES / f"{name}-ratios.png")
        if figures.grows(results):
            figures.growth(results).savefig(FIGURES / f"{name}-growth.png")
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: docs/{PAGE.name}")
    return 0


def page(found: dict[str, Any]) -> str:
    """Return the page for results by file name."""
    return "\n".join([OPENING, *(part for name, results in found.items() for part in _machine(name, results))])


def text(results: Any) -> str:
    """Return the measurements as text for a terminal."""
    lines = []
    for allocator in ("default", "tuned"):
        for row, record in analysis.of_allocator(results, allocator):
            lines.append(f"\n{record['title']}{' (allocator tuned)' if allocator == 'tuned' else ''}")
            for name in record["contestants"]:
                times, low, high = analysis.compared(record, _first(record), name)
                each = record["contestants"][name]
                parts = [f"{times:6.2f} times ours ({low:.2f} to {high:.2f})", f"first turn {each['first']:.1f} s"]
                if record["unit"] in ("epoch", "step"):
                    parts.append(f"{analysis.per_second(record, name, 'examples'):,.0f} examples/s")
                if record["unit"] == "token":
                    parts.append(f"{1 / analysis.median(record, name):,.0f} tokens/s")
                if results.get("peak") and each["precision"] == "bfloat16":
                    share = analysis.per_second(record, name, "products") / results["peak"]
                    parts.append(f"{_percent(share)} of the GPU's peak")
                if record["unit"] == "trial":
                    parts.append(f"measured on {each['trials']:,}")
                lines.append(f"  {name:<24}{_time(analysis.median(record, name)):>9}  {'; '.join(parts)}")
            lines += [f"  {name}: {reason}" for name, reason in record["left_out"].items()]
            if record["elsewhere"] > BUSY:
                lines.append(f"  the machine was busy: other processes used {record['elsewhere']:.2f} cores meanwhile")
            for each in filter(
                None, (analysis.verdict(row, record, group) for group in (*analysis.GROUPS, analysis.EAGER))
            ):
                if each.goal is not None:
                    lines.append(f"  {each.group} ≥ {each.goal:g}: {'reached' if each.reached else 'not reached'}")
    lines += [f"\n{row}: {state}" for row, state in results.get("states", {}).items() if state != "measured"]
    return "\n".join(lines)


def _machine(name: str, results: Any) -> list[str]:
    machine = results["machine"]
    versions = ", ".join(f"{package} {number}" for package, number in results["versions"].items())
    parts = [
        f"## {machine['processor']}, {machine['cores']} cores, {', '.join(sorted(set(machine['devices'])))}, "
        f"JAX {results['versions']['jax']}\n",
        f"{machine['system']}; {versions}. {_commands(results)}\n",
        f"![Times of peers over ours by row, with goals](figures/benchmarks/{name}-ratios.png)\n",
    ]
    for allocator in ("default", "tuned"):
        if any(analysis.of_allocator(results, allocator)):
            parts += _allocator(results, allocator)
    parts += _growth(name, results)
    return parts


def _allocator(results: Any, allocator: str) -> list[str]:
    verdicts = list(analysis.verdicts(results, allocator))
    title = "The default allocator" if allocator == "default" else "The allocator tuned"
    parts = [f"### {title}\n"]
    if allocator == "tuned":
        parts.append(
            "With these settings glibc never returns large arrays to the system, for all contestants: "
            "`GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647:glibc.malloc.arena_max=1`.\n"
        )
    rows = [
        "| work | ours | PyTorch | goal | best on JAX | goal | peak | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, record in analysis.of_allocator(results, allocator):
        if not record["growth"]:
            cells = [record["title"], _time(analysis.median(record, OURS))]
            for group in analysis.GROUPS:
                cells += _verdict(analysis.verdict(row, record, group))
            cells += [_percent(analysis.share_of_peak(record, OURS)), _memory(record, OURS)]
            rows.append(f"| {' | '.join(cells)} |")
    tables = (each(results, allocator) for each in (_scans, _together, _start))
    parts += ["\n".join(rows) + "\n", _losses(verdicts), *tables]
    details = [
        "| work | contestant | time | times ours | first turn | peak | memory | page faults |",
        "|---|---" * 4 + "|",
    ]
    for _, record in analysis.of_allocator(results, allocator):
        if record["growth"]:
            continue
        for name, each in record["contestants"].items():
            times, low, high = analysis.compared(record, OURS, name)
            cells = [
                record["title"], name, _time(analysis.median(record, name)), f"{times:.2f} ({low:.2f}–{high:.2f})",
                f"{each['first']:.1f} s", _percent(analysis.share_of_peak(record, name)), _memory(record, name),
                f"{each['page_faults']:,}",
            ]  # fmt: skip
            details.append(f"| {' | '.join(cells)} |")
    absent = {f"{name} in {record['title']}: {reason}" for _, record in analysis.of_allocator(results, allocator)
              for name, reason in record["left_out"].items()}  # fmt: skip
    table = "\n".join([*details, *_absent(absent)])
    folded = f'<details markdown="1"><summary>Every contestant</summary>\n\n{table}\n\n</details>\n'
    busy = [record["title"] for _, record in analysis.of_allocator(results, allocator) if record["elsewhere"] > BUSY]
    parts.append(f"Other processes were active during: {'; '.join(busy)}.\n" if busy else "")
    return [*(part for part in parts if part), folded]


def _commands(results: Any) -> str:
    """Return the commands that measured the rows, with dates."""
    found = {(each["command"], each["date"]) for records in results["rows"].values() for each in records.values()}
    return "From " + "; ".join(f"`{command}` on {date}" for command, date in sorted(found)) + "."


def _newest(results: Any) -> tuple[str, str]:
    """Return the date of the newest row, and the version of JAX."""
    return max(each["date"] for records in results["rows"].values() for each in records.values()), results["versions"][
        "jax"
    ]


def _absent(absent: set[str]) -> list[str]:
    return ["", f"Left out: {'; '.join(sorted(absent))}."] if absent else []


def _losses(verdicts: list[analysis.Verdict]) -> str:
    """Describe where a peer is faster, and where a goal is not reached."""
    slower = [f"{each.title} ({each.peer} takes {each.times:.2f} of our time)" for each in verdicts if each.times < 1]
    short = [
        f"{each.title} ({each.times:.2f} of {each.goal:g} beside {each.peer})"
        for each in verdicts
        if each.times >= 1 and not each.reached
    ]
    said = [f"jaxnets is slower than a peer in: {'; '.join(slower)}." if slower else "No peer is faster in any row."]
    said += [f"Faster, but below the goal: {'; '.join(short)}."] if short else []
    aimed = [each for each in verdicts if each.goal is not None]
    said.append(f"{sum(each.reached for each in aimed)} of {len(aimed)} goals are reached.")
    return " ".join(said) + "\n"


def _scans(results: Any, allocator: str) -> str:
    rows = []
    for _, record in analysis.of_allocator(results, allocator):
        found = analysis.scan_over_loop(record)
        if found is not None:
            times, low, high = found
            rows.append(
                f"| {record['title']} | {times:.2f} ({low:.2f}–{high:.2f}) | {'yes' if times <= SCAN else 'no'} |"
            )
    head = (
        f"Time of a step inside `scan`, over the same step outside:\n\n| work | ratio | ≤ {SCAN:g} |\n|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n" if rows else ""


def _together(results: Any, allocator: str) -> str:
    said = []
    for _, record in analysis.of_allocator(results, allocator):
        found = analysis.together_over_alone(record)
        if found is not None:
            times, low, high = found
            reached = "reached" if times <= ALONE else "not reached"
            said.append(
                f"{record['title']}: {times:.2f} ({low:.2f}–{high:.2f}) times as long as one network; "
                f"the goal of {ALONE:g} is {reached}.\n"
            )
    return "\n".join(said)


def _start(results: Any, allocator: str) -> str:
    record = results["rows"].get("start-152", {}).get(allocator)
    if record is None:
        return ""
    seconds = analysis.median(record, OURS)
    reached = "reached" if seconds <= START else "not reached"
    return f"The first initialization of ResNet-152 takes {seconds:.1f} s; the goal of {START:g} s is {reached}.\n"


def _growth(name: str, results: Any) -> list[str]:
    rows = []
    for _, record in analysis.of_allocator(results, "default"):
        if record["growth"]:
            power = analysis.exponent(analysis.growth(record))
            sizes = ", ".join(record["contestants"])
            linear = "yes" if power <= GROWTH else "no"
            rows.append(f"| {record['growth']} | {record['title']} | {sizes} | {power:.2f} | {linear} |")
    if not rows:
        return []
    return [
        "### Growth\n",
        "Time grows as a power of the floating-point operations; a power of 1 is linear, and the goal is "
        f"at most {GROWTH:g}.\n",
        "| what grows | work | sizes | power | linear |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n",
        f"![Time over work for each kind of growth](figures/benchmarks/{name}-growth.png)\n",
    ]


def _first(record: Any) -> str:
    return OURS if OURS in record["contestants"] else next(iter(record["contestants"]))


def _verdict(found: analysis.Verdict | None) -> list[str]:
    if found is None:
        return ["", ""]
    aim = "" if found.goal is None else f"≥ {found.goal:g}: {'yes' if found.reached else 'no'}"
    return [f"{found.times:.2f} ({found.low:.2f}–{found.high:.2f}) {found.peer}", aim]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def _memory(record: Any, name: str) -> str:
    found = record["contestants"][name]["memory"]
    return "" if found is None else f"{found / 2**20:.0f} MiB"
