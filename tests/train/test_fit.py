"""The host's loop: callbacks, records, and what happens when it is broken off."""

import json
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
X, Y = floats(8, 4), integers(8, high=3)


def program(epochs: int = 3, **given: Any) -> jn.train.Program:
    objective = jn.objective(jn.losses.cross_entropy)
    options: dict[str, Any] = {"metrics": {"accuracy": jn.metrics.accuracy}} | given
    return jn.train.program(jn.dense(3), objective, optax.sgd(0.1), (X, Y), epochs=epochs, batch_size=4, **options)


def test_callbacks_are_called_in_order():
    calls = []

    def named(name: str) -> jn.train.Callback:
        return jn.train.Callback(
            lambda program: calls.append((name, "start", program.segments)),
            lambda number, run, row: calls.append((name, number, int(run.step))),
            lambda: calls.append((name, "end")),
        )

    jn.train.fit(program(2), jax.random.key(0), [named("a"), named("b")])
    assert calls == [
        *[(name, "start", 2) for name in "ab"],
        *[(name, number, 2 * number + 2) for number in range(2) for name in "ab"],
        ("b", "end"),
        ("a", "end"),
    ]


def test_a_broken_run_ends_its_callbacks():
    ended = []

    def stop(number, run, row):
        raise KeyboardInterrupt

    callbacks = [jn.train.Callback(on_end=lambda: ended.append(1)), jn.train.Callback(on_segment=stop)]
    with pytest.raises(KeyboardInterrupt):
        jn.train.fit(program(), jax.random.key(0), callbacks)
    assert ended == [1]


@pytest.mark.parametrize("callbacks", [jn.train.progress(), ["progress"], [jn.train.progress]])
def test_what_is_no_list_of_callbacks(callbacks):
    with pytest.raises(jn.NetError, match=r"fit expects a list of callbacks, \[jn.train.progress\(\), ...\], got"):
        jn.train.fit(program(), jax.random.key(0), callbacks)


def test_a_log_makes_its_folder_before_the_first_epoch(tmp_path):
    jn.train.fit(program(), jax.random.key(0), [jn.train.jsonl(tmp_path / "a" / "b" / "log.jsonl")])
    assert len((tmp_path / "a" / "b" / "log.jsonl").read_text().splitlines()) == 3
    calls = []
    watcher = jn.train.Callback(on_segment=lambda *_: calls.append(1))
    with pytest.raises(OSError, match=r"log\.jsonl"):
        jn.train.fit(program(), jax.random.key(0), [jn.train.jsonl(tmp_path / "a/b/log.jsonl/log.jsonl"), watcher])
    assert not calls


def test_jsonl_holds_every_epoch_and_is_added_to(tmp_path):
    file = tmp_path / "metrics.jsonl"
    histories = [jn.train.fit(program(), jax.random.key(s), [jn.train.jsonl(file, seed=s)])[1] for s in (0, 1)]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["seed"], line["epoch"], line["step"]) for line in lines] == [
        (s, e, 2 * e) for s in (0, 1) for e in (1, 2, 3)
    ]
    np.testing.assert_array_equal([line["loss"] for line in lines], np.concatenate([h["loss"] for h in histories]))


def test_jsonl_writes_null_for_nan(tmp_path):
    bad = jn.train.program(
        jn.dense(3),
        jn.objective(jn.losses.cross_entropy),
        optax.sgd(0.1),
        (X * np.nan, Y),
        epochs=1,
        batch_size=4,
        guard=False,
    )
    jn.train.fit(bad, jax.random.key(0), [jn.train.jsonl(tmp_path / "m.jsonl")])
    assert json.loads((tmp_path / "m.jsonl").read_text())["loss"] is None


def test_progress_prints_plain_lines_without_a_terminal(capsys):
    jn.train.fit(program(2), jax.random.key(0), [jn.train.progress("seed 1")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("seed 1  epoch 2/2  loss ")
    assert "accuracy" in lines[1]
    assert "examples/s" in lines[1]


def test_progress_draws_a_bar_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    jn.train.fit(program(2), jax.random.key(0), [jn.train.progress("seed 1")])
    shown = capsys.readouterr().out
    assert "2/2" in shown
    assert "loss" in shown
    assert "epoch" not in shown


def test_a_program_compiles_once_for_many_keys():
    one = program(2)
    jn.train.fit(one, jax.random.key(0))
    with jax.log_compiles(False), jax.no_tracing():
        jn.train.fit(one, jax.random.key(1))
