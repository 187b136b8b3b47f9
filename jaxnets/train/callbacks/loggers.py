"""Callbacks that log the scalars of every epoch as soon as it ends."""

import csv as table
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, require, shown
from jaxnets.train.loop import Callback, Row
from jaxnets.train.program import Program
from jaxnets.train.state import TrainState


def jsonl(path: str | Path, **labels: Any) -> Callback:
    """Append each epoch's scalars to a file as soon as it ends, one JSON object per line.

    Existing lines are kept, with one exception: a run that resumes from a checkpoint first removes the lines of the
    same labels that it will write again. So does a run whose first line equals the first line of the last run with
    these labels: it is the same run, killed before its first checkpoint.

    Args:
        path: the file; its folder is created if needed.
        **labels: written into every line, such as `seed=3`. A value that has a label's name, as the part `l2` of an
            objective may, is written as `reported/l2`.

    Raises:
        NetError: for a label that is neither a number nor text.

    >>> import tempfile
    >>> record = jsonl(tempfile.mkdtemp() + "/metrics.jsonl", seed=3)
    """

    def parse(text: str) -> list[dict[str, Any]]:
        return [_row(line) for line in text.splitlines()]

    def write(row: Mapping[str, Any]) -> str:
        return json.dumps({name: _json(value) for name, value in row.items()}) + "\n"

    return _file(Path(path).expanduser(), labels, parse, write, lambda value: json.loads(json.dumps(_json(value))))


def csv(path: str | Path, **labels: Any) -> Callback:
    """Append each epoch's scalars to a table of comma-separated values, one row per epoch, with a header.

    Existing rows are kept, and each epoch is written once, as in `jsonl`. Numbers read back bit for bit.

    Args:
        path: the file; its folder is created if needed.
        **labels: the first columns, such as `seed=3`.

    Raises:
        NetError: for a label that is neither a number nor text; during training, if the file has other columns.

    >>> import tempfile
    >>> record = csv(tempfile.mkdtemp() + "/metrics.csv", seed=3)
    """
    path = Path(path).expanduser()

    def parse(text: str) -> list[dict[str, Any]]:
        return list(table.DictReader(io.StringIO(text)))

    def write(row: Mapping[str, Any]) -> str:
        out, names = io.StringIO(), list(row)
        writer = table.DictWriter(out, names, lineterminator="\n")
        if not path.exists() or not path.stat().st_size:
            writer.writeheader()
        else:
            with path.open(encoding="utf-8", newline="") as file:
                there = next(table.reader(file))
            if there != names:
                text = f"finds the columns {', '.join(there)}, not {', '.join(names)}; choose another file"
                raise NetError(text, label=f"csv {path}")
        writer.writerow(row)
        return out.getvalue()

    return _file(path, labels, parse, write, str)


def tensorboard(folder: str | Path) -> Callback:
    """Write each epoch's scalars for TensorBoard, by epoch: `tensorboard --logdir <folder>` shows them.

    When a run begins or resumes from a checkpoint, TensorBoard discards the epochs that will be written again.

    Args:
        folder: a folder for only this run; runs in sibling folders are shown together.

    Raises:
        ModuleNotFoundError: when training starts, if tensorboardX is not installed.

    >>> record = tensorboard("runs/a")
    """
    live: dict[str, Any] = {}

    def on_start(program: Program) -> None:
        tensorboardX = require("tensorboardX", "tensorboard")
        live.update(make=tensorboardX.SummaryWriter, writer=None)

    def on_epoch_end(number: int, state: TrainState, row: Row) -> None:
        if live["writer"] is None:
            # A file's name contains the time in seconds; the suffix makes it unique.
            suffix = f".{os.getpid()}.{number}"
            live["writer"] = live["make"](str(Path(folder).expanduser()), purge_step=number + 1, filename_suffix=suffix)
        for name, value in _scalars(row).items():
            live["writer"].add_scalar(name, value, number + 1)

    def on_end() -> None:
        if live["writer"] is not None:
            live["writer"].close()

    return Callback(on_start, on_epoch_end, on_end)


