"""A sweep in a folder, and what its members' callbacks see: nothing is lost, nothing is written twice."""

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
from jaxnets.train.checkpoints import archive
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
X, Y = floats(24, 4), integers(24, high=3)
ONE = Mesh(np.array(jax.devices()[:1]), ("members",))
RATES = [0.01, 0.1, 0.3, 3.0, 1e38, 0.05]
HOW: Any = {"seeds": 2, "grid": {"lr": RATES}, "strategy": "vmap", "chunk": 5, "mesh": ONE}
NET = jn.serial(jn.dense(5), jn.batch_norm(), jax.nn.relu, jn.dropout(0.2), out=jn.dense(3))


def study(hp: dict[str, Any], train: Any = (X[:18], Y[:18]), held_out: Any = (X[18:], Y[18:])) -> jn.train.Program:
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
    """What breaks a sweep off."""


def breaking(segments: int) -> Any:
    """Return the callbacks of members, of which one breaks the sweep off when so many segments have run."""
    ran: list[int] = []

    def on_segment(number: int, run: Any, row: Any) -> None:
        ran.append(number)
        if len(ran) == segments:
            raise Stop

    return lambda member: [jn.train.Callback(on_segment=on_segment)]


@pytest.fixture(scope="module")
def whole() -> jn.train.SweepResult:
    return jn.train.sweep(study, **HOW)


def bits(result: jn.train.SweepResult) -> Iterator[tuple[str, bytes]]:
    parts = {"history": result.history, "runs": result.runs, "segments": result.segments, "failed": result.failed}
    for path, leaf in jn.select.paths(parts).items():
        is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        yield path, np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()


