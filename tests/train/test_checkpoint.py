"""Checkpoints in one process: what is kept, what is refused, and what is left when something breaks."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxnets as jn
from jaxnets.train.checkpoint import compatibility, storage
from jaxnets.train.checkpoint.callback import restored
from jaxnets.train.checkpoint.compatibility import to_host
from jaxnets.train.checkpoint.storage import lock
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
KEY = jax.random.key(3)
DATA = floats(10, 4), integers(10, high=3)
OBJECTIVE = jn.objective(jn.losses.cross_entropy)
dense, adam = cache(jn.dense), cache(optax.adam)  # so that equal programs compile once


class Stop(Exception):
    """What breaks a run off."""


def program(epochs: int = 4, *, rate: float = 0.1, width: int = 3, data: Any = DATA, **given: Any) -> jn.train.Program:
    return jn.train.program(dense(width), OBJECTIVE, adam(rate), data, epochs=epochs, batch_size=4, **given)


PROGRAM = program(validation=(floats(6, 4, seed=1), integers(6, high=3, seed=1)))


def save(folder: Path | str, **given: Any) -> jn.train.Callback:
    return jn.train.checkpoint(folder, **{"overhead": None, **given})


def stop_after(epochs: int) -> jn.train.Callback:
    def on_epoch_end(number: int, run: Any, row: Any) -> None:
        if number + 1 == epochs:
            raise Stop

    return jn.train.Callback(on_epoch_end=on_epoch_end)


def assert_same(found: tuple, expected: tuple) -> None:
    for a, b in zip(found, expected, strict=True):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for path, leaf in jn.paths.paths(b).items():
            other = jn.paths.paths(a)[path]
            assert other.dtype == leaf.dtype, path
            assert to_host(other).tobytes() == to_host(leaf).tobytes(), path


def numbers(folder: Path) -> list[int]:
    return storage.numbers(folder)


@pytest.fixture(scope="module")
def undisturbed() -> tuple:
    return jn.train.run(PROGRAM, key=KEY)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with checkpoints 1, 2 and 3 of four epochs."""
    folder = tmp_path_factory.mktemp("three")
    with pytest.raises(Stop):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3}), stop_after(3)])
    assert numbers(folder) == [1, 2, 3]
    return folder


@pytest.fixture
def folder(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "run"))


def test_a_run_goes_on_to_the_same_bits(undisturbed, folder):
    seen = []
    watch = jn.train.Callback(on_epoch_end=lambda number, run, row: seen.append(number))
    found = jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3}), watch])
    assert seen == [3]
    assert_same(found, undisturbed)


def test_a_finished_run_comes_back_at_once(undisturbed, folder):
    for epochs in ([3], []):
        seen = []
        watch = jn.train.Callback(on_epoch_end=lambda number, run, row, seen=seen: seen.append(number))
        found = jn.train.run(PROGRAM, key=KEY, callbacks=[watch, save(folder, config={"seed": 3})])
        assert seen == epochs
        assert_same(found, undisturbed)


def test_the_restored_run_has_the_types_that_a_run_starts_with(folder):
    saved = storage.read(folder, 2)
    schedule = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    net, objective = jn.dense(3), jn.objective(jn.losses.cross_entropy)
    one = jn.train.program(net, objective, schedule, DATA, epochs=2, batch_size=5)
    like = jax.eval_shape(jn.train.Program.start, one, KEY)
    start = one.start(KEY)
    leaves = {path: to_host(leaf) for path, leaf in jn.paths.paths(start).items()}
    found = restored(storage.Saved(2, leaves, {}, saved.about), like, "here")
    for path, leaf in jn.paths.paths(start).items():
        other = jn.paths.paths(found)[path]
        assert (other.dtype, other.shape) == (leaf.dtype, leaf.shape)
        assert getattr(other, "weak_type", None) == getattr(leaf, "weak_type", None), path


KINDS = (
    "bool",
    "int4",
    "int8",
    "uint8",
    "int32",
    "uint32",
    "float8_e4m3fn",
    "bfloat16",
    "float16",
    "float32",
    "complex64",
)


