"""The host's loop: callbacks, records, and what happens when it is broken off."""

import gc
import json
import signal
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
X, Y = floats(8, 4), integers(8, high=3)
PARTS = jn.dense(3), jn.objective(jn.losses.cross_entropy), optax.sgd(0.1)  # the same, so that they compile once


def program(epochs: int = 3, **given: Any) -> jn.train.Program:
    metrics = {"accuracy": jn.metrics.accuracy, "confusion": jn.metrics.confusion_matrix(3)}
    options: dict[str, Any] = {"data": (X, Y), "metrics": metrics, "validation": (X, Y)} | given
    return jn.train.program(*PARTS, epochs=epochs, batch_size=4, **options)


def test_callbacks_are_called_in_order():
    calls = []

    def named(name: str) -> jn.train.Callback:
        return jn.train.Callback(
            lambda program: calls.append((name, "start", program.epochs)),
            lambda number, run, row: calls.append((name, number, int(run.step))),
            lambda: calls.append((name, "end")),
        )

    jn.train.run(program(2), key=jax.random.key(0), callbacks=[named("a"), named("b")])
    assert calls == [
        *[(name, "start", 2) for name in "ab"],
        *[(name, number, 2 * number + 2) for number in range(2) for name in "ab"],
        ("b", "end"),
        ("a", "end"),
    ]


def test_a_broken_run_ends_its_callbacks():
    ended = []

    def stop(number, run, row):
        raise ZeroDivisionError

    callbacks = [jn.train.Callback(on_end=lambda: ended.append(1)), jn.train.Callback(on_epoch_end=stop)]
    with pytest.raises(ZeroDivisionError):
        jn.train.run(program(), key=jax.random.key(0), callbacks=callbacks)
    assert ended == [1]


def at_the_second(act) -> jn.train.Callback:
    return jn.train.Callback(on_epoch_end=lambda number, run, row: act() if number == 1 else None)


def raising(error):
    def act():
        raise error

    return act


@pytest.fixture
def signals():
    """Set handlers as a process starts with, and set those that were there back."""
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for number, handler in found.items():
        signal.signal(number, handler)


LEFT = {
    "SIGTERM": (lambda: signal.raise_signal(signal.SIGTERM), 143),
    "SystemExit": (raising(SystemExit(3)), 3),
    "KeyboardInterrupt": (raising(KeyboardInterrupt), None),
}


@pytest.mark.parametrize("how", LEFT)
def test_whatever_ends_a_run_in_order_saves_it(tmp_path, signals, how):
    one, (act, status) = program(epochs=4), LEFT[how]
    keep = jn.train.checkpoint(tmp_path, overhead=1e-6)
    callbacks = [at_the_second(act), keep]  # the second callback sees the epoch all the same
    if status is None:
        assert len(jn.train.run(one, key=jax.random.key(0), callbacks=callbacks)[1]["loss"]) == 2
    else:
        with pytest.raises(SystemExit) as left:
            jn.train.run(one, key=jax.random.key(0), callbacks=callbacks)
        assert left.value.code == status
    assert jn.train.load_checkpoint(tmp_path)[2]["epoch"] == 2
    _, history = jn.train.run(one, key=jax.random.key(0), callbacks=[keep])
    np.testing.assert_array_equal(history["loss"], jn.train.run(one, key=jax.random.key(0))[1]["loss"])


