"""Callbacks for `fit`: what a person sees, and what is written down."""

import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from jaxnets.train.fit import Callback
from jaxnets.train.program import Program
from jaxnets.train.run import Run


def progress(label: str = "training") -> Callback:
    """Show a bar with loss, metrics, speed and the time left; plain lines where there is no terminal.

    The bar is rich's; without rich installed the lines are plain too.

    Args:
        label: what stands in front.

    >>> show = progress("seed 1")
    """
    live: dict[str, Any] = {}

    def on_start(program: Program) -> None:
        live.update(total=program.segments, examples=program.examples, began=time.perf_counter(), bar=None)
        if sys.stdout.isatty():
            live["bar"] = _bar(label, program.segments)

    def on_segment(number: int, run: Run, row: dict[str, float]) -> None:
        speed = (number + 1) * live["examples"] / (time.perf_counter() - live["began"])
        text = f"{summary(row)}  {speed:,.0f} examples/s"
        if live["bar"] is not None and shutil.get_terminal_size().columns < 120:
            text = summary({name: value for name, value in row.items() if "/" not in name})
        if live["bar"] is None:
            print(f"{label}  epoch {number + 1}/{live['total']}  {text}", flush=True)
        else:
            bar, task = live["bar"]
            bar.update(task, advance=1, text=text)

    def on_end() -> None:
        if live["bar"] is not None:
            live["bar"][0].stop()

    return Callback(on_start, on_segment, on_end)


def summary(row: dict[str, float]) -> str:
    """Return loss and metrics as one short line; fractions from 0 to 1 named `accuracy` in per cent.

    >>> summary({"loss": 0.5, "cross_entropy": 0.4, "accuracy": 0.9, "validation/accuracy": 0.875})
    'loss 0.5000  accuracy 90.00 %  validation accuracy 87.50 %'
    """
    shown = []
    for part in ("", "validation/"):
        if (loss := row.get(f"{part}loss")) is not None:
            shown.append(f"{part.replace('/', ' ')}loss {loss:.4f}")
        if (accuracy := row.get(f"{part}accuracy")) is not None:
            shown.append(f"{part.replace('/', ' ')}accuracy {100 * accuracy:.2f} %")
    return "  ".join(shown)


def jsonl(path: str | Path, **labels: Any) -> Callback:
    """Append each segment's scalars to a file, one JSON object a line, as soon as they are known.

    Args:
        path: the file; its folder must exist. Lines are added to what is there.
        **labels: written into every line, such as `seed=3`.

    >>> import tempfile
    >>> record = jsonl(tempfile.mkdtemp() + "/metrics.jsonl", seed=3)
    """

    def on_segment(number: int, run: Run, row: dict[str, float]) -> None:
        known = {name: value if math.isfinite(value) else None for name, value in row.items()}  # JSON has no NaN
        line = json.dumps({**labels, "epoch": number + 1, "step": int(run.step), **known})
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return Callback(on_segment=on_segment)


def _bar(label: str, total: int) -> tuple[Any, Any] | None:
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        return None
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(compact=True),
    )
    task = bar.add_task(label, total=total, text="compiling")
    bar.start()
    return bar, task