def test_arrays_of_every_type_come_back_bit_for_bit_and_plain_orbax_reads_them(tmp_path):
    bits = np.random.default_rng(0).integers(0, 256, 48, dtype=np.uint8)
    params = {}
    for kind in KINDS:
        whole = (bits % 2).astype(bool) if kind == "bool" else (bits % 8).astype(kind) if kind == "int4" else None
        params[kind] = jnp.asarray(bits.view(kind).reshape(2, -1) if whole is None else whole)
    params |= {"scalar": jnp.float32(-0.0), "none of them": jnp.zeros((0, 3)), "nan": jnp.array([jnp.nan, jnp.inf])}
    keys = {"rbg": jax.random.key(5, impl="rbg"), "several": jax.random.split(KEY, 3)}
    run = jn.train.TrainState(params, {"äö.x": jnp.ones(2)}, (), keys, jnp.int32(7), scale=None)
    writer = storage.Writer(tmp_path, None)
    writer.open(keep=1)
    writer.save(storage.pack(5, run, {"validation/loss": np.array([1.0, np.nan])}), {"settings": {}}, {})
    writer.close()
    saved = storage.read(tmp_path, 5)
    assert_same((restored(saved, jax.eval_shape(lambda: run), "here"),), (run,))
    np.testing.assert_array_equal(saved.history["validation/loss"], [1.0, np.nan])
    plain = ocp.PyTreeCheckpointer().restore(tmp_path / "5" / "arrays")
    np.testing.assert_array_equal(plain["run/params/float16"], params["float16"])
    assert plain["run/step"] == 7


@pytest.mark.parametrize(("keep", "best", "mode"), [(2, None, None), (1, "validation/loss", None), (1, "loss", "max")])
@pytest.mark.slow_cases("2-None-None", "1-loss-max")
def test_the_last_are_kept_and_the_best(undisturbed, tmp_path, keep, best, mode):
    found = jn.train.run(PROGRAM, key=KEY, callbacks=[save(tmp_path, keep=keep, best=best, mode=mode)])
    assert_same(found, undisturbed)
    there = {*range(5 - keep, 5)}
    if best is not None:
        values = undisturbed[1][best]
        there.add(int(values.argmax() if mode == "max" else values.argmin()) + 1)
        assert len(there) == keep + 1
        assert jn.train.load_checkpoint(tmp_path, "best")[2]["epoch"] == min(there)
    assert set(numbers(tmp_path)) == there


def test_only_what_is_asked_for_is_saved(tmp_path):
    jn.train.run(PROGRAM, key=KEY, callbacks=[save(tmp_path / "every", every=3)])
    assert numbers(tmp_path / "every") == [3, 4]
    jn.train.run(
        PROGRAM, key=KEY, callbacks=[save(tmp_path / "seldom", overhead=1e-6)]
    )  # seconds between 0.1-second saves: 100,000
    assert numbers(tmp_path / "seldom") == [4]
    for best, epochs in (("loss", [4]), ("validation/loss", [1, 4])):  # one falls, the other rises
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(tmp_path / best, overhead=1e-6, best=best, keep=9)])
        assert numbers(tmp_path / best) == epochs
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(tmp_path / f"{best} 2", every=4, best=best, keep=9)])
        assert numbers(tmp_path / f"{best} 2") == ([1, 2, 3, 4] if best == "loss" else [1, 4])


def change(how: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the files that hold the arrays' values."""

    def damage(folder: Path) -> None:
        for file in (folder / "arrays").glob("**/d/*"):
            file.write_bytes(how(file.read_bytes()))

    return damage


def flip(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the arrays": change(flip),
    "half of the arrays": change(lambda content: content[: len(content) // 2]),
    "empty files": change(lambda content: b""),
    "no list of the arrays": lambda folder: (folder / "arrays" / "manifest.ocdbt").unlink(),
    "no arrays": lambda folder: shutil.rmtree(folder / "arrays"),
    "a bit of the description": lambda folder: (folder / "about" / "metadata").write_bytes(
        flip((folder / "about" / "metadata").read_bytes())
    ),
    "no description": lambda folder: shutil.rmtree(folder / "about"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.slow_cases("half of the arrays", "empty files", "no list of the arrays", "no arrays")
def test_a_damaged_newest_checkpoint_is_passed_over_and_said_so(undisturbed, folder, damage):
    DAMAGES[damage](folder / "3")
    with pytest.warns(UserWarning, match=r"checkpoint 3 can't be read \(.+\); taking checkpoint 2"):
        assert jn.train.load_checkpoint(folder)[2]["epoch"] == 2
    with pytest.warns(UserWarning, match=r"checkpoint 3 can't be read \(.+\); taking checkpoint 2"):
        found = jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3})])
    assert_same(found, undisturbed)
    assert numbers(folder) == [2, 3, 4]
    assert (folder / "3.unreadable1").is_dir()


def test_if_none_can_be_read_nothing_is_begun_anew(folder):
    for number in numbers(folder):
        change(flip)(folder / str(number))
    with pytest.raises(jn.NetError, match=r"finds no checkpoint that can be read: .*; move the folder away"):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3})])
    assert numbers(folder) == [1, 2, 3]


