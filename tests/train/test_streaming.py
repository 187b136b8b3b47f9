"""Programs that learn from a stream: the same as from arrays, and a run that goes on has the batches that are due."""

import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.train.checkpoint import storage
from jaxnets.train.streaming import IN_FLIGHT
from tests.oracle import floats, integers
from tests.train.test_checkpoint import Stop, assert_same, stop_after

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(5)
N = 10
X, Y = floats(N, 4), integers(N, high=3)
HELD_OUT = floats(6, 4, seed=1), integers(6, high=3, seed=1)
OBJECTIVE = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(0.01, on="**/kernel"))
METRICS = {"accuracy": jn.metrics.accuracy, "confusion": jn.metrics.confusion_matrix(3)}


# The same, so that they compile once.
DROPPED = jn.serial(hidden=jn.dense(5), relu=jax.nn.relu, drop=jn.dropout(0.3), out=jn.dense(3))
DENSE, ADAM = jn.dense(3), optax.adam(0.05)


def program(data: Any, net: jn.Net | None = None, **options: Any) -> jn.train.Program:
    given = {"epochs": 3, "validation": HELD_OUT, "metrics": METRICS} | options
    return jn.train.program(net or DROPPED, OBJECTIVE, ADAM, data, **given)


def stream(data: Any = (X, Y), size: int = 4, **options: Any) -> jn.data.Stream:
    return jn.data.stream(data, size, **{"epochs": None, **options})


def jitter(generator: np.random.Generator, example: tuple) -> tuple:
    return example[0] + 0.1 * generator.standard_normal(4).astype(np.float32), example[1]


