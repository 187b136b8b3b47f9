"""Checkpoints of sweeps and callbacks of trials: nothing is lost, nothing is written twice."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import jaxnets as jn
from jaxnets.train.checkpoint import storage
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
X, Y = floats(24, 4), integers(24, high=3)
ONE = Mesh(np.array(jax.devices()[:1]), ("trials",))
RATES = [0.01, 0.1, 0.3, 3.0, 1e38, 0.05]
HOW: Any = {"seeds": 2, "grid": {"lr": RATES}, "strategy": "vmap", "chunk": 5, "mesh": ONE}
NET = jn.serial(jn.batch_norm(), jn.dropout(0.2), out=jn.dense(3))


def trial_fn(hp: dict[str, Any], train: Any = (X[:18], Y[:18]), held_out: Any = (X[18:], Y[18:])) -> jn.train.Program:
    """Dropout, batch norm, momentum and early stopping; one rate is so large that a value is not finite."""
    return jn.train.program(
        NET,
        jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(1e-3)),
        optax.sgd(hp["lr"], momentum=0.9),
        train,
        epochs=6,
        batch_size=6,
        validation=held_out,
        metrics={"confusion": jn.metrics.confusion_matrix(3)},
        stopping=jn.train.early_stopping("validation/loss", patience=2),
    )


class Stop(Exception):
    """The exception that ends a sweep."""


def breaking(epochs: int) -> Any:
    """Return callbacks of trials that end the sweep by an exception after so many epochs of trials."""
    ran: list[int] = []

    def on_epoch_end(number: int, run: Any, row: Any) -> None:
        ran.append(number)
        if len(ran) == epochs:
            raise Stop

    return lambda trial: [jn.train.Callback(on_epoch_end=on_epoch_end)]


@pytest.fixture(scope="module")
def whole() -> jn.sweeps.SweepResult:
    return jn.sweeps.sweep(trial_fn, **HOW)


def bits(result: jn.sweeps.SweepResult) -> Iterator[tuple[str, bytes]]:
    parts = {"history": result.history, "runs": result.runs, "epochs": result.epochs, "failed": result.failed}
    for path, leaf in jn.paths.paths(parts).items():
        is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        yield path, np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()


@pytest.mark.slow
def test_a_killed_sweep_resumes_bit_for_bit(tmp_path: Path, whole: jn.sweeps.SweepResult):
    assert len(set(whole.epochs.tolist())) > 2  # trials stop apart, so that places are taken by others
    assert (whole.failed >= 0).sum() == 2
    for epochs in (3, 9, 14):  # in the middle of an epoch of five trials, again and again
        with pytest.raises(Stop):
            jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, overhead=None, callbacks=breaking(epochs), **HOW)
    assert len(storage.numbers(tmp_path)) == 2
    again = jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, overhead=None, **HOW)
    assert dict(bits(again)) == dict(bits(whole))
    ran: list[int] = []
    watch = jn.train.Callback(on_epoch_end=lambda number, run, row: ran.append(number))
    done = jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, callbacks=lambda trial: [watch], **HOW)
    assert dict(bits(done)) == dict(bits(whole))
    assert ran == []  # it was finished
    with pytest.raises(jn.NetError, match=r"is of a sweep, not of a run; checkpoint\(folder\)"):
        jn.train.run(trial_fn({"lr": 0.1}), key=jax.random.key(0), callbacks=[jn.train.checkpoint(tmp_path)])
    with pytest.raises(jn.NetError, match="is of a sweep, not of a run"):
        jn.train.load_checkpoint(tmp_path)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(tmp_path: Path, whole: jn.sweeps.SweepResult):
    with pytest.raises(Stop):
        jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, overhead=None, callbacks=breaking(23), **HOW)
    before, newest = storage.numbers(tmp_path)
    for file in (tmp_path / str(newest) / "arrays").glob("**/d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"checkpoint {newest} can't be read .*; taking checkpoint {before}"):
        again = jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, **HOW)
    assert dict(bits(again)) == dict(bits(whole))


@pytest.mark.slow
def test_another_sweep_is_named(tmp_path: Path):
    small: dict[str, Any] = {"grid": {"lr": [0.01, 0.02]}, "strategy": "vmap", "mesh": ONE}
    jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, **small)
    with pytest.raises(jn.NetError) as caught:
        jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, **{**small, "grid": {"lr": [0.01, 0.03]}})
    assert "is of another sweep:\n  hyperparameter lr: 0.01, 0.02 → 0.01, 0.03\n  trials: 2, " in str(caught.value)
    with pytest.raises(jn.NetError, match=r"seed: 0 → 0, 1\n  trials: 2, \w+ → 4, "):
        jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, seeds=2, **small)
    with pytest.raises(jn.NetError, match=r"  computed by: vmap, 2 at a time on 1 devices → map, 2 at a time"):
        jn.sweeps.sweep(trial_fn, checkpoint=tmp_path, **{**small, "strategy": "map"})

    def stronger(hp: dict[str, Any]) -> jn.train.Program:
        return trial_fn({"lr": 2 * hp["lr"]})

    with pytest.raises(jn.NetError, match=r"what is computed \(.*\): nothing → 2\n"):
        jn.sweeps.sweep(stronger, checkpoint=tmp_path, **small)


@pytest.mark.slow
def test_logs_of_trials_are_their_histories_and_every_line_is_there_once(tmp_path: Path):
    file = tmp_path / "sweep.jsonl"
    how: dict[str, Any] = {**HOW, "grid": {"lr": [0.01, 1e38]}}

    def callbacks(trial: dict[str, Any]) -> list[jn.train.Callback]:
        return [jn.train.jsonl(file, **trial)]

    brk = breaking(7)
    with pytest.raises(Stop):
        jn.sweeps.sweep(
            trial_fn, checkpoint=tmp_path / "kept", callbacks=lambda trial: [*callbacks(trial), *brk(trial)], **how
        )
    result = jn.sweeps.sweep(trial_fn, checkpoint=tmp_path / "kept", callbacks=callbacks, **how)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == result.epochs.sum()
    own: list[dict[str, Any]] = []
    for trial in range(4):
        own = [row for row in rows if row["trial"] == trial]
        assert [row["epoch"] for row in own] == list(range(1, result.epochs[trial] + 1))
        assert {(row["seed"], row["lr"]) for row in own} == {(trial % 2, [0.01, 1e38][trial // 2])}
        losses = [np.nan if row["validation/loss"] is None else row["validation/loss"] for row in own]
        np.testing.assert_array_equal(losses, result.history["validation/loss"][trial, : len(own)].astype(float))
    assert own[-1]["step"] == result.failures()[-1]["step"]


def test_callbacks_are_called_as_fit_calls_them():
    seen: list[tuple] = []

    def callbacks(trial: dict[str, Any]) -> list[jn.train.Callback]:
        number = trial["trial"]

        def on_epoch_end(epoch: int, run: jn.train.TrainState, row: dict[str, Any]) -> bool:
            seen.append((number, epoch, int(run.step), row["confusion"].shape))
            return epoch == (1 if number == 1 else 0)

        return [
            jn.train.Callback(
                lambda program: seen.append((number, program.epochs)),
                on_epoch_end,
                lambda: seen.append((number, "end")),
                on_finish=lambda epochs, run: seen.append((number, "finish", epochs)),
            )
        ]

    result = jn.sweeps.sweep(trial_fn, callbacks=callbacks, **HOW)
    assert result.epochs.tolist() == [1, 2, *[1] * 10]  # a callback ended them
    assert [each[1:] for each in seen if each[0] == 1] == [
        *((6,), (0, 3, (3, 3)), (1, 6, (3, 3)), ("finish", 2), ("end",))
    ]
    wrong: Any = [jn.train.jsonl("log")]
    with pytest.raises(jn.NetError, match=r"callbacks as a function of a trial, got list: callbacks=lambda trial"):
        jn.sweeps.sweep(trial_fn, callbacks=wrong, **HOW)
    with pytest.raises(jn.NetError, match=r"no checkpoint of one trial; sweep\(..., checkpoint=folder\) saves all"):
        jn.sweeps.sweep(trial_fn, callbacks=lambda trial: [jn.train.checkpoint("folder")], **HOW)
    stop: Any = jn.train.early_stopping("loss", patience=1)
    with pytest.raises(jn.NetError, match=r"got EarlyStopping; early stopping is an option of the program"):
        jn.sweeps.sweep(trial_fn, callbacks=lambda trial: [stop], **HOW)


@pytest.mark.slow
def test_a_killed_cross_validation_resumes_bit_for_bit(tmp_path: Path):
    how: dict[str, Any] = {"grid": {"lr": [0.01, 0.1]}, "strategy": "vmap", "mesh": ONE}

    def folded(hp: dict[str, Any], train: Any, held_out: Any) -> jn.train.Program:
        return trial_fn(hp, train, held_out)

    expected = jn.sweeps.cross_validate(folded, (X, Y), 3, **how)
    with pytest.raises(Stop):
        jn.sweeps.cross_validate(folded, (X, Y), 3, checkpoint=tmp_path, overhead=None, callbacks=breaking(14), **how)
    again = jn.sweeps.cross_validate(folded, (X, Y), 3, checkpoint=tmp_path, **how)
    assert dict(bits(again)) == dict(bits(expected))


@pytest.mark.slow
def test_killed_halving_resumes_bit_for_bit(tmp_path: Path):
    """Between rungs, too: dropped trials stay dropped, and those not compared yet are compared."""
    how: Any = {**HOW, "factor": 2}
    expected = jn.sweeps.halving(trial_fn, "validation/loss", **how)
    assert len(set(expected.epochs.tolist())) > 2
    assert 0 < expected.dropped.sum() < 12
    for epochs in (3, 7, 4, 2):  # 12 run the first epoch
        brk = breaking(epochs)
        with pytest.raises(Stop):
            jn.sweeps.halving(trial_fn, "validation/loss", checkpoint=tmp_path, overhead=None, callbacks=brk, **how)
    again = jn.sweeps.halving(trial_fn, "validation/loss", checkpoint=tmp_path, **how)
    assert dict(bits(again)) == dict(bits(expected))
    np.testing.assert_array_equal(again.dropped, expected.dropped)
    other: Any = {**how, "factor": 3}
    with pytest.raises(jn.NetError, match=r"halving: Rungs\(.*factor=2\) → Rungs\(.*factor=3\)"):
        jn.sweeps.halving(trial_fn, "validation/loss", checkpoint=tmp_path, **other)


@pytest.mark.slow
def test_a_killed_search_resumes_from_its_batches(tmp_path: Path):
    how: Any = {"trials": 6, "batch": 2, "strategy": "vmap", "mesh": ONE}
    space = {"lr": jn.sweeps.log_uniform(1e-3, 0.3)}
    ran: list[int] = []

    def watch(trial: dict[str, Any]) -> list[jn.train.Callback]:
        return [jn.train.Callback(on_epoch_end=lambda number, run, row: ran.append(trial["trial"]))]

    expected = jn.sweeps.search(trial_fn, space, "validation/loss", **how)
    with pytest.raises(Stop):
        jn.sweeps.search(
            trial_fn, space, "validation/loss", checkpoint=tmp_path, overhead=None, callbacks=breaking(16), **how
        )
    again = jn.sweeps.search(trial_fn, space, "validation/loss", checkpoint=tmp_path, callbacks=watch, **how)
    with pytest.raises(jn.NetError, match=r"holds a search, not a run or a sweep; .*folder of its own"):
        jn.sweeps.sweep(trial_fn, grid={"lr": [0.1]}, strategy="vmap", checkpoint=tmp_path)
    with pytest.raises(jn.NetError, match=r"holds checkpoints of a run or a sweep \(.*\), not a search; "):
        jn.sweeps.search(trial_fn, space, "validation/loss", checkpoint=tmp_path / "0000", **how)
    assert dict(bits(again)) == dict(bits(expected))
    assert again.hp["lr"].tolist() == expected.hp["lr"].tolist()
    assert set(ran) <= {2, 3, 4, 5}  # the first batch was known
    assert {4, 5} <= set(ran)