CHANGED: dict[str, tuple[Callable[[], jn.train.Program], int, dict[str, Any], str]] = {
    "epochs": (lambda: program(6, validation=PROGRAM.validation), 3, {"seed": 3}, "\n  epochs: 4 → 6\n"),
    "rate": (lambda: program(rate=0.2, validation=PROGRAM.validation), 3, {"seed": 3}, "learning rate.*: -0.1 → -0.2"),
    "data": (
        lambda: program(data=(DATA[0] + 1, DATA[1]), validation=PROGRAM.validation), 3, {"seed": 3},
        "\n  data: 10 examples, CRC-32 [0-9a-f]+ → 10 examples",
    ),
    "validation": (program, 3, {"seed": 3}, "\n  validation: 6 examples, .* → none\n"),
    "key": (lambda: PROGRAM, 4, {"seed": 3}, r"\n  key: threefry2x32 \[0, 3\] → threefry2x32 \[0, 4\]\n"),
    "config": (lambda: PROGRAM, 3, {"seed": 4, "b": None}, "\n  config seed: 3 → 4\n  config b: nothing → null\n"),
    "net": (
        lambda: program(width=5, validation=PROGRAM.validation), 3, {"seed": 3},
        r"other arrays.*\n  params/bias is \(3,\) float32 in it, \(5,\) float32 here\n(.*\n)+.*another folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.slow_cases("net", "validation")
def test_another_configuration_is_named_and_refused(folder, change):
    make, seed, config, said = CHANGED[change]
    with pytest.raises(jn.NetError, match=r"^checkpoint 3 in \S*run ") as caught:
        jn.train.run(make(), key=jax.random.key(seed), callbacks=[save(folder, config=config)])
    assert caught.match(said)
    assert numbers(folder) == [1, 2, 3]


@pytest.mark.slow
def test_another_configuration_can_be_accepted(folder):
    longer = program(6, validation=PROGRAM.validation)
    with pytest.warns(UserWarning, match="resumes with another configuration:\n  epochs: 4 → 6"):
        found = jn.train.run(longer, key=KEY, callbacks=[save(folder, config={"seed": 3}, config_change="accept")])
    assert_same(found, jn.train.run(longer, key=KEY))  # no epoch here depends on how many there are
    counted = program(4, validation=PROGRAM.validation, metrics={"accuracy": jn.metrics.accuracy})
    for number in (5, 6):
        shutil.rmtree(folder / str(number))
    with pytest.warns(UserWarning, match="metrics:  → accuracy"):
        _, history = jn.train.run(
            counted, key=KEY, callbacks=[save(folder, config={"seed": 3}, config_change="accept")]
        )
    np.testing.assert_array_equal(history["accuracy"], np.full(4, np.nan))  # it was not reported then
    np.testing.assert_array_equal(history["loss"], found[1]["loss"][:4])


def test_another_machine_is_said_and_no_obstacle(folder, monkeypatch):
    monkeypatch.setattr(jax, "__version__", "99.0")
    with pytest.warns(UserWarning, match=r"the last bits may differ from here on:\n  jax: \S+ → 99.0$"):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3})])


def test_as_many_cores_and_devices_are_said_too(folder, monkeypatch):
    monkeypatch.setattr(compatibility, "_cores", lambda: 99)
    with pytest.warns(UserWarning, match=r"the last bits may differ from here on:\n  cores: \d+ → 99$"):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3})])
    other = program(rate=0.2, validation=PROGRAM.validation)  # which cores do not hide
    with pytest.raises(jn.NetError, match=r"learning rate.*-0.1 → -0.2"):
        jn.train.run(other, key=KEY, callbacks=[save(folder, config={"seed": 3})])


