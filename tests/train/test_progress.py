"""What is shown of a run: lines, a bar in a terminal of 80 columns, and a notebook's."""

import io
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import optax
import pytest
import rich
from rich.console import Console

import jaxnets as jn
from jaxnets.train.callbacks import progress
from jaxnets.train.callbacks.progress import summary
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
KEY = jax.random.key(0)
METRICS = {"accuracy": jn.metrics.accuracy, "macro_f1": jn.metrics.f1(3), "confusion": jn.metrics.confusion_matrix(3)}
DATA = floats(8, 4), integers(8, high=3)
PROGRAM = jn.train.program(
    jn.dense(3),
    jn.objective(jn.losses.cross_entropy),
    optax.sgd(0.1),
    DATA,
    epochs=4,
    batch_size=4,
    metrics=METRICS,
    validation=DATA,
)


class Terminal(io.StringIO):
    """A place for a bar to be drawn."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Write to a terminal of 80 columns, and give what stands there in the end."""
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    console = Console(file=out, width=80, height=25, force_terminal=True, legacy_windows=False, _environ={})
    monkeypatch.setattr(rich, "_console", console)
    return lambda: last_screen(out.getvalue())


def last_screen(written: str) -> str:
    """Return what stands there after control sequences: the two lines are drawn over one another."""
    last = written.rpartition("\x1b[1A\x1b[2K")[2] or written
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", last)


def restored(epochs: int) -> jn.train.Callback:
    """Go on as if from a checkpoint."""
    run, history = jn.train.run(PROGRAM, key=KEY, callbacks=[stop_after(epochs)])
    rows = [{name: values[number] for name, values in history.items()} for number in range(epochs)]
    return jn.train.Callback(restore=lambda program, key: (run, rows))


def stop_after(epochs: int) -> jn.train.Callback:
    return jn.train.Callback(on_epoch_end=lambda number, run, row: number + 1 == epochs)


def test_lines_have_loss_metrics_speed_and_time_left(capsys):
    _, history = jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("seed 1")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for epoch, line in enumerate(lines):
        row = {name: values[epoch] for name, values in history.items()}
        percent = {part: f"{100 * row[f'{part}accuracy']:.2f} %" for part in ("", "validation/")}
        pace = r"[\d,]+ examples/s  \d+:\d\d left" if epoch else r"\d+\.\d s with compilation"
        found = re.fullmatch(rf"seed 1  epoch {epoch + 1}/4  (.*)  {pace}", line)
        assert found
        assert found[1] == (
            f"loss {row['loss']:.4f}  accuracy {percent['']}  macro_f1 {row['macro_f1']:.4f}  "
            f"validation loss {row['validation/loss']:.4f}  validation accuracy {percent['validation/']}  "
            f"validation macro_f1 {row['validation/macro_f1']:.4f}"
        )
    assert lines[-1].endswith("  0:00 left")


def test_the_time_left_leaves_compilation_out(capsys, monkeypatch):
    ticks = iter([0.0, 60.0, 62.0, 64.0])  # a minute to compile, then two seconds an epoch
    clock = types.SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(sys.modules["jaxnets.train.callbacks.progress"], "time", clock)
    show, run = jn.train.progress(), PROGRAM.start(KEY)
    show.on_start(PROGRAM)
    for number in range(3):
        show.on_epoch_end(number, run, {"loss": 1.0})
    ends = [line.partition("loss 1.0000  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert ends == ["60.0 s with compilation", "4 examples/s  0:04 left", "4 examples/s  0:02 left"]


def test_a_run_that_goes_on_begins_where_it_stood(capsys):
    jn.train.run(PROGRAM, key=KEY, callbacks=[restored(2), jn.train.progress()])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20] for line in lines] == ["training  epoch 3/4 ", "training  epoch 4/4 "]


def test_a_run_that_ends_early_says_so(capsys):
    jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("a"), stop_after(2)])
    assert capsys.readouterr().out.splitlines()[-1] == "a  ended after epoch 2 of 4"
    jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("a"), restored(4)])
    assert capsys.readouterr().out == "a  was over at epoch 4 already\n"


def test_the_bar_fits_80_columns(monkeypatch):
    shown = terminal(monkeypatch)
    _, history = jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("seed 1 of 3")])
    first, second = shown().rstrip("\n").splitlines()
    assert re.fullmatch(r"seed 1 of 3 ━{20} 4/4 [\d,]+ examples/s 0?0:00 *", first)
    row = {name: values[-1] for name, values in history.items()}
    whole = summary(row, ("loss", "accuracy", "macro_f1"), short=True)
    assert whole.startswith(f"loss {row['loss']:.4f} (validation {row['validation/loss']:.4f})  accuracy ")
    assert len(whole) > 80
    assert max(len(first), len(second)) <= 80
    assert second.rstrip() == whole[:79] + "…"


def test_the_bar_of_a_run_that_ends_early_is_full(monkeypatch):
    shown = terminal(monkeypatch)
    jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("a"), stop_after(3)])
    assert re.match(r"a ━{20} 3/3 ended after epoch 3 of 4 .*\nloss ", shown())


def test_the_bar_of_a_run_that_goes_on_and_of_one_that_was_over(monkeypatch):
    shown = terminal(monkeypatch)
    jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("a"), restored(3)])
    assert re.match(r"a ━{20} 4/4 ", shown())
    jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("b"), restored(4)])
    assert re.match(r"b ━{20} 4/4 was over at epoch 4 already ", shown())


def test_a_notebook_draws_the_bar_anew_in_its_output(monkeypatch, capsys):
    drawn: list[dict[str, str]] = []

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        drawn.append(data)
        return types.SimpleNamespace(update=lambda data, raw: drawn.append(data))

    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    module: Any = types.ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(progress, "INTERVAL", -1.0)
    jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("a < b")])
    assert not capsys.readouterr().out
    assert len(drawn) == 6  # at the start, after each epoch, and at the end
    assert "compiling" in drawn[0]["text/html"]
    assert 'a &lt; b <progress value="4" max="4"></progress> 4/4 ' in drawn[-1]["text/html"]
    assert re.match(r"a < b 2/4 [\d,.]+ .*\nloss \d", drawn[2]["text/plain"])
    ipython.get_ipython = lambda: None  # imported, but not run by it
    jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.progress("a")])
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert len(drawn) == 6
