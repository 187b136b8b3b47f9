"""A progress bar in a terminal, drawn by rich, or a notebook: one line with the bar, one with text below it."""

import html
import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxnets.train.loop import Callback, Row
from jaxnets.train.program import Program
from jaxnets.train.state import TrainState

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


INTERVAL = 0.1
"""Seconds between two drawings of a bar in a notebook."""


def bar(label: str, total: int) -> "tuple[Progress | NotebookBar, TaskID] | None":
    """Show a bar and return it with its task, or return `None` outside of a terminal and a notebook.

    `progress.update(task, completed=3, text="loss 0.5", speed="100 examples/s")` updates it; both texts are cut to the
    available width.

    Args:
        label: the text in front.
        total: the number of steps.
    """
    ipython: Any = sys.modules.get("IPython")
    # Of the shells of IPython, those of notebooks have a kernel.
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        return NotebookBar(label, total), cast("TaskID", 0)
    if importlib.util.find_spec("rich") is None or not sys.stdout.isatty():
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class TwoLines(Progress):
        def get_renderables(self) -> Any:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                yield Text(task.fields["text"], no_wrap=True, overflow="ellipsis")

    progress = TwoLines(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(compact=True),
    )
    task = progress.add_task(label, total=total, text="compiling", speed="")
    progress.start()
    return progress, task


class NotebookBar:
    """A bar in one output of a notebook, which is drawn again when it changes.

    Args:
        label: the text in front.
        total: the number of steps.
    """

    def __init__(self, label: str, total: int) -> None:
        from IPython.display import display

        self.label: str = label
        self.total: int = total
        self.completed: int = 0
        self.text: str = "compiling"
        self.speed: str = ""
        self.began: tuple[float, int] | None = None  # the time of the first update, and the steps completed then
        self.drawn: float = time.perf_counter()
        self.handle: Any = display(self._shown(), raw=True, display_id=True)

    def update(self, task: Any, *, completed: int, text: str, speed: str, total: int | None = None) -> None:
        """Show how many steps are completed, and two texts."""
        self.completed, self.text, self.speed, self.total = completed, text, speed, total or self.total
        now = time.perf_counter()
        self.began = self.began or (now, completed)
        if now - self.drawn > INTERVAL:
            self.drawn = now
            self.handle.update(self._shown(), raw=True)

    def stop(self) -> None:
        """Show the last change."""
        self.handle.update(self._shown(), raw=True)

    def _shown(self) -> dict[str, str]:
        steps, left = f"{self.completed}/{self.total}", ""
        if self.began is not None and self.completed > self.began[1]:
            seconds = (time.perf_counter() - self.began[0]) / (self.completed - self.began[1])
            left = f"{_clock(seconds * (self.total - self.completed))} left" if self.completed < self.total else ""
        label, speed, text = (html.escape(each) for each in (self.label, f"{steps} {self.speed} {left}", self.text))
        line = f'{label} <progress value="{self.completed}" max="{self.total}"></progress> {speed}'
        return {
            "text/html": f'<div style="white-space: nowrap; overflow: hidden">{line}<br>{text}</div>',
            "text/plain": f"{self.label} {steps} {self.speed} {left}\n{self.text}",
        }


def progress(label: str = "training") -> Callback:
    """Show a bar with loss, metrics, speed and the time left; plain lines outside of a terminal and a notebook.

    In a terminal the bar is drawn by rich; without rich, plain lines are printed.
    Speed and the time left are shown from the second epoch on. The first is compiled before it runs, and shows how long
    both took. A run that resumes from a checkpoint continues at its epoch.

    Args:
        label: the text in front.

    >>> show = progress("seed 1")
    """
    display = _Display(label)
    return Callback(display.on_start, display.on_epoch_end, display.on_end, on_finish=display.on_finish)


def summary(row: Mapping[str, Any], names: Sequence[str] = ("loss", "accuracy"), *, short: bool = False) -> str:
    """Return some values in training and validation as one line, accuracies in percent.

    Args:
        row: values by name.
        names: which of them to show; arrays and missing values are skipped.
        short: whether to show validation in brackets after each value.

    >>> row = {"loss": 0.5, "cross_entropy": 0.4, "accuracy": 0.9, "validation/loss": 0.6, "validation/accuracy": 0.875}
    >>> summary(row)
    'loss 0.5000  accuracy 90.00 %  validation loss 0.6000  validation accuracy 87.50 %'
    >>> summary(row, short=True)
    'loss 0.5000 (validation 0.6000)  accuracy 90.00 % (87.50 %)'
    """
    scalars = {name: _number(name, value) for name, value in row.items() if np.ndim(value) == 0}
    wanted = [name for name in names if name in scalars]
    if not short:
        parts = [name for part in ("", "validation/") for name in (f"{part}{each}" for each in wanted)]
        return "  ".join(f"{name.replace('/', ' ')} {scalars[name]}" for name in parts if name in scalars)
    texts, word = [], "validation "  # written once
    for name in wanted:
        held_out = scalars.get(f"validation/{name}")
        texts.append(f"{name} {scalars[name]}" + ("" if held_out is None else f" ({word}{held_out})"))
        word = "" if held_out is not None else word
    return "  ".join(texts)


class _Display:
    """A bar or lines, and the clock for the speed."""

    def __init__(self, label: str) -> None:
        self.label = label

    def on_start(self, program: Program) -> None:
        self.total, self.examples = program.epochs, program.examples
        self.names = ["loss", *program.recipe.settings.get("metrics", "").split(", ")]
        self.began, self.counted, self.seen, self.text = time.perf_counter(), 0, 0, ""
        self.bar = bar(self.label, program.epochs)

    def on_epoch_end(self, number: int, state: TrainState, row: Row) -> None:
        self.seen, now = number + 1, time.perf_counter()
        if self.counted:
            seconds = (now - self.began) / self.counted
            speed = f"{self.examples / seconds:,.0f} examples/s"
            left = f"  {_clock(seconds * (self.total - self.seen))} left"
        else:
            # The first epoch was compiled before it ran: the clock starts after it.
            speed, left = f"{now - self.began:.1f} s with compilation", ""
            self.began = now
        self.counted += 1
        self.text = summary(row, self.names, short=self.bar is not None)
        if self.bar is None:
            print(f"{self.label}  epoch {self.seen}/{self.total}  {self.text}  {speed}{left}", flush=True)
        else:
            shown, task = self.bar
            shown.update(task, completed=self.seen, text=self.text, speed=speed)

    def on_finish(self, number: int, state: TrainState) -> None:
        if number == self.total and self.counted:
            return
        if self.counted:
            text = f"ended after epoch {number} of {self.total}"
        else:  # a resumed run that had nothing left to do
            text = f"was over at epoch {number} already"
        if self.bar is None:
            print(f"{self.label}  {text}", flush=True)
        else:
            shown, task = self.bar
            shown.update(task, completed=number, total=number, text=self.text, speed=text)

    def on_end(self) -> None:
        if self.bar is not None:
            self.bar[0].stop()


def _number(name: str, value: float) -> str:
    if name.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
