"""Several devices: each computes its share of a batch, results are those of one, and parameters stay where they lie."""

import re
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxnets as jn
from jaxnets.train.program import compiled_epoch
from tests.oracle import floats, integers, variables

KEY = jax.random.key(0)
X, Y = floats(512, 16), integers(512, high=3)
NET = jn.serial(hidden=jn.dense(48), relu=jax.nn.relu, out=jn.dense(3))
OBJECTIVE = jn.objective(jn.losses.cross_entropy)
METRICS = {"accuracy": jn.metrics.accuracy}


def mesh(kind: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh((4,), ("data",), axis_types=(kind,))


def split(*arrays: Any, kind: AxisType = AxisType.Auto) -> Any:
    return jax.device_put(arrays, NamedSharding(mesh(kind), P("data")))


def program(data: Any, net: jn.Net = NET, **options: Any) -> jn.train.Program:
    options = {"epochs": 2, "batch_size": 256, "metrics": METRICS} | options
    return jn.train.program(net, OBJECTIVE, optax.sgd(0.1, momentum=0.9), data, **options)


def rows(traced: Any) -> set[int]:
    """Return how many rows of the hidden layer one device computes at once."""
    text = traced.lower().compile().as_text()
    return {int(n) for n in re.findall(r"= f32\[(\d+),48\]\S* (?:dot|custom-call)\(", text)} - {16, 3}  # of kernels


@pytest.mark.promotes
@pytest.mark.parametrize(("parts", "share"), [(1, 64), (2, 32)])
@pytest.mark.slow_cases("2-32")
def test_each_device_computes_its_share_of_a_batch(parts: int, share: int):
    one = program(split(X, Y), options=jn.train.Options(accumulate=parts), validation=split(X[:256], Y[:256]))
    run = jax.eval_shape(one.start, KEY)
    assert rows(compiled_epoch(one, run).trace(run, one.train, one.validation)) == {64, share}
    whole = program((X, Y), options=jn.train.Options(accumulate=parts), validation=(X[:256], Y[:256]))
    sharded = whole.recipe, None, run, one.train, one.validation  # rows as before: what the test would see
    assert rows(jax.jit(jn.train.Recipe.run_epoch, static_argnums=(0, 1)).trace(*sharded)) == {256, 256 // parts}


@pytest.mark.promotes
@pytest.mark.slow
def test_the_results_are_those_of_one_device():
    net = jn.serial(hidden=jn.dense(8), bn=jn.batch_norm(), relu=jax.nn.relu, out=jn.dense(3))
    kind = AxisType.Explicit  # what jax.make_mesh gives
    weights = np.linspace(0, 1, 200, dtype=np.float32)
    data, held_out = (X[:200], Y[:200], weights), (X[200:324], Y[200:324])
    options = {
        "batch_size": 48,
        "options": jn.train.Options(accumulate=2),
        "ema_decay": 0.9,
        "augment": lambda key, x: x + jax.random.normal(key),
    }
    found, rows_found = jn.train.run(program(data, net, validation=held_out, **options), key=KEY)
    shared = program(split(*data, kind=kind), net, validation=split(*held_out, kind=kind), **options)
    run, history = jn.train.run(shared, key=KEY)
    assert set(history) == set(rows_found)
    for name, values in history.items():
        np.testing.assert_allclose(values, rows_found[name], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(run.params), jax.tree.leaves(found.params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    params, state = jax.device_get((found.params, found.state))
    both = held_out, split(*held_out, kind=kind)
    got, want = (jn.evaluate(net, (params, state), each, METRICS, OBJECTIVE, batch_size=30) for each in both)
    np.testing.assert_allclose(got["loss"], want["loss"], rtol=1e-5)
    assert got["accuracy"] == want["accuracy"]
    got, want = (jn.predict(net, (params, state), x, batch_size=30) for x, _ in both)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_rows_that_do_not_divide_are_an_error_with_the_numbers_that_do():
    message = r"^program expects a batch that divides over the 4 devices its data lie on, got 30; take 28 or 32, or"
    with pytest.raises(jn.NetError, match=message):
        program(split(X, Y), batch_size=30)
    with pytest.raises(jn.NetError, match=r"expects a part of a batch that divides over the 4 .*, got 2; take 4, or"):
        program(split(X, Y), batch_size=8, options=jn.train.Options(accumulate=4))
    with pytest.raises(
        jn.NetError, match=r"^stream expects a batch that divides over the 4 devices .* got 6; take 4 or 8"
    ):
        jn.data.stream((X, Y), 6, device=NamedSharding(mesh(), P("data")))
    program(jax.device_put((X, Y), NamedSharding(mesh(), P())), batch_size=30)  # whole on each device


@pytest.mark.promotes
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["automatic", "explicit"])
@pytest.mark.slow
def test_parameters_that_lie_on_several_devices_stay_there(kind: AxisType):
    grid = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)
    params, _ = variables(NET, X, scale=0.3)
    want, _ = jn.train.run(program((X, Y), jn.train.pretrained(NET, params), metrics={}), key=KEY)
    columns = NamedSharding(grid, P(None, "model"))
    params["hidden"]["kernel"] = jax.device_put(params["hidden"]["kernel"], columns)
    data = jax.device_put((X, Y), NamedSharding(grid, P("data"))) if kind is AxisType.Auto else (X, Y)
    seen = []

    def look(number: int, run: jn.train.TrainState, row: Any) -> None:
        seen.append(run.params["hidden"]["kernel"].sharding.spec)

    run, _ = jn.train.run(
        program(data, jn.train.pretrained(NET, params), metrics={}),
        key=KEY,
        callbacks=[jn.train.Callback(on_epoch_end=look)],
    )
    assert [*seen, run.opt_state[0].trace["hidden"]["kernel"].sharding.spec] == [columns.spec] * 3
    assert run.params["out"]["kernel"].sharding.is_fully_replicated
    for ours, theirs in zip(jax.tree.leaves(run.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.promotes
@pytest.mark.slow
def test_a_sweep_takes_data_that_lie_on_several_devices():
    def trial(data: Any) -> Any:
        return lambda hp: jn.train.program(NET, OBJECTIVE, optax.sgd(hp["lr"]), data, epochs=1, batch_size=128)

    got, want = (jn.sweeps.sweep(trial(data), grid={"lr": [0.1, 0.2]}, seeds=2) for data in (split(X, Y), (X, Y)))
    np.testing.assert_allclose(got.history["loss"], want.history["loss"], rtol=1e-4)