def close(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for path, leaf in jn.paths.paths(expected).items():
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(jn.paths.paths(found)[path], leaf, rtol=1e-6, atol=1e-6, err_msg=path)


WEIGHTS = np.arange(N, dtype=np.float32) / 3
OPTIONS: dict[str, tuple[tuple, dict[str, Any]]] = {
    "plain": ((X, Y), {}),
    "weights": ((X, Y, WEIGHTS), {}),
    "much": (
        (X, Y),
        {
            "augment": jn.data.noise(0.1), "batch_augment": jn.data.mixup(0.3, num_classes=3), "ema_decay": 0.9,
            "freeze": "hidden/bias", "stopping": jn.train.early_stopping("skipped_steps", patience=1, mode="min"),
            "options": jn.train.Options(
                accumulate=2, loss_scale=jn.train.LossScale(), monitor=jn.train.norms(), halt_on_nonfinite=False
            ),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.slow_cases("much", "weights", "plain")
def test_a_stream_in_the_datas_order_is_training_on_the_data(name: str):
    data, options = OPTIONS[name]
    arrays = program(data, batch_size=4, sampler=lambda key, data: jnp.arange(N), **options)
    expected = jn.train.run(arrays, key=KEY)
    streamed = program(stream(data, shuffle=False), **options)
    found = jn.train.run(streamed, key=KEY)
    close(found, expected)
    assert found[1]["loss"].shape == (2 if "stopping" in options else 3,)


@pytest.mark.slow
def test_validation_may_be_a_stream_too():
    options = {"ema_decay": 0.9, "stopping": jn.train.early_stopping("ema/validation/loss", patience=3)}
    expected = jn.train.run(program(stream(), **options), key=KEY)
    held_out = jn.data.stream(HELD_OUT, 4, shuffle=False)
    close(jn.train.run(program(stream(), validation=held_out, **options), key=KEY), expected)


NET = jn.serial(norm=jn.batch_norm(), drop=jn.dropout(0.3), out=jn.dense(3))


def drawn(batches: jn.data.Stream) -> jn.train.Program:
    """Return a program with state, whose validation is a stream in an order of its own."""
    return program(batches, NET, epochs=4, validation=stream(HELD_OUT, size=4, epochs=1))


@pytest.fixture(scope="module")
def regular() -> jn.train.Program:
    return drawn(stream(seed=3, transforms=[jitter]))


@pytest.fixture(scope="module")
def undisturbed(regular: jn.train.Program) -> tuple:
    return jn.train.run(regular, key=KEY)


@pytest.mark.slow
def test_run_reads_from_the_beginning_each_time_and_leaves_the_stream_where_it_stood(undisturbed):
    batches = stream(seed=3, transforms=[jitter])
    next(batches)
    one = drawn(batches)
    for _ in range(2):
        assert_same(jn.train.run(one, key=KEY), undisturbed)
    assert batches.get_state()["position"] == 1


def small(batches: jn.data.Stream, **options: Any) -> jn.train.Program:
    return jn.train.program(DENSE, OBJECTIVE, ADAM, batches, epochs=2, **options)


def save(folder: Path, **given: Any) -> jn.train.Callback:
    return jn.train.checkpoint(folder, overhead=None, **given)


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits_with_the_batches_that_are_due(regular, undisturbed, tmp_path):
    for epochs in (1, 3):
        with pytest.raises(Stop):
            jn.train.run(regular, key=KEY, callbacks=[save(tmp_path), stop_after(epochs)])
        about = storage.read(tmp_path, epochs).about["stream"]
        assert about == {"position": 3 * epochs, "seed": 3, "batch_size": 4, "examples": N, "shuffle": True}
    assert_same(jn.train.run(regular, key=KEY, callbacks=[save(tmp_path)]), undisturbed)


class Failing:
    """Examples of which some reading, the so many-th, breaks off whatever reads."""

    def __init__(self, number: int, error: BaseException) -> None:
        self.left, self.error = number, error

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return X[index], Y[index]


@pytest.mark.slow
def test_a_run_broken_off_in_the_middle_of_an_epoch_goes_on_from_the_one_before(tmp_path):
    expected = jn.train.run(program(stream(Failing(0, Stop()), threads=0)), key=KEY)
    source = Failing(1 + 2 * 8 + 2 * N + 7, Stop())  # for the shape, to tell the source from others, and in epoch 3
    one = program(stream(source, threads=0, ahead=0))
    with pytest.raises(jn.NetError, match=r"^stream can't read example \d: Stop"):
        jn.train.run(one, key=KEY, callbacks=[save(tmp_path)])
    assert storage.numbers(tmp_path) == [1, 2]
    assert_same(jn.train.run(one, key=KEY, callbacks=[save(tmp_path)]), expected)


@pytest.mark.slow
def test_ctrl_c_ends_behind_the_epoch_and_the_run_goes_on(regular, undisturbed, tmp_path):
    press = jn.train.Callback(on_epoch_end=lambda number, run, row: signal.raise_signal(signal.SIGINT))
    _, history = jn.train.run(regular, key=KEY, callbacks=[press, save(tmp_path)])
    assert len(history["loss"]) == 1
    assert_same(jn.train.run(regular, key=KEY, callbacks=[save(tmp_path)]), undisturbed)


@pytest.mark.slow
def test_processes_that_read_give_the_same_run_also_when_it_goes_on(undisturbed, regular, tmp_path):
    net = regular.recipe.net
    options = {"epochs": 4, "validation": stream(HELD_OUT, size=4, epochs=1)}
    one = program(stream(seed=3, transforms=[jitter], workers=2, threads=1), net, **options)
    with pytest.raises(Stop):
        jn.train.run(one, key=KEY, callbacks=[save(tmp_path), stop_after(2)])
    assert_same(jn.train.run(one, key=KEY, callbacks=[save(tmp_path)]), undisturbed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 4}, "with seed=4, got one with 3"),
        ({"size": 5}, "with batch_size=5, got one with 4"),
        ({"shuffle": False}, "with shuffle=False, got one with True"),
        ({"data": (X[:9], Y[:9])}, "with examples=9, got one with 10"),
        ({"data": (X + 1, Y)}, "another configuration:\n  data: stream.* → stream"),
        ({"data": (np.where(np.arange(N)[:, None] == 6, X + 1, X), Y)}, "configuration:\n  data: stream.* → stream"),
        ({"transforms": [jitter]}, "configuration:\n  data: stream.*transforms none → stream.*transforms jitter"),
    ],
)
def test_a_checkpoint_of_another_stream_is_refused_by_name(saved, change, words):
    options = {"seed": 3, **change}
    with pytest.raises(jn.NetError, match=rf"(?s)^checkpoint 1 in \S* is of a run .*{words}"):
        jn.train.run(small(stream(**options)), key=KEY, callbacks=[save(saved)])
    assert storage.numbers(saved) == [1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was broken off behind its first epoch."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.raises(Stop):
        jn.train.run(small(stream(seed=3)), key=KEY, callbacks=[save(folder), stop_after(1)])
    return folder


def test_a_small_run_goes_on_to_the_same_bits(saved, tmp_path):
    folder = Path(shutil.copytree(saved, tmp_path / "run"))
    about = storage.read(folder, 1).about["stream"]
    assert about == {"position": 3, "seed": 3, "batch_size": 4, "examples": N, "shuffle": True}
    found = jn.train.run(small(stream(seed=3)), key=KEY, callbacks=[save(folder)])
    assert_same(found, jn.train.run(small(stream(seed=3)), key=KEY))


@pytest.mark.slow
def test_the_example_that_brings_a_nan_is_named_and_the_run_stands_before_it():
    x = X.copy()
    x[7, 1] = np.nan
    batches = stream((x, Y), seed=2)
    numbers = [number for place in range(3) for number in batches.reading.numbers(place)]
    assert sorted(numbers) == list(range(N))
    one = program(batches)
    with pytest.raises(jn.train.NonFiniteError, match="example 7 of the data has a value that is not finite") as caught:
        jn.train.run(one, key=KEY)
    run = caught.value.state
    assert int(run.failed) == numbers.index(7) // 4
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(run.params))
    assert np.isnan(np.asarray(one.next_batch(run).x)).any()
    with pytest.raises(jn.train.NonFiniteError, match="augment or batch_augment puts"):
        jn.train.run(program(stream(), augment=lambda key, x: x / 0), key=KEY)


@pytest.mark.slow
def test_a_batch_may_lie_over_several_devices():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    close(jn.train.run(program(stream(device=over)), key=KEY), jn.train.run(program(stream()), key=KEY))


@pytest.mark.slow
def test_the_host_is_ahead_of_the_device_by_a_few_batches_and_no_more():
    order: list[str] = []

    class Source:
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> tuple:
            order.append("read")
            return np.full(1, index, np.float32), np.full(1, index, np.float32)

    def noted(outputs: Any, targets: Any) -> Any:
        jax.debug.callback(lambda: order.append("computed"))
        return ((outputs - targets) ** 2).sum(-1)

    batches = jn.data.stream(Source(), 1, threads=0, ahead=2)
    one = jn.train.program(jn.dense(1), jn.objective(noted), optax.sgd(0.0), batches, epochs=1)
    jn.train.run(one, key=KEY)
    ahead = [order[:place].count("read") - 1 - order[:place].count("computed") for place in range(len(order))]
    assert order.count("computed") == 40
    assert 2 <= max(ahead) <= 2 + 2 + IN_FLIGHT  # read ahead, read next and handed out, not yet computed


REFUSED = {
    "program(key)": lambda: program(stream())(KEY),
    "vmap": lambda: jax.vmap(program(stream()))(jax.random.split(KEY, 2)),
    "jit": lambda: jax.jit(lambda program, key: program(key))(program(stream()), KEY),
    "epoch": lambda: program(stream()).run_epoch(jn.train.Program.start(program(stream()), KEY)),
    "sweep": lambda: jn.sweeps.sweep(lambda hp: program(stream()), seeds=2),
}


@pytest.mark.parametrize("use", REFUSED)
@pytest.mark.slow_cases("sweep")
def test_what_needs_one_pure_function_says_why_it_cannot_be(use: str):
    with pytest.raises(jn.NetError, match=r"program trains on a stream, .*on the host.*; run it by jn.train.run"):
        REFUSED[use]()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: program(stream(epochs=2)), "a stream of epochs=3 or None, got one that ends after 2"),
        (lambda: program(stream(), batch_size=5), "4 examples, got batch_size=5"),
        (lambda: program(stream(), batch_size=64), "4 examples, got batch_size=64"),
        (lambda: program(stream(), batch_size=None), "4 examples, got batch_size=None"),
        (lambda: program(stream(), sampler=lambda key, data: key), r"sampler for a stream, .*shuffle="),
        (
            lambda: program(stream(), options=jn.train.Options(accumulate=3)),
            "a batch of equal parts, got batch_size=4 in accumulate=3",
        ),
        (lambda: program(stream(), epochs=0), "epochs ≥ 1, got 0"),
        (lambda: program((X, Y), validation=stream()), "expects validation as .*, got Stream"),
        (
            lambda: program(stream(), jn.batch_norm(), ema_decay=0.9),
            "average of a network with state .*a second reading",
        ),
    ],
)
def test_what_a_stream_cannot_do_is_refused(make, words):
    with pytest.raises(jn.NetError, match=f"^program .*{words}"):
        make()


@pytest.mark.slow
def test_a_stream_made_for_one_pass_is_read_as_often_as_the_program_says():
    run, history = jn.train.run(program(stream(epochs=1), batch_size=4), key=KEY)
    assert int(run.step) == 9
    assert history["confusion"].sum((1, 2)).tolist() == [N] * 3


@pytest.mark.slow
def test_an_epoch_in_which_nothing_counts_is_refused():
    nothing, all_but_one = np.zeros(N, np.float32), np.eye(N, dtype=np.float32)[-1]
    said = "training expects some weight above 0 in {}, got 0 for every example"
    with pytest.raises(jn.NetError, match=said.format("data")):
        jn.train.run(small(stream((X, Y, nothing))), key=KEY)
    with pytest.raises(
        jn.NetError, match="training expects some weight above 0 in validation, got 0 for every example"
    ):
        jn.train.run(small(stream(), validation=stream((X, Y, nothing), shuffle=False)), key=KEY)
    _, history = jn.train.run(small(stream((X, Y, all_but_one))), key=KEY)
    assert np.isfinite(history["loss"]).all()
