"""Streams through Grain: every example once an epoch, whole batches, and a position that can be resumed from."""

import copy
import importlib.util
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets.data.arrays import Arrays


def arrays(examples: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(2 * examples, dtype=np.float32).reshape(examples, 2), np.arange(examples, dtype=np.int32)


def seen(stream: jn.data.Stream) -> list[list[int]]:
    """Return the numbers of the examples that count, batch by batch."""
    return [np.asarray(batch.y)[np.asarray(batch.weights) > 0].tolist() for batch in stream]


def jitter(generator: np.random.Generator, example: tuple) -> tuple:
    return example[0] + generator.standard_normal(2).astype(np.float32), example[1]


@given(st.integers(1, 23), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.integers(0, 3))
def test_every_example_once_an_epoch(examples, size, epochs, shuffle, seed):
    size = min(size, examples)
    x, y = arrays(examples)
    stream = jn.data.stream((x, y), size, seed=seed, epochs=epochs, shuffle=shuffle, threads=seed)
    batches = -(-examples // size)
    assert len(stream) == epochs * batches
    assert stream.batches == batches
    found = list(stream)
    assert len(found) == epochs * batches
    assert len(stream) == 0
    for batch in found:
        assert isinstance(batch.x, jax.Array)
        assert (batch.x.shape, batch.y.shape, batch.weights.shape) == ((size, 2), (size,), (size,))
        assert batch.weights.dtype == jnp.float32
        np.testing.assert_array_equal(batch.x, x[np.asarray(batch.y)])
    for epoch in range(epochs):
        part = found[epoch * batches : (epoch + 1) * batches]
        numbers = np.concatenate([np.asarray(batch.y)[np.asarray(batch.weights) == 1] for batch in part])
        np.testing.assert_array_equal(np.sort(numbers), y)
        if not shuffle:
            np.testing.assert_array_equal(numbers, y)
        filled = part[-1]
        assert set(np.asarray(filled.y).tolist()) <= set(np.asarray(filled.y)[np.asarray(filled.weights) == 1].tolist())


def test_orders_differ_between_epochs_and_seeds():
    orders = [
        tuple(np.concatenate(seen(jn.data.stream(arrays(40), 8, seed=seed, epochs=2)))[part])
        for seed in (0, 1)
        for part in (slice(40), slice(40, 80))
    ]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(np.concatenate(seen(jn.data.stream(arrays(40), 8, seed=0))))


def jittered(ahead: int) -> jn.data.Stream:
    return jn.data.stream(arrays(11), 3, seed=5, epochs=3, transforms=[jitter], ahead=ahead, threads=2)


@pytest.fixture(scope="module")
def whole() -> list[jn.train.Batch]:
    return list(jittered(2))


@pytest.mark.parametrize(
    ("taken", "ahead", "again"),
    [(0, 0, True), (3, 2, False), (4, 1, True), (7, 0, False), (9, 3, True), (12, 2, False)],
)
def test_a_resumed_stream_gives_the_same_rest(whole, taken, ahead, again):
    first = jittered(ahead)
    for _ in range(taken):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    assert state["position"] == taken
    if again:  # back and forth in one stream
        for _ in first:
            pass
        other = first
    else:
        other = jittered(ahead)
    other.set_state(state)
    assert other.epoch == taken // 4
    rest = list(other)
    assert len(rest) == 12 - taken
    for batch, want in zip(rest, whole[taken:], strict=True):
        for leaf, wanted in zip(jax.tree.leaves(batch), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(leaf, wanted)
    assert len({float(value) for batch in whole for value in np.asarray(batch.x)[:, 0]}) == 33  # new noise each time


@pytest.mark.slow
def test_workers_give_what_threads_give():
    """Batches beyond a worker's limit for messages come through shared memory, and outlive it."""
    x = np.random.default_rng(0).random((90, 64, 64), np.float32)
    y = np.arange(90, dtype=np.int32)
    plain = jn.data.stream((x, y), 40, seed=2, epochs=2)
    next(plain)
    stream = jn.data.stream((x, y), 40, seed=2, epochs=2, workers=1, threads=1)
    stream.set_state(plain.get_state())
    rest = list(stream)
    for batch, want in zip(rest, plain, strict=True):
        np.testing.assert_array_equal(batch.y, want.y)
        np.testing.assert_array_equal(batch.x, x[np.asarray(batch.y)])


READER = """
import multiprocessing, os, signal, sys
import numpy as np
import jaxnets as jn

if __name__ == "__main__":
    batches = jn.data.stream((np.arange(8.0), np.arange(8)), 2, epochs=None, workers=1, threads=1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGINT)  # what Ctrl-C sends to all processes of a terminal
    print(worker.pid, sum(int(next(batches).weights.sum()) for _ in range(40)), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_worker_leaves_ctrl_c_to_its_master_and_dies_with_it(tmp_path):
    (tmp_path / "reader.py").write_text(READER)
    command = [sys.executable, str(tmp_path / "reader.py")]
    master = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert master.stdout is not None
    worker, read = map(int, master.stdout.readline().split())
    assert read == 80
    master.kill()
    master.communicate()
    ended = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < ended
        time.sleep(0.01)


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_an_endless_stream_has_no_length():
    stream = jn.data.stream(arrays(5), 2, epochs=None, shuffle=False)
    assert [np.asarray(next(stream).y).tolist() for _ in range(4)] == [[0, 1], [2, 3], [4, 4], [0, 1]]
    assert stream.epoch == 1
    with pytest.raises(TypeError, match="no end"):
        len(stream)
    stream.set_state(stream.get_state() | {"position": 3_000_002})
    assert np.asarray(next(stream).y).tolist() == [4, 4]
    stream.close()


def test_a_source_of_trees_and_placement_over_devices():
    class Pairs:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return {"a": np.full(3, index), "b": float(index)}, (index, index % 2)

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batches = list(jn.data.stream(Pairs(), 4, shuffle=False, device=over))
    assert [batch.x["a"].shape for batch in batches] == [(4, 3), (4, 3)]
    assert all(leaf.sharding == over for leaf in jax.tree.leaves(batches))
    np.testing.assert_array_equal(batches[1].x["b"], [4.0, 5.0, 4.0, 5.0])
    np.testing.assert_array_equal(batches[1].y[1], [0, 1, 0, 1])
    np.testing.assert_array_equal(batches[1].weights, [1.0, 1.0, 0.0, 0.0])


def test_sequences_of_unequal_length():
    x = jn.Padded(np.arange(30, dtype=np.float32).reshape(5, 3, 2), np.array([1, 3, 2, 3, 1]))
    batch = next(jn.data.stream((x, np.arange(5)), 2))
    np.testing.assert_array_equal(batch.x.values, x.values[np.asarray(batch.y)])
    np.testing.assert_array_equal(batch.x.lengths, x.lengths[np.asarray(batch.y)])


def test_a_file_mapped_into_memory(tmp_path):
    x, y = arrays(9)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for batch in jn.data.stream((mapped, y), 4):
        np.testing.assert_array_equal(batch.x, x[np.asarray(batch.y)])


def test_workers_are_sent_where_a_mapped_file_lies(tmp_path):
    x, y = arrays(20)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for part, sent in [(mapped, True), (mapped[3:15], True), (mapped[3:][2:9], True), (mapped[::2], False)]:
        pair = Arrays((part, y[: len(part)]))
        state = pair.__getstate__()["data"][0]
        assert isinstance(state, partial) == sent
        other = copy.copy(pair)  # by way of its state
        np.testing.assert_array_equal(other.data[0], part)
        np.testing.assert_array_equal(other[np.array([2, 0])][0], part[[2, 0]])


@pytest.mark.promotes
def test_training_on_a_stream_equals_training_on_its_batches():
    x = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    net, adam = jn.dense(2), optax.adam(0.1)
    step = jax.jit(jn.train.make_train_step(net, jn.objective(jn.losses.cross_entropy), adam))

    def learn(batches) -> jn.train.TrainState:
        run = jn.train.start(net, adam, x[:1], key=jax.random.key(0))
        for batch in batches:
            run, _, _ = step(run, batch)
        return run

    run = learn(jn.data.stream((x, y), 4, seed=1, epochs=2))
    same_order = jn.data.stream(arrays(10), 4, seed=1, epochs=2)
    order = [number for batch in seen(same_order) for number in batch]
    by_hand = []
    for epoch in (order[:10], order[10:]):
        for rows in (epoch[:4], epoch[4:8], epoch[8:] + epoch[:2]):
            weights = jnp.ones(4).at[2:].set(0.0) if rows[2:] == epoch[:2] else jnp.ones(4)
            by_hand.append(jn.train.Batch(jnp.asarray(x[rows]), jnp.asarray(y[rows]), weights))
    want = learn(by_hand)
    assert int(run.step) == 6
    for leaf, wanted in zip(jax.tree.leaves(run.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (arrays(0), {}, "at least one example"),
        (arrays(3), {}, "a batch no larger than the data, got 4 for 3"),
        ((arrays(5)[0], arrays(4)[1]), {}, r"as many inputs as targets, got arrays \[\(5, 2\), \(4,\)\]"),
        ((np.ones(()), np.ones(())), {}, "examples along the first axis"),
        ((np.ones(4),), {}, "a pair of arrays"),
        (arrays(5), {"batch_size": 0}, "batch_size ≥ 1"),
        (arrays(5), {"epochs": 0}, "epochs ≥ 1"),
        (arrays(5), {"workers": -1}, "workers"),
        (arrays(5), {"threads": -1}, "threads"),
    ],
)
def test_stream_rejects(source, options, words):
    with pytest.raises(jn.NetError, match=f"stream expects .*{words}"):
        jn.data.stream(source, **({"batch_size": 4} | options))


def test_an_example_that_is_no_pair():
    with pytest.raises(jn.NetError, match=r"stream expects examples \(x, y\), got int"):
        next(jn.data.stream([1, 2, 3], 2))  # pyright: ignore


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("ahead", [0, 3])
def test_a_damaged_example_is_met_when_it_is_due_and_can_be_passed_over(ahead, threads):
    class Damaged:
        def __len__(self):
            return 10

        def __getitem__(self, index):
            if index == 5:
                raise OSError("bad sector")
            return index, index

    stream = jn.data.stream(Damaged(), 2, shuffle=False, ahead=ahead, threads=threads)
    assert [np.asarray(next(stream).y).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    for _ in range(2):
        with pytest.raises(jn.NetError, match=r"^stream can't read example 5: OSError: bad sector$"):
            next(stream)
    assert stream.get_state()["position"] == 2
    stream.set_state(stream.get_state() | {"position": 3})
    assert seen(stream) == [[6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "with seed=0, got one with 1"),
        ({"batch_size": 3}, "with batch_size=2, got one with 3"),
        ({"examples": 7}, "with examples=5, got one with 7"),
        ({"position": -1}, "position ≥ 0, got -1"),
        ({"position": None}, "position ≥ 0, got None"),
    ],
)
def test_a_position_of_another_stream_is_named(change, words):
    stream = jn.data.stream(arrays(5), 2)
    with pytest.raises(jn.NetError, match=f"stream expects a? ?.*{words}"):
        stream.set_state(stream.get_state() | change)


def test_each_loop_is_a_pass_in_an_order_of_its_own():
    """Three loops over one epoch are one loop over three; a loop goes on where another broke off."""
    stream = jn.data.stream(arrays(10), 4, seed=3)
    assert [sum(1 for _ in stream) for _ in range(3)] == [3, 3, 3]
    stream = jn.data.stream(arrays(10), 4, seed=3)
    assert [*seen(stream), *seen(stream), *seen(stream)] == seen(jn.data.stream(arrays(10), 4, seed=3, epochs=3))
    assert next(stream, None) is None
    assert len(stream) == 0
    first = next(iter(stream))
    assert (len(stream), stream.epoch) == (2, 3)
    assert len([first, *stream]) == 3
    assert stream.get_state()["position"] == 12


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_position_in_a_later_pass_is_gone_on_from(epochs):
    first = jn.data.stream(arrays(10), 4, epochs=epochs)
    list(first)
    taken = [next(iter(first)) for _ in range(2)]
    again = jn.data.stream(arrays(10), 4, epochs=epochs)
    again.set_state(first.get_state())
    assert len(again) == len(first) == 3 * epochs - len(taken)
    assert seen(again) == seen(first)
    again.set_state(first.get_state())  # where a run was over, it is over when it goes on
    assert [len(list(again)) for _ in range(2)] == [0, 3 * epochs]


class Pairs:
    """Examples that a function makes of their numbers."""

    def __init__(self, make, length: int = 8) -> None:
        self.make, self.length = make, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        return self.make(index)


def odd_width(index: int) -> tuple:
    return np.zeros(3 if index == 5 else 2), index


def broken(index: int) -> tuple:
    return np.zeros(2)[index - 4 if index > 5 else 0], index


def fussy(generator: np.random.Generator, example: tuple) -> tuple:
    if example[1] == 6:
        raise StopIteration
    return example


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (broken, {}, "can't read example 6: IndexError: index 2 is out of bounds"),
        (lambda index: (index, index), {"transforms": [fussy]}, "can't transform example 6: StopIteration: $"),
        (odd_width, {}, r"shape and type, got x float64 \(3,\) in example 5, and x float64 \(2,\) in example 4$"),
        (odd_width, {"batch_size": 1}, r"got x float64 \(1, 3\) in the batch of example 5, and .* \(1, 2\) before"),
        (
            lambda index: ({"a": 1, "b" if index == 7 else "c": 1}, 0),
            {},
            "got x/b int64 .* in example 7, and x/c int64 .* 4",
        ),
        (lambda index: (np.ones(2, "u1" if index == 3 else "f4"), 0), {}, "x uint8 .* 3, and x float32 .* 0"),
        (
            lambda index: (1, 2, 3)[: 3 if index == 1 else 2],
            {},
            "got weight one number in example 1, and less in example 0",
        ),
        (lambda index: index if index == 3 else (1, 2), {}, r"expects examples \(x, y\), got int for example 3"),
    ],
)
def test_an_example_that_is_not_like_the_others_is_named(make, options, words):
    for threads in (0, 2):
        stream = jn.data.stream(Pairs(make), **{"batch_size": 4, "shuffle": False, "threads": threads, **options})
        with pytest.raises(jn.NetError, match=f"^stream .*{words}"):
            list(stream)


def test_weights_may_be_of_several_types():
    source = Pairs(lambda index: (index, index, 1 if index % 2 else np.float32(0.5)))
    stream = jn.data.stream(source, 4, shuffle=False)
    np.testing.assert_array_equal(next(stream).weights, np.array([0.5, 1.0, 0.5, 1.0], np.float32))
    assert stream.reading.weighted  # so batch norm follows the weights


@pytest.mark.slow
def test_workers_name_an_example_too():
    stream = jn.data.stream(Pairs(broken), 4, shuffle=False, workers=1)
    with pytest.raises(jn.NetError, match=r"^stream can't read example 6: IndexError"):
        list(stream)
    stream.close()


def noisier(generator: np.random.Generator, example: tuple) -> tuple:
    return example[0] + 2 * generator.standard_normal(2).astype(np.float32), example[1]


noisier.__qualname__ = "jitter"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row": 0}, "source=CRC-32 of 20 examples .*leave 'source' out"),
        ({"row": 11}, "source=CRC-32 of 20 examples .*leave 'source' out"),
        ({"transforms": [noisier]}, "transforms=jitter, CRC-32 .*leave 'transforms' out"),
        ({"transforms": []}, "transforms=none, got one with jitter, CRC-32"),
        ({"transforms": [jitter, jitter]}, "transforms=jitter, jitter, CRC-32"),
    ],
)
def test_a_position_in_another_source_is_refused(change, words):
    def made(row: int | None = None, transforms=(jitter,)) -> jn.data.Stream:
        x, y = arrays(20)
        if row is not None:
            x[row, 1] += 1
        return jn.data.stream((x, y), 4, transforms=list(transforms))

    state = json.loads(json.dumps(made().get_state()))
    made().set_state(state)
    other = made(**change)
    with pytest.raises(jn.NetError, match=f"stream expects the position of a stream with {words}"):
        other.set_state(state)
    other.set_state({name: state[name] for name in state if name not in ("source", "transforms")})


def test_what_tells_a_source_apart_is_cheap_and_takes_what_varies():
    asked: list[int] = []
    source = Pairs(lambda index: (asked.append(index), (index, index))[1], 1000)
    stream = jn.data.stream(source, 10)
    state = stream.get_state()
    assert stream.again(3).get_state() == state | {"position": 3}
    assert sorted({*asked}) == [0, 143, 285, 428, 571, 714, 856, 999]
    assert len(asked) == 2 * 8
    moved = Pairs(lambda index: (index, index + (index == 571)), 1000)
    assert jn.data.stream(moved, 10).get_state() != state
    generator = np.random.default_rng()  # as a source that augments by a generator of its own
    varying = [jn.data.stream(Pairs(lambda index: (generator.random(), index)), 4).get_state() for _ in range(2)]
    assert varying[0] == varying[1]
    assert varying[0]["source"] == "CRC-32 of 8 examples that vary"
    jn.data.stream(Pairs(broken), 4).get_state()  # an example that can't be read is no hindrance


def test_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnets\[stream\]'"):
        jn.data.stream(arrays(5), 2)