def test_a_handler_of_sigterm_is_called_when_the_run_has_ended(signals):
    ended = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append("handler"))
    end = jn.train.Callback(on_end=lambda: ended.append("run"))
    term = at_the_second(lambda: signal.raise_signal(signal.SIGTERM))
    _, history = jn.train.run(program(), key=jax.random.key(0), callbacks=[term, end])
    assert (len(history["loss"]), ended) == (2, ["run", "handler"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert len(jn.train.run(program(), key=jax.random.key(0), callbacks=[term])[1]["loss"]) == 3


def test_a_second_signal_breaks_off(signals):
    def press():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    finished = []
    watch = jn.train.Callback(on_finish=lambda *_: finished.append(1))
    with pytest.raises(SystemExit):
        jn.train.run(program(), key=jax.random.key(0), callbacks=[at_the_second(press), watch])
    assert not finished


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.slow_cases("True")
def test_ctrl_c_before_the_first_epoch_leaves_a_history_with_its_names(signals, streamed):
    press = jn.train.Callback(on_start=lambda program: signal.raise_signal(signal.SIGINT))
    one = program(data=jn.data.stream((X, Y), 4, epochs=None) if streamed else (X, Y))
    run, history = jn.train.run(one, key=jax.random.key(0), callbacks=[press])
    assert int(run.step) == 0
    shapes = {name: (values.shape, values.dtype) for name, values in history.items()}
    _, later = jn.train.run(one, key=jax.random.key(0))
    assert shapes == {name: ((0, *values.shape[1:]), values.dtype) for name, values in later.items()}


@pytest.mark.slow
def test_an_epoch_leaves_its_numbers_alone():
    """An epoch's row is a dict of small arrays; kept with the device's buffers a row of three took 13.6 kB."""
    sizes = {}

    def look(number, run, row):
        if number in (20, 120):
            gc.collect()
            sizes[number] = tracemalloc.get_traced_memory()[0] / len(row), len(jax.live_arrays())

    one = program(epochs=122)
    jn.train.run(program(), key=jax.random.key(0))
    tracemalloc.start()
    try:
        jn.train.run(one, key=jax.random.key(0), callbacks=[jn.train.Callback(on_epoch_end=look)])
    finally:
        tracemalloc.stop()
    (first, arrays), (last, then) = sizes[20], sizes[120]
    assert (last - first) / 100 < 333
    assert then == arrays


@pytest.mark.slow
def test_two_threads_may_save_at_the_same_time(tmp_path):
    """Folders that Orbax makes asynchronously are waited for by signals that all threads of a process share."""

    def one(number):
        return jn.train.run(
            program(),
            key=jax.random.key(number),
            callbacks=[jn.train.checkpoint(tmp_path / str(number), overhead=None)],
        )

    with ThreadPoolExecutor(2) as pool:
        for number, (run, _) in enumerate(pool.map(one, range(6), timeout=120)):
            params, _, about = jn.train.load_checkpoint(tmp_path / str(number))
            assert about["epoch"] == 3
            np.testing.assert_array_equal(params["kernel"], run.params["kernel"])


@pytest.mark.parametrize("callbacks", [jn.train.progress(), ["progress"], [jn.train.progress]])
def test_what_is_no_list_of_callbacks(callbacks):
    with pytest.raises(jn.NetError, match=r"run expects a list of callbacks, \[jn.train.progress\(\), ...\], got"):
        jn.train.run(program(), key=jax.random.key(0), callbacks=callbacks)


def test_a_log_makes_its_folder_before_the_first_epoch(tmp_path):
    jn.train.run(program(), key=jax.random.key(0), callbacks=[jn.train.jsonl(tmp_path / "a" / "b" / "log.jsonl")])
    assert len((tmp_path / "a" / "b" / "log.jsonl").read_text().splitlines()) == 3
    calls = []
    watcher = jn.train.Callback(on_epoch_end=lambda *_: calls.append(1))
    with pytest.raises(OSError, match=r"log\.jsonl"):
        jn.train.run(
            program(), key=jax.random.key(0), callbacks=[jn.train.jsonl(tmp_path / "a/b/log.jsonl/log.jsonl"), watcher]
        )
    assert not calls


def test_jsonl_holds_every_epoch_and_is_added_to(tmp_path):
    file = tmp_path / "metrics.jsonl"
    histories = [
        jn.train.run(program(), key=jax.random.key(s), callbacks=[jn.train.jsonl(file, seed=s)])[1] for s in (0, 1)
    ]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["seed"], line["epoch"], line["step"]) for line in lines] == [
        (s, e, 2 * e) for s in (0, 1) for e in (1, 2, 3)
    ]
    np.testing.assert_array_equal([line["loss"] for line in lines], np.concatenate([h["loss"] for h in histories]))


def test_jsonl_writes_null_for_nan(tmp_path):
    log, one = jn.train.jsonl(tmp_path / "m.jsonl"), program()
    log.on_start(one)
    log.on_epoch_end(0, one.start(jax.random.key(0)), {"loss": float("nan")})
    log.on_end()
    assert json.loads((tmp_path / "m.jsonl").read_text())["loss"] is None


def test_progress_prints_plain_lines_without_a_terminal(capsys):
    jn.train.run(program(2), key=jax.random.key(0), callbacks=[jn.train.progress("seed 1")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("seed 1  epoch 2/2  loss ")
    assert "accuracy" in lines[1]
    assert "examples/s" in lines[1]


def test_progress_draws_a_bar_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    jn.train.run(program(2), key=jax.random.key(0), callbacks=[jn.train.progress("seed 1")])
    shown = capsys.readouterr().out
    assert "2/2" in shown
    assert "loss" in shown
    assert "epoch" not in shown


def test_a_program_compiles_once_for_many_keys():
    one = program(2)
    jn.train.run(one, key=jax.random.key(0))
    with jax.log_compiles(False), jax.no_tracing():
        jn.train.run(one, key=jax.random.key(1))
