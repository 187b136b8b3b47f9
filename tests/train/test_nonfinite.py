"""The first value that is not finite is named: step, epoch, layer, example; and the run stands at its last good one."""

import importlib
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers
from tests.train.test_program import equal

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(5)
N = 8
X, Y = floats(N, 3), integers(N, high=2)
CLASSES = jn.objective(jn.losses.cross_entropy)
SQUARES = jn.objective(lambda outputs, targets: ((outputs - targets) ** 2).sum(-1))


def program(net: jn.Net, objective: Any = CLASSES, data: Any = (X, Y), rate: float = 0.1, **options: Any) -> Any:
    given: dict[str, Any] = {"epochs": 9, "batch_size": 4} | options
    return jn.train.program(net, objective, optax.sgd(rate), data, **given)


def diverge(*args: Any, **options: Any) -> tuple[jn.train.Program, jn.train.NonFiniteError]:
    """Run a program that fails, and return the program and the error."""
    one = program(*args, **options)
    with pytest.raises(jn.train.NonFiniteError) as caught:
        jn.train.run(one, key=KEY)
    return one, caught.value


def begun(one: jn.train.Program) -> jn.train.TrainState:
    """Return the state of a program that fails in its first step."""
    return replace(jax.jit(jn.train.Program.start)(one, KEY), failed=jnp.int32(0))


def at_once(*args: Any, **options: Any) -> str:
    """Return what is blamed for a program that fails in its first step."""
    one = program(*args, **options)
    return jn.train.find_nonfinite(one, begun(one))


def cut(net: jn.Net, path: str, one: jn.train.Program, run: jn.train.TrainState) -> np.ndarray:
    """Return what a layer gives in the failing step, by the network that stops there."""

    @jax.jit
    def outputs(run: jn.train.TrainState) -> jax.Array:
        x, key = one.next_batch(run).x, jax.random.fold_in(run.key, run.step)
        return net.upto(path).apply(run.params, run.state, x, key=key, train=True)[0]

    return np.asarray(outputs(run))


@pytest.mark.slow
def test_a_rate_too_large_is_blamed_on_the_layer_that_overflows_first():
    """A batch an epoch, so that a run that was stopped in time runs the very same compiled epochs."""
    net = jn.serial(hidden=jn.dense(3), relu=jax.nn.relu, middle=jn.dense(3), out=jn.dense(1))
    one, error = diverge(net, SQUARES, (X, X[:, :1]), rate=30.0, batch_size=None)
    step = int(error.state.failed)
    first = next(name for name in net.children if not np.isfinite(cut(net, name, one, error.state)).all())
    assert step > 0
    assert str(error).startswith(f"training stops at step {step} (epoch {step + 1}), where the loss is ")
    assert f"the first value that is not finite is made in {first}: the " in str(error)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(error.state.params))
    assert f"; parameters reach {largest:.3g} (" in str(error)

    stop = jn.train.Callback(on_epoch_end=lambda number, run, row: number == step - 1)
    stopped, history = jn.train.run(one, key=KEY, callbacks=[stop])
    assert int(stopped.step) == step
    equal(error.state.params, stopped.params)
    equal(error.state.opt_state, stopped.opt_state)
    np.testing.assert_array_equal(error.history["loss"][:step], history["loss"])


def test_a_logarithm_of_negative_numbers_is_named_with_what_it_got():
    net = jn.serial(fc=jn.dense(3), block=jn.serial(log=jnp.log), out=jn.dense(3))
    one = program(net, batch_size=None)
    run = begun(one)
    outputs = cut(net, "fc", one, run)
    low, high = outputs.min(), outputs.max()
    assert jn.train.find_nonfinite(one, run) == (
        "stops at step 0 (epoch 1), where the loss is nan: the first value that is not finite is made in "
        f"block/log: the log of {low:.3g} … {high:.3g} gives nan; keep its operand where it is defined, as in "
        "log(jnp.maximum(x, 1e-6))"
    )


def doubled(key: jax.Array, x: jax.Array) -> jax.Array:
    return 2 * x


FC = jn.serial(fc=jn.dense(2))


@pytest.mark.parametrize("bad", [[5], [0, 1, 6, 7]])
def test_an_example_that_is_not_finite_is_found(bad: list[int]):
    """Though the order is drawn, and examples are augmented: in the failing batch, not merely in the data."""
    data = X.copy()
    data[bad, 1] = np.inf
    one, error = diverge(FC, data=(data, Y), batch_size=2, augment=doubled, rate=0.0)
    seen = np.asarray(jax.jit(lambda one, run: one.next_batch(run).x)(one, error.state))
    there = [row for row in bad if (np.isinf(seen[:, 1]) & (seen[:, 0] == 2 * data[row, 0])).any()]
    others = ", as 4 examples have" if len(bad) > 1 else ""
    said = [
        f"example {row} of the data has a value that is not finite among its inputs{others}; leave it out or clip it"
        for row in there
    ]
    assert any(str(error).endswith(each) for each in said)


