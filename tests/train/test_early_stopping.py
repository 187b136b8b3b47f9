"""Early stopping inside a pure run, and runs broken off from outside."""

import os
import signal
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.train.epoch import halted
from tests.oracle import floats, integers
from tests.train.test_program import equal

pytestmark = pytest.mark.promotes
KEYS = jax.random.split(jax.random.key(3), 4)
X, Y = floats(12, 6), integers(12, high=2)
HELD = floats(40, 6, seed=1), integers(40, high=2, seed=1)  # noise: what is learned can only hurt
whole = jax.jit(lambda program, key: program(key))


SMALL = jn.dense(2)
REGULAR = jn.serial(jn.dense(8, use_bias=False), jn.batch_norm(), jnp.tanh, jn.dense(2))


@cache  # so that the same program compiles once
def program(stopping: Any = None, net: jn.Net = SMALL, **options: Any) -> jn.train.Program:
    objective = jn.objective(jn.losses.cross_entropy)
    given: dict[str, Any] = {"epochs": 12, "batch_size": 6, "validation": HELD, "stopping": stopping} | options
    return jn.train.program(net, objective, optax.sgd(0.5), (X, Y), **given)


RULE = jn.train.early_stopping("validation/loss", patience=2)


def by_hand(losses: np.ndarray, patience: int, min_delta: float = 0.0) -> tuple[int, int]:
    """Return the best epoch and how many ran."""
    best, place = np.inf, -1
    for number, loss in enumerate(losses):
        if loss < best - min_delta:
            best, place = loss, number
        if number - place >= patience:
            return place, number + 1
    return place, len(losses)


@pytest.mark.parametrize("min_delta", [0.0, 0.02])
@pytest.mark.slow_cases("0.02", "0.0")
def test_the_best_is_found_and_restored_in_all_ways(min_delta: float):
    free = program(net=REGULAR)
    rule = jn.train.early_stopping("validation/loss", patience=2, min_delta=min_delta)
    runs, histories = jax.jit(jax.vmap(program(rule, REGULAR)))(KEYS)
    for k, key in enumerate(KEYS):
        _, unstopped = whole(free, key)
        best, ran = by_hand(np.asarray(unstopped["validation/loss"]), 2, min_delta)
        assert ran < 12
        run, history = whole(program(rule, REGULAR), key)
        np.testing.assert_array_equal(history["loss"][:ran], unstopped["loss"][:ran])
        assert np.isnan(history["loss"][ran:]).all()
        assert int(run.stopping.best_epoch) == best
        assert int(run.step) == 2 * ran
        fitted, seen = jn.train.run(free, key=key, callbacks=[rule])
        equal(fitted, run)
        assert len(seen["loss"]) == ran
        np.testing.assert_array_equal(seen["loss"], history["loss"][:ran])
        value = jn.evaluate(free.recipe.net, run, HELD, {}, jn.objective(jn.losses.cross_entropy))["loss"]
        np.testing.assert_allclose(value, unstopped["validation/loss"][best], rtol=1e-6)
        np.testing.assert_allclose(histories["loss"][k, :ran], history["loss"][:ran], atol=1e-5)
        trial = jax.tree.map(lambda leaf, k=k: leaf[k], runs.params)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), trial, run.params)


FREE = program(ema_decay=0.5)


@pytest.fixture(scope="module")
def free() -> tuple[list[jn.train.TrainState], dict[str, np.ndarray]]:
    """Return the state after each epoch, and the history, of a run that nothing stops."""
    states: list[jn.train.TrainState] = []
    keep = jn.train.Callback(on_epoch_end=lambda number, run, row: states.append(jax.device_get(run)))
    _, history = jn.train.run(FREE, key=KEYS[0], callbacks=[keep])
    return states, history


def test_the_last_stays_where_nothing_is_to_be_restored(free: Any):
    """By a metric, which rises."""
    rule = jn.train.early_stopping("accuracy", patience=2, restore=False)
    last, history = whole(program.__wrapped__(rule, metrics={"accuracy": jn.metrics.accuracy}), KEYS[0])
    seen = np.asarray(history["accuracy"])
    assert int(last.stopping.best_epoch) == np.nanargmax(seen)
    assert float(last.stopping.best) == np.nanmax(seen)
    ran = int(last.step) // 2
    assert ran == np.nanargmax(seen) + 3 < 12
    equal(last.params, free[0][ran - 1].params)
    assert bool(halted(last))
    assert last.stopping.kept is None


@pytest.mark.slow
def test_averages_are_restored_too(free: Any):
    states, unstopped = free
    rule = jn.train.early_stopping("ema/validation/loss", patience=3)
    run, history = whole(program(rule, ema_decay=0.5), KEYS[0])
    best, ran = by_hand(unstopped["ema/validation/loss"], 3)
    assert int(run.stopping.best_epoch) == best < ran - 1
    np.testing.assert_array_equal(history["ema/validation/loss"][:ran], unstopped["ema/validation/loss"][:ran])
    equal((run.params, run.ema), (states[best].params, states[best].ema))


MISTAKES = {
    "unknown": (lambda: jax.eval_shape(
                    program(jn.train.early_stopping("validation/los", patience=1, mode="min")), KEYS[0]),
                "early_stopping finds no scalar 'validation/los' in the history; it has .*validation/loss"),
    "mode": (lambda: jn.train.early_stopping("loss", patience=1, mode="most"),  # pyright: ignore
             "early_stopping expects mode 'min' or 'max' for 'loss', got 'most'"),
    "undeclared": (lambda: program(jn.train.early_stopping("whim", patience=1)),
                   "early_stopping expects mode 'min' or 'max' for 'whim': nothing declares"),
    "patience": (lambda: jn.train.early_stopping("loss", patience=0), "early_stopping expects patience ≥ 1, got 0"),
    "delta": (lambda: jn.train.early_stopping("loss", patience=1, min_delta=-1), "expects min_delta ≥ 0"),
    "two": (lambda: jn.train.run(program(RULE), key=KEYS[0], callbacks=[RULE]), "run gets several rules"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str):
    call, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        call()


def test_control_c_ends_after_the_epoch_and_returns_what_was_computed(free: Any):
    ends: list[Any] = []

    def interrupt(number: int, run: Any, row: Any) -> None:
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)

    watch = jn.train.Callback(
        on_epoch_end=interrupt, on_finish=lambda number, run: ends.append(number), on_end=lambda: ends.append("end")
    )
    run, history = jn.train.run(FREE, key=KEYS[0], callbacks=[watch])
    assert ends == [3, "end"]
    assert len(history["loss"]) == 3
    equal(run, free[0][2])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_control_c_breaks_it_off():
    def interrupt(number: int, run: Any, row: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        jn.train.run(FREE, key=KEYS[0], callbacks=[jn.train.Callback(on_epoch_end=interrupt)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_callback_may_end_the_run_and_another_go_on(free: Any):
    rows: list[Any] = []

    def keep(number: int, run: Any, row: Any) -> bool:
        rows.append((jax.device_get(run.params), row))
        return number == 3

    early, history = jn.train.run(FREE, key=KEYS[0], callbacks=[jn.train.Callback(on_epoch_end=keep)])
    assert len(history["loss"]) == 4
    copies = [{name: np.asarray(values[k]) for name, values in history.items()} for k in range(4)]
    again = jn.train.Callback(restore=lambda program, key: (early, copies))
    run, joined = jn.train.run(FREE, key=KEYS[0], callbacks=[again])
    equal(run, free[0][-1])
    equal(joined, free[1])
