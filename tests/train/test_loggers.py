"""What is written down while a run goes on: whole, to the bit, and once, whether it is broken off or not."""

import csv
import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
KEY = jax.random.key(0)
METRICS = {"accuracy": jn.metrics.accuracy, "confusion": jn.metrics.confusion_matrix(3)}
PROGRAM = jn.train.program(
    jn.dense(3),
    jn.objective(jn.losses.cross_entropy),
    optax.sgd(0.1),
    (floats(8, 4), integers(8, high=3)),
    epochs=4,
    batch_size=4,
    metrics=METRICS,
)


class Stop(Exception):
    """What breaks a run off."""


def break_off(folder: Path, *callbacks: jn.train.Callback, saved: int = 2, epochs: int = 3) -> dict[str, np.ndarray]:
    """Break a run off behind its last checkpoint, go on, and return the whole history."""

    def on_epoch_end(number: int, run: Any, row: Any) -> None:
        if number + 1 == epochs:
            raise Stop

    def keep() -> jn.train.Callback:
        return jn.train.checkpoint(folder / "checkpoints", every=saved, overhead=None)

    with pytest.raises(Stop):
        jn.train.run(PROGRAM, key=KEY, callbacks=[keep(), *callbacks, jn.train.Callback(on_epoch_end=on_epoch_end)])
    return jn.train.run(PROGRAM, key=KEY, callbacks=[keep(), *callbacks])[1]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as content:
        return list(csv.DictReader(content))


@pytest.mark.parametrize(("make", "read"), [(jn.train.jsonl, lines), (jn.train.csv, table)])
def test_a_run_that_goes_on_writes_every_epoch_once(make, read, tmp_path):
    file = tmp_path / "log"
    jn.train.run(PROGRAM, key=KEY, callbacks=[make(file, seed=0, name="a, b")])  # another run's lines, which stay
    history = break_off(tmp_path, make(file, seed=1, name="a, b"))
    rows = read(file)
    assert [(int(row["seed"]), int(row["epoch"]), int(row["step"])) for row in rows] == [
        (seed, epoch, 2 * epoch) for seed in (0, 1) for epoch in (1, 2, 3, 4)
    ]
    for name in ("loss", "accuracy", "cross_entropy"):
        np.testing.assert_array_equal([float(row[name]) for row in rows], np.tile(history[name], 2).astype(float))
    assert {row["name"] for row in rows} == {"a, b"}
    assert "confusion" not in rows[0]  # a matrix is no scalar


@pytest.mark.parametrize("make", [jn.train.jsonl, jn.train.csv])
def test_half_a_line_is_written_anew(make, tmp_path):
    whole, file = tmp_path / "whole", tmp_path / "log"
    jn.train.run(PROGRAM, key=KEY, callbacks=[make(whole)])
    for cut in (1, 20, len(whole.read_text()) - 5):  # in the names on top, and in the last row
        file.write_text(whole.read_text()[:cut])
        jn.train.run(PROGRAM, key=KEY, callbacks=[make(file)])
        assert file.read_text() == whole.read_text()


@pytest.mark.parametrize(("make", "read"), [(jn.train.jsonl, lines), (jn.train.csv, table)])
def test_a_run_killed_before_its_first_checkpoint_writes_every_epoch_once(make, read, tmp_path):
    file = tmp_path / "log"
    _, other = jn.train.run(
        PROGRAM, key=jax.random.key(1), callbacks=[make(file)]
    )  # another run that bears no label either
    history = break_off(tmp_path, make(file), saved=4)
    rows = read(file)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4] * 2
    losses = [float(row["loss"]) for row in rows]
    np.testing.assert_array_equal(losses, np.concatenate([other["loss"], history["loss"]]).astype(float))


def test_a_value_with_the_name_of_a_label_is_told_apart(tmp_path):
    for _ in range(2):
        jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.csv(tmp_path / "log", loss=0.5)])
    rows = table(tmp_path / "log")
    assert [row["loss"] for row in rows] == ["0.5"] * 4
    assert 0 < float(rows[0]["reported/loss"]) != 0.5


def test_lines_of_others_stay(tmp_path):
    file = tmp_path / "log"
    file.write_text('a note\n[1]\n{"epoch": 9, "seed": 2}\n')
    break_off(tmp_path, jn.train.jsonl(file, seed=1))
    found = file.read_text().splitlines()
    assert found[:3] == ["a note", "[1]", '{"epoch": 9, "seed": 2}']
    assert [json.loads(line)["epoch"] for line in found[3:]] == [1, 2, 3, 4]


def test_another_table_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("date,price\n1,2\n")
    with pytest.raises(jn.NetError, match=r"csv \S+log.csv finds the columns date, price, not epoch, step, "):
        jn.train.run(PROGRAM, key=KEY, callbacks=[jn.train.csv(tmp_path / "log.csv")])
    assert (tmp_path / "log.csv").read_text() == "date,price\n1,2\n"


def events(file: Path) -> list[Any]:
    """Return TensorBoard's events, the records taken apart by hand: length, its CRC, content, its CRC."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    content, place, found = file.read_bytes(), 0, []
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        found.append(Event.FromString(content[place + 12 : place + 12 + length]))
        place += 12 + length + 4
    return found


def test_tensorboard_gets_every_scalar_and_forgets_what_is_written_again(tmp_path):
    history = break_off(tmp_path, jn.train.tensorboard(tmp_path / "board"))
    first, second = map(events, sorted((tmp_path / "board").iterdir(), key=lambda file: int(file.suffix[1:])))
    starts = [event.step for event in second if event.HasField("session_log")]
    assert starts == [3]  # TensorBoard drops what it has from step 3 on
    shown: dict[tuple[str, int], float] = {}
    for event in [each for each in first if each.step < 3] + second:
        for value in event.summary.value:
            shown[value.tag, event.step] = value.simple_value
    assert shown == {
        (name, epoch + 1): float(history[name][epoch])
        for name in ("loss", "cross_entropy", "accuracy")
        for epoch in range(4)
    }


def test_wandb_gets_the_configuration_and_every_scalar(monkeypatch):
    calls: list[tuple] = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", step, values)), finish=lambda: calls.append(("finish",))
    )

    def init(**options: Any) -> Any:
        calls.append(("init", options))
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    _, history = jn.train.run(
        PROGRAM, key=KEY, callbacks=[jn.train.wandb("digits", config={"seed": 0}, mode="offline")]
    )
    (_, options), *logged, last = calls
    assert (options["project"], options["mode"]) == ("digits", "offline")
    assert options["config"] == {**PROGRAM.recipe.settings, "seed": 0}
    names = ("loss", "cross_entropy", "accuracy")
    assert logged == [
        ("log", epoch, {name: history[name][epoch - 1] for name in names} | {"step": 2 * epoch})
        for epoch in (1, 2, 3, 4)
    ]
    assert last == ("finish",)


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_named_with_its_extra(name, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'jaxnets\[{name}\]'"):
        jn.train.run(PROGRAM, key=KEY, callbacks=[getattr(jn.train, name)(str(tmp_path))])