@pytest.mark.slow
def test_a_run_goes_on_on_fewer_devices_and_says_so(tmp_path):  # their last bits differ
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), PartitionSpec("data"))
    with pytest.raises(Stop):
        jn.train.run(program(data=jax.device_put(DATA, sharding)), key=KEY, callbacks=[save(tmp_path), stop_after(2)])
    other = shutil.copytree(tmp_path, tmp_path / "other")
    with pytest.warns(UserWarning, match=r"the last bits may differ from here on:\n  devices: 2 → 1$"):
        run, history = jn.train.run(program(), key=KEY, callbacks=[save(tmp_path)])
    with pytest.raises(jn.NetError, match=r"(?s)learning rate.*: -0.1 → -0.2\n  devices: 2 → 1"):
        jn.train.run(program(rate=0.2), key=KEY, callbacks=[save(other)])
    expected, losses = jn.train.run(program(), key=KEY)
    np.testing.assert_allclose(history["loss"], losses["loss"], rtol=1e-6)
    np.testing.assert_allclose(run.params["kernel"], expected.params["kernel"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["7", "2"])
@pytest.mark.slow_cases("7")
def test_a_checkpoint_under_another_name_is_passed_over(undisturbed, folder, name):
    if name == "2":
        shutil.rmtree(folder / "2")
    (folder / "3").rename(folder / name)
    said = rf"checkpoint {name} can't be read \(it is checkpoint 3 under another name\); taking checkpoint"
    with pytest.warns(UserWarning, match=said):
        assert jn.train.load_checkpoint(folder)[2]["epoch"] == (2 if name == "7" else 1)
    with pytest.warns(UserWarning, match=said):
        found = jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3})])
    assert_same(found, undisturbed)


def sweep(folder: Path) -> jn.sweeps.SweepResult:
    return jn.sweeps.sweep(lambda hp: program(2), seeds=2, strategy="vmap", checkpoint=folder, overhead=None)


def test_a_sweep_does_not_go_on_from_a_run(folder):
    for _ in range(2):  # nothing stays locked
        with pytest.raises(
            jn.NetError, match=r"checkpoint 3 in .*run is of a run, not of a sweep; .*folder of its own"
        ):
            sweep(folder)


@pytest.mark.slow
def test_a_run_does_not_go_on_from_a_sweep(tmp_path):
    sweep(tmp_path / "sweep")
    for _ in range(2):  # nothing stays locked
        with pytest.raises(
            jn.NetError, match=r"checkpoint 4 in .*sweep is of a sweep, not of a run; checkpoint\(folder\)"
        ):
            jn.train.run(PROGRAM, key=KEY, callbacks=[save(tmp_path / "sweep")])
    for which in ("last", 4):
        with pytest.raises(jn.NetError, match="is of a sweep, not of a run"):
            jn.train.load_checkpoint(tmp_path / "sweep", which)
    sweep(tmp_path / "sweep")


def test_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    jn.train.run(PROGRAM, key=KEY, callbacks=[save("~/run")])
    assert jn.train.load_checkpoint("~/run")[2]["epoch"] == PROGRAM.epochs
    assert (tmp_path / "run").is_dir()