def test_a_sweep_broken_off_anywhere_ends_with_the_same_bits(tmp_path: Path, whole: jn.train.SweepResult):
    assert len(set(whole.segments.tolist())) > 2  # members stop apart, so that places are taken by others
    assert (whole.failed >= 0).sum() == 2
    for segments in (3, 9, 14):  # in the midst of a segment of five members, again and again
        with pytest.raises(Stop):
            jn.train.sweep(study, checkpoint=tmp_path, overhead=None, callbacks=breaking(segments), **HOW)
    assert len(archive.numbers(tmp_path)) == 2
    again = jn.train.sweep(study, checkpoint=tmp_path, overhead=None, **HOW)
    assert dict(bits(again)) == dict(bits(whole))
    ran: list[int] = []
    watch = jn.train.Callback(on_segment=lambda number, run, row: ran.append(number))
    done = jn.train.sweep(study, checkpoint=tmp_path, callbacks=lambda member: [watch], **HOW)
    assert dict(bits(done)) == dict(bits(whole))
    assert ran == []  # it was finished


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, whole: jn.train.SweepResult):
    with pytest.raises(Stop):
        jn.train.sweep(study, checkpoint=tmp_path, overhead=None, callbacks=breaking(23), **HOW)
    before, newest = archive.numbers(tmp_path)
    for file in (tmp_path / str(newest) / "arrays").glob("**/d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"checkpoint {newest} can't be read .*; taking checkpoint {before}"):
        again = jn.train.sweep(study, checkpoint=tmp_path, **HOW)
    assert dict(bits(again)) == dict(bits(whole))


def test_another_sweep_is_named(tmp_path: Path):
    small: dict[str, Any] = {"grid": {"lr": [0.01, 0.02]}, "strategy": "vmap", "mesh": ONE}
    jn.train.sweep(study, checkpoint=tmp_path, **small)
    with pytest.raises(jn.NetError) as caught:
        jn.train.sweep(study, checkpoint=tmp_path, **{**small, "grid": {"lr": [0.01, 0.03]}})
    assert "is of another sweep:\n  hyperparameter lr: 0.01, 0.02 → 0.01, 0.03\n  members: 2, " in str(caught.value)
    with pytest.raises(jn.NetError, match=r"seed: 0 → 0, 1\n  members: 2, \w+ → 4, "):
        jn.train.sweep(study, checkpoint=tmp_path, seeds=2, **small)
    with pytest.raises(jn.NetError, match=r"  computed by: vmap, 2 at a time on 1 devices → map, 2 at a time"):
        jn.train.sweep(study, checkpoint=tmp_path, **{**small, "strategy": "map"})

    def stronger(hp: dict[str, Any]) -> jn.train.Program:
        return study({"lr": 2 * hp["lr"]})

    with pytest.raises(jn.NetError, match=r"what is computed \(.*\): nothing → 2\n"):
        jn.train.sweep(stronger, checkpoint=tmp_path, **small)


def test_logs_of_members_are_their_histories_and_every_line_is_there_once(tmp_path: Path):
    file = tmp_path / "sweep.jsonl"
    how: dict[str, Any] = {**HOW, "grid": {"lr": [0.01, 1e38]}}

    def callbacks(member: dict[str, Any]) -> list[jn.train.Callback]:
        return [jn.train.jsonl(file, **member)]

    brk = breaking(7)
    with pytest.raises(Stop):
        jn.train.sweep(
            study, checkpoint=tmp_path / "kept", callbacks=lambda member: [*callbacks(member), *brk(member)], **how
        )
    result = jn.train.sweep(study, checkpoint=tmp_path / "kept", callbacks=callbacks, **how)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == result.segments.sum()
    own: list[dict[str, Any]] = []
    for member in range(4):
        own = [row for row in rows if row["member"] == member]
        assert [row["epoch"] for row in own] == list(range(1, result.segments[member] + 1))
        assert {(row["seed"], row["lr"]) for row in own} == {(member % 2, [0.01, 1e38][member // 2])}
        losses = [np.nan if row["validation/loss"] is None else row["validation/loss"] for row in own]
        np.testing.assert_array_equal(losses, result.history["validation/loss"][member, : len(own)].astype(float))
    assert own[-1]["step"] == result.failures()[-1]["step"]


def test_callbacks_are_called_as_fit_calls_them():
    seen: list[tuple] = []

    def callbacks(member: dict[str, Any]) -> list[jn.train.Callback]:
        number = member["member"]

        def on_segment(epoch: int, run: jn.train.Run, row: dict[str, Any]) -> bool:
            seen.append((number, epoch, int(run.step), row["confusion"].shape))
            return epoch == number

        return [
            jn.train.Callback(
                lambda program: seen.append((number, program.segments)),
                on_segment,
                lambda: seen.append((number, "end")),
                on_finish=lambda epochs, run: seen.append((number, "finish", epochs)),
            )
        ]

    how: dict[str, Any] = {"grid": {"lr": [0.01, 0.02]}, "strategy": "vmap", "mesh": ONE}
    result = jn.train.sweep(study, callbacks=callbacks, **how)
    assert result.segments.tolist() == [1, 2]  # a callback ended them
    assert [each[1:] for each in seen if each[0] == 1] == [
        *((6,), (0, 3, (3, 3)), (1, 6, (3, 3)), ("finish", 2), ("end",))
    ]
    wrong: Any = [jn.train.jsonl("log")]
    with pytest.raises(jn.NetError, match=r"callbacks as a function of a member, got list: callbacks=lambda member"):
        jn.train.sweep(study, callbacks=wrong, **how)
    with pytest.raises(jn.NetError, match=r"no checkpoint of one member; sweep\(..., checkpoint=folder\) saves all"):
        jn.train.sweep(study, callbacks=lambda member: [jn.train.checkpoint("folder")], **how)
    stop: Any = jn.train.early_stopping("loss", patience=1)
    with pytest.raises(jn.NetError, match=r"got EarlyStopping; early stopping belongs into the program"):
        jn.train.sweep(study, callbacks=lambda member: [stop], **how)


def test_a_cross_validation_broken_off_ends_with_the_same_bits(tmp_path: Path):
    how: dict[str, Any] = {"grid": {"lr": [0.01, 0.1]}, "strategy": "vmap", "mesh": ONE}

    def folded(hp: dict[str, Any], train: Any, held_out: Any) -> jn.train.Program:
        return study(hp, train, held_out)

    expected = jn.train.cross_validate(folded, (X, Y), 3, **how)
    with pytest.raises(Stop):
        jn.train.cross_validate(folded, (X, Y), 3, checkpoint=tmp_path, overhead=None, callbacks=breaking(14), **how)
    again = jn.train.cross_validate(folded, (X, Y), 3, checkpoint=tmp_path, **how)
    assert dict(bits(again)) == dict(bits(expected))


def test_halving_broken_off_anywhere_ends_with_the_same_bits(tmp_path: Path):
    """Between the rungs too: who was dropped stays out, and who was not judged is."""
    how: Any = {**HOW, "factor": 2}
    expected = jn.train.halving(study, "validation/loss", **how)
    assert len(set(expected.segments.tolist())) > 2
    assert 0 < expected.dropped.sum() < 12
    for segments in (3, 7, 4, 2):  # 12 run the first segment
        brk = breaking(segments)
        with pytest.raises(Stop):
            jn.train.halving(study, "validation/loss", checkpoint=tmp_path, overhead=None, callbacks=brk, **how)
    again = jn.train.halving(study, "validation/loss", checkpoint=tmp_path, **how)
    assert dict(bits(again)) == dict(bits(expected))
    np.testing.assert_array_equal(again.dropped, expected.dropped)
    other: Any = {**how, "factor": 3}
    with pytest.raises(jn.NetError, match=r"halving: Rungs\(.*factor=2\) → Rungs\(.*factor=3\)"):
        jn.train.halving(study, "validation/loss", checkpoint=tmp_path, **other)


def test_a_search_broken_off_goes_on_from_its_batches(tmp_path: Path):
    how: Any = {"trials": 6, "batch": 2, "strategy": "vmap", "mesh": ONE}
    space = {"lr": jn.train.log_uniform(1e-3, 0.3)}
    ran: list[int] = []

    def watch(member: dict[str, Any]) -> list[jn.train.Callback]:
        return [jn.train.Callback(on_segment=lambda number, run, row: ran.append(member["member"]))]

    expected = jn.train.search(study, space, "validation/loss", **how)
    with pytest.raises(Stop):
        jn.train.search(
            study, space, "validation/loss", checkpoint=tmp_path, overhead=None, callbacks=breaking(16), **how
        )
    again = jn.train.search(study, space, "validation/loss", checkpoint=tmp_path, callbacks=watch, **how)
    with pytest.raises(jn.NetError, match=r"holds a search, not a run or a sweep; .*folder of its own"):
        jn.train.sweep(study, grid={"lr": [0.1]}, strategy="vmap", checkpoint=tmp_path)
    with pytest.raises(jn.NetError, match=r"holds checkpoints of a run or a sweep \(.*\), not a search; "):
        jn.train.search(study, space, "validation/loss", checkpoint=tmp_path / "0000", **how)
    assert dict(bits(again)) == dict(bits(expected))
    assert again.hp["lr"].tolist() == expected.hp["lr"].tolist()
    assert set(ran) <= {2, 3, 4, 5}  # the first batch was known
    assert {4, 5} <= set(ran)