@pytest.mark.slow
def test_augmentation_is_told_from_data():
    said = at_once(jn.dense(2), augment=lambda key, x: x / 0)
    assert said.endswith(
        "augment or batch_augment puts a value that is not finite into the inputs; the data themselves are finite"
    )


@pytest.mark.slow
def test_a_gradient_alone_is_traced_back_to_its_layer():
    """|x| as √x² at 0: the value is 0, its derivative ∞ · 0; it comes with the batch that has the zeros."""
    x = X.copy()
    x[4] = 0
    net = jn.serial(fc=jn.dense(3, use_bias=False), block=jn.serial(square=jnp.square, root=jnp.sqrt), out=jn.dense(2))
    one, error = diverge(net, data=(x, Y), batch_size=2)
    step, batch = int(error.state.failed), one.next_batch(error.state)
    assert (np.asarray(batch.x) == 0).all(1).any()
    loss = CLASSES(error.state.params, cut(net, "out", one, error.state), batch.y, batch.weights)[0]
    assert str(error).startswith(
        f"training stops at step {step} (epoch {step // 4 + 1}), where the loss is {loss:.4g} and its gradient "
        "not finite: the first value that is not finite is made in the derivative of block/root: "
        "the quotient of 0.5 and 0 … "
    )
    assert "gives inf; keep the layer's input from the edge" in str(error)


def test_a_loop_names_its_turn():
    """Squared again and again, 16 passes the largest float32: 16^(2^t) ≥ 2^128 from t = 5 on, which is turn 4."""
    net = jn.serial(blocks=jn.repeat(jn.serial(square=jnp.square), 7))
    said = at_once(net, SQUARES, (np.full((4, 1), 16, np.float32), np.zeros((4, 1), np.float32)))
    assert "made in blocks/square: the square of 1.84e+19 gives inf in turn 4 of its loop; " in said


@pytest.mark.slow
def test_loops_of_unknown_length_and_branches_are_opened():
    """The same squares in a `while`; of two branches the one that was taken has the mistake."""

    def squares(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda each: each[0] < 7, lambda each: (each[0] + 1, jnp.square(each[1])), (0, x))[1]

    data = np.full((4, 1), 16, np.float32), np.zeros((4, 1), np.float32)
    assert "made in loop: the square of 1.84e+19 gives inf in turn 4 of its loop; " in at_once(
        jn.serial(loop=squares, fc=jn.dense(1)), SQUARES, data
    )
    branch = jn.serial(branch=lambda x: jax.lax.cond(x.sum() > 0, lambda x: jnp.log(-x), jnp.exp, x), fc=jn.dense(1))
    assert "made in branch: the log of -16 gives nan; keep its operand" in at_once(branch, SQUARES, data)


def test_the_objective_is_named_where_the_network_is_finite():
    said = at_once(jn.serial(fc=jn.dense(1)), jn.objective(lambda outputs, targets: jnp.log(outputs[:, 0] - 1e3)))
    assert (
        "where the loss is nan: the first value that is not finite is made in the objective: the log of -1e+03" in said
    )


@pytest.mark.slow
def test_masks_of_infinity_are_no_mistake():
    """-∞ where attention does not look; the mistake is a product further on."""
    mask = np.triu(np.full((3, 3), -np.inf, np.float32), 1)
    net = jn.serial(
        mask=lambda x: x[:, None] + mask[None],
        softmax=jax.nn.softmax,
        large=lambda x: x * 1e38 * 1e38,
        sum=lambda x: x.sum(1),
        fc=jn.dense(2),
    )
    assert "made in large: the product of 0 … 1e+38 and 1e+38 gives inf; parameters reach" in at_once(net)


@pytest.mark.slow
def test_parts_of_a_batch_and_frozen_parameters_are_replayed():
    net = jn.serial(fc=jn.dense(4), drop=jn.dropout(0.5), log=jnp.log, out=jn.dense(2))
    assert "made in log: the log of " in at_once(
        net, options=jn.train.Options(accumulate=2), freeze="fc/**", batch_size=8
    )


@pytest.mark.slow
def test_parameters_that_overflowed_before_are_named():
    net = jn.serial(fc=jn.dense(2, kernel_init=jax.nn.initializers.constant(jnp.inf)))
    assert "the parameter fc/kernel is not finite already before it; parameters reach inf (fc/kernel)" in at_once(net)


def test_a_run_without_a_mistake_has_nothing_to_blame():
    good = program(jn.dense(2))
    with pytest.raises(jn.NetError, match="finds no step that failed"):
        jn.train.find_nonfinite(good, good.start(KEY))


@pytest.mark.slow
def test_a_search_that_fails_does_not_lose_the_run(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> str:
        raise MemoryError("no room")

    monkeypatch.setattr(importlib.import_module("jaxnets.train.loop"), "find_nonfinite", fail)
    data = np.where(np.arange(N)[:, None] < 9, np.float32(np.inf), X)
    with pytest.raises(jn.train.NonFiniteError, match=r"stops at step 0, at a value .* failed: no room") as caught:
        jn.train.run(program(FC, data=(data, Y), batch_size=2, augment=doubled, rate=0.0), key=KEY)
    assert np.isfinite(caught.value.state.params["fc"]["kernel"]).all()