def test_only_one_callback_is_gone_on_from(tmp_path):
    with pytest.raises(jn.NetError, match=r"run gets several callbacks that resume a run; .*best="):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(tmp_path / "a"), save(tmp_path / "b")])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_writer_a_folder(folder):
    holder = f"""
import sys
from pathlib import Path
from jaxnets.train.checkpoint.storage import lock
lock(Path({str(folder)!r}))
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        said = rf"{folder} is being written to by process {other.pid} on \S+; give each run a folder of its own"
        for _ in range(2):
            with pytest.raises(jn.NetError, match=said):
                jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3})])
        assert jn.train.load_checkpoint(folder)[2]["epoch"] == 3  # which only reads
        other.kill()
    assert (folder / ".lock").is_file()
    jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3})])  # the lock died with its holder
    assert not (folder / ".lock").exists()


def test_one_writer_a_folder_of_the_threads_of_a_process(tmp_path):
    unlock = lock(tmp_path)
    with pytest.raises(jn.NetError, match=f"process {os.getpid()} "):
        lock(tmp_path)
    unlock()
    lock(tmp_path)()


def test_ctrl_c_saves_and_the_run_goes_on(undisturbed, tmp_path):
    def press(number: int, run: Any, row: Any) -> None:
        if number == 1:
            signal.raise_signal(signal.SIGINT)

    interrupt = jn.train.Callback(on_epoch_end=press)
    _, history = jn.train.run(PROGRAM, key=KEY, callbacks=[interrupt, save(tmp_path, overhead=1e-6)])
    assert len(history["loss"]) == 2
    assert numbers(tmp_path) == [2]
    assert_same(jn.train.run(PROGRAM, key=KEY, callbacks=[save(tmp_path)]), undisturbed)


@pytest.mark.slow
def test_a_run_that_stopped_early_stays_stopped_with_its_best(tmp_path):
    rule = jn.train.early_stopping("loss", patience=1, mode="max")  # falling is never better
    found = jn.train.run(PROGRAM, key=KEY, callbacks=[rule, save(tmp_path)])
    assert len(found[1]["loss"]) == 2
    assert_same(jn.train.run(PROGRAM, key=KEY, callbacks=[rule, save(tmp_path)]), found)
    params, _, about = jn.train.load_checkpoint(tmp_path)
    assert about["epoch"] == 2
    assert_same((params,), (found[0].params,))  # as `fit` returned them: the best
    assert_same((jn.train.load_checkpoint(tmp_path, 1)[0],), (params,))


@pytest.mark.slow
def test_a_run_that_has_halted_is_not_saved(tmp_path):
    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        poison = jnp.where(state == 7, jnp.nan, 0.0)
        return jax.tree.map(lambda leaf: leaf + poison, updates), state + 1

    broken = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update_fn)
    net, objective = jn.dense(3), jn.objective(jn.losses.cross_entropy)
    one = jn.train.program(net, objective, optax.chain(optax.sgd(0.1), broken), DATA, epochs=4, batch_size=4)
    for _ in range(2):  # the second time from the checkpoint
        with pytest.raises(jn.train.NonFiniteError):
            jn.train.run(one, key=KEY, callbacks=[save(tmp_path)])
        assert numbers(tmp_path) == [1, 2]
    params, _, _ = jn.train.load_checkpoint(tmp_path)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))


@contextmanager
def nobody() -> Iterator[None]:
    """Be an ordinary user for a while, as nothing is read-only to the superuser."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_to(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)  # so that the way to it is open to all
    folder.chmod(0o555)
    with nobody(), pytest.raises(PermissionError, match=r"checkpoints can't be written there .*choose a folder"):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(Path("run"), config={"seed": 3})])
    with nobody(), pytest.raises(PermissionError, match="checkpoints can't be written there"):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(Path("run") / "inner")])
    folder.chmod(0o755)
    assert numbers(folder) == [1, 2, 3]
    (folder / "file").write_text("")
    with pytest.raises(OSError, match="checkpoints can't be written there"):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder / "file")])


def test_what_a_folder_holds_can_be_read_without_the_program(undisturbed, folder):
    run, history = jn.train.run(PROGRAM, key=KEY, callbacks=[save(folder, config={"seed": 3}, best="validation/loss")])
    params, state, about = jn.train.load_checkpoint(folder)
    assert_same((params, state, about["history"]), (run.params, run.state, history))
    assert (about["epoch"], about["step"], about["ema"], about["config"]) == (4, 12, None, {"seed": 3})
    assert about["settings"]["net"] == "dense(3)"
    assert len(jn.train.load_checkpoint(folder, 3)[2]["history"]["loss"]) == 3
    best = jn.train.load_checkpoint(folder, "best")[2]["epoch"]
    assert best == max(numbers(folder), key=lambda number: -history["validation/loss"][number - 1])


def test_wrong_arguments(folder, tmp_path):
    for wrong, said in [
        ({"every": 0}, "checkpoint expects every ≥ 1, got 0"),
        ({"keep": 0}, "checkpoint expects keep ≥ 1, got 0"),
        ({"overhead": 1.0}, r"checkpoint expects overhead in \[0, 1\), got 1"),
        ({"best": "loss", "mode": "most"}, "checkpoint expects mode 'min' or 'max' for 'loss', got 'most'"),
        ({"config_change": "yes"}, "checkpoint expects config_change 'refuse' or 'accept', got 'yes'"),
        ({"config": {"net": jn.dense(3)}}, "checkpoint expects a config that JSON can hold"),
    ]:
        with pytest.raises(jn.NetError, match=said):
            jn.train.checkpoint(tmp_path / "new", **wrong)
    with pytest.raises(jn.NetError, match=r"finds no scalar 'accuracy' in the history; it has .*validation/loss"):
        jn.train.run(PROGRAM, key=KEY, callbacks=[save(tmp_path / "new", best="accuracy")])
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint in .*nowhere"):
        jn.train.load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint 9 in .*; there are 1, 2, 3"):
        jn.train.load_checkpoint(folder, 9)
    with pytest.raises(jn.NetError, match=r"was written without checkpoint\(best=...\)"):
        jn.train.load_checkpoint(folder, "best")
    change(flip)(folder / "2")
    with pytest.raises(jn.NetError, match="can't read checkpoint 2: "):
        jn.train.load_checkpoint(folder, 2)