def wandb(project: str, *, config: Mapping[str, Any] | None = None, **options: Any) -> Callback:
    """Send each epoch's scalars to Weights & Biases, by epoch.

    The run's configuration describes the program.

    Args:
        project: the project's name.
        config: added to the configuration.
        **options: passed to `wandb.init`: `name`, `group`, `dir`, `mode="offline"`; `id="a", resume="allow"` for a run
            that may resume from a checkpoint.

    Raises:
        ModuleNotFoundError: when training starts, if wandb is not installed.

    >>> record = wandb("digits", config={"seed": 3}, mode="offline")
    """
    live: dict[str, Any] = {}

    def on_start(program: Program) -> None:
        wandb = require("wandb", "wandb")
        settings = {**program.recipe.settings, **(config or {})}
        live["run"] = wandb.init(project=project, config=settings, **options)

    def on_epoch_end(number: int, state: TrainState, row: Row) -> None:
        live["run"].log({**_scalars(row), "step": int(state.step)}, step=number + 1)

    def on_end() -> None:
        live["run"].finish()

    return Callback(on_start, on_epoch_end, on_end)


def _file(
    path: Path,
    labels: Mapping[str, Any],
    parse: Callable[[str], list[dict[str, Any]]],
    write: Callable[[Mapping[str, Any]], str],
    read: Callable[[Any], Any],
) -> Callback:
    """Return a callback that appends rows to a file.

    Args:
        path: the file.
        labels: written into every row.
        parse: returns the rows of the file's text.
        write: returns the text of a row, with its line break.
        read: returns a value as it reads back from the file.

    Raises:
        NetError: for a label that is neither a number nor text.
    """
    # Scalars of NumPy and JAX become Python numbers.
    labels = {
        name: value.item() if np.ndim(value) == 0 and hasattr(value, "item") else value
        for name, value in labels.items()
    }
    for name, value in labels.items():
        if not isinstance(value, str | int | float | None):
            raise NetError(f"expects numbers or text for labels, got {shown(value)} for {name}", label=path.suffix[1:])
    live: dict[str, bool] = {}

    def on_start(program: Program) -> None:
        # Fail before the first epoch if the file can't be written to.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        live["new"] = True

    def on_epoch_end(number: int, state: TrainState, row: Row) -> None:
        own = {f"reported/{name}" if name in labels else name: value for name, value in _scalars(row).items()}
        whole = {**labels, "epoch": number + 1, "step": int(state.step), **own}
        if live.pop("new", False):
            _remove_repeated(path, labels, {name: read(value) for name, value in whole.items()}, number, parse)
        line = write(whole)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)

    return Callback(on_start, on_epoch_end)


def _remove_repeated(
    path: Path,
    labels: Iterable[str],
    first: Mapping[str, Any],
    number: int,
    parse: Callable[[str], list[dict[str, Any]]],
) -> None:
    """Remove an incomplete last line, and the rows that a run will write again; `first` is its first row.

    When a run resumes, these are the rows with the same labels after the last epoch that is kept. When a run begins,
    they are the rows of the last run, if that began with the same values bit for bit.
    """
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
    rows = parse("".join(lines))
    rows = [{}] * (len(lines) - len(rows)) + rows  # a table's header is not a row
    # The epoch of each row with the same labels, by its place in the file.
    own = {
        place: int(row["epoch"])
        for place, row in enumerate(rows)
        if "epoch" in row and all(name in row and row[name] == first[name] for name in labels)
    }
    if number:
        repeated = 1 + max((place for place, epoch in own.items() if epoch <= number), default=-1)
    else:
        begun = max((place for place, epoch in own.items() if epoch == 1), default=-1)
        repeated = begun if begun >= 0 and rows[begun] == first else len(lines)
    kept = "".join(line for place, line in enumerate(lines) if place < repeated or place not in own)
    if kept != text:
        # Replaced atomically, so that a process that dies here loses no line.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        temporary.write_text(kept, encoding="utf-8")
        temporary.replace(path)


def _scalars(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.items() if np.ndim(value) == 0}


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value  # JSON has no NaN


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return {}  # not written by us, so it is kept
    return row if isinstance(row, dict) else {}
