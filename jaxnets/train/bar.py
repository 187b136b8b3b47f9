"""A bar in a terminal or a notebook, drawn by rich: one line with the bar, one with text below it."""

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def bar(label: str, total: int) -> "tuple[Progress, TaskID] | None":
    """Return a bar that is shown at once and its task, or `None` where there is no place for one.

    Such a place is a terminal, or a notebook with ipywidgets. `progress.update(task, completed=3, text="loss 0.5",
    speed="100 examples/s")` moves it; both texts are cut to the width there is.

    Args:
        label: what stands in front.
        total: how many steps it has.
    """
    if importlib.util.find_spec("rich") is None:
        return None
    from rich import get_console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    notebook = get_console().is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    if not notebook and not sys.stdout.isatty():
        return None

    class TwoLines(Progress):
        def stop(self) -> None:
            self.refresh()  # in a notebook rich leaves the last change out
            super().stop()

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
