"""A run as a pure function: its steps, its epochs, and three ways to run it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers, variables, witness

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(5)
N = 10
X, Y = floats(N, 4), integers(N, high=3)
OBJECTIVE = jn.objective(jn.losses.cross_entropy)
ACCURACY = {"accuracy": jn.metrics.accuracy}


def seen_metric(n: int = N) -> jn.metrics.Metric:
    """Count how often each example, known by its target, had weight."""

    def measure(outputs, targets, weights=None):
        assert weights is not None
        return (weights[:, None] * jax.nn.one_hot(targets, n)).sum(0)

    return jn.metrics.Metric(measure, lambda sums: sums, "seen")


def identify(outputs, targets):
    return (outputs**2).sum(-1)


def program(net: jn.Net | None = None, **options) -> jn.train.Program:
    defaults: dict[str, Any] = {"epochs": 3, "batch_size": 4, "metrics": ACCURACY, "validation": (X[:3], Y[:3])}
    defaults["optimizer"] = optax.adam(0.1)
    return jn.train.program(net or jn.dense(3), OBJECTIVE, data=(X, Y), **(defaults | options))


def regular() -> jn.Net:
    # A bias in front of a norm has a gradient of rounding errors alone, which Adam makes large.
    return jn.serial(jn.dense(5, use_bias=False), jn.batch_norm(), jax.nn.relu, jn.dropout(0.2), out=jn.dense(3))


def equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = (
            jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf for leaf in (a, b)
        )
        np.testing.assert_array_equal(a, b)


def test_gradient_descent_follows_pytorch():
    """Twenty full-batch steps with momentum and a penalty, parameter for parameter."""
    kernel, bias = floats(4, 3, seed=1), floats(3, seed=2)

    def torch_run():
        import torch

        linear = torch.nn.Linear(4, 3)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias))
        sgd = torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for _ in range(20):
            sgd.zero_grad()
            fit = torch.nn.functional.cross_entropy(linear(torch.from_numpy(X)), torch.from_numpy(Y).long())
            loss = fit + 0.01 * (linear.weight**2).sum()
            loss.backward()
            sgd.step()
            losses.append(loss.item())
        return {"kernel": linear.weight.detach().numpy().T, "bias": linear.bias.detach().numpy(), "losses": losses}

    want = witness("train/sgd_momentum_l2", torch_run)
    net, sgd = jn.dense(3), optax.sgd(0.1, momentum=0.9)
    objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(0.01))
    step = jax.jit(jn.train.make_train_step(net, objective, sgd))
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    run = jn.train.TrainState(params, {}, sgd.init(params), KEY, jnp.int32(0), failed=jnp.int32(-1))
    losses = []
    for _ in range(20):
        run, _, parts = step(run, jn.train.Batch(jnp.asarray(X), jnp.asarray(Y), jnp.ones(N)))
        losses.append(float(parts["loss"]))
    np.testing.assert_allclose(run.params["kernel"], want["kernel"], atol=2e-6)
    np.testing.assert_allclose(run.params["bias"], want["bias"], atol=2e-6)
    np.testing.assert_allclose(losses, want["losses"], rtol=2e-6)
    assert int(run.step) == 20


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, None])
@pytest.mark.slow_cases("1", "3", "10", "None")
def test_each_example_counts_once_an_epoch(batch_size: int | None):
    one = jn.train.program(
        jn.dense(2),
        jn.objective(identify),
        optax.sgd(0.0),
        (X, np.arange(N)),
        epochs=2,
        batch_size=batch_size,
        metrics={"seen": seen_metric()},
        validation=(X[:7], np.arange(7)),
    )
    run, history = jax.jit(one)(KEY)
    np.testing.assert_array_equal(history["seen"], np.ones((2, N)))
    np.testing.assert_array_equal(history["validation/seen"], np.tile([1.0] * 7 + [0.0] * 3, (2, 1)))
    assert int(run.step) == 2 * -(-N // (batch_size or N))
    # At learning rate 0 the mean over the epoch is the mean over the data, whatever the last batch holds.
    outputs = X @ np.asarray(run.params["kernel"])
    np.testing.assert_allclose(history["loss"], [(outputs**2).sum(-1).mean()] * 2, rtol=1e-5)


def test_order_differs_between_epochs_and_keys():
    orders = []

    def spy(outputs, targets):
        jax.debug.callback(lambda t: orders.append(tuple(np.asarray(t).tolist())), targets, ordered=True)
        return outputs.sum(-1)

    one = jn.train.program(jn.dense(2), jn.objective(spy), optax.sgd(0.0), (X, np.arange(N)), epochs=2, batch_size=N)
    for key in (0, 1):
        jax.block_until_ready(jn.train.run(one, key=jax.random.key(key)))
    jax.effects_barrier()
    assert len(set(orders)) == len(orders) == 4
    assert all(sorted(order) == list(range(N)) for order in orders)


@pytest.mark.parametrize("net", [jn.dense(3), regular()], ids=["dense", "regular"])
@pytest.mark.slow_cases("regular")
def test_fit_equals_program_to_the_bit(net: jn.Net):
    one = program(net)
    run, history = jax.jit(lambda program, key: program(key))(one, KEY)
    fitted, own_history = jn.train.run(one, key=KEY)
    equal(fitted, run)
    equal(own_history, jax.device_get(history))
    assert history["validation/accuracy"].shape == (3,)


@pytest.mark.slow
def test_a_hundred_seeds_are_one_vmap():
    one = program(regular())
    keys = jax.random.split(KEY, 3)
    runs, histories = jax.vmap(one)(keys)
    for k in range(3):
        run, history = one(keys[k])
        for a, b in zip(jax.tree.leaves(runs.params), jax.tree.leaves(run.params), strict=True):
            np.testing.assert_allclose(a[k], b, atol=1e-5)
        np.testing.assert_allclose(histories["loss"][k], history["loss"], atol=1e-5)


@pytest.mark.slow
def test_hyperparameters_may_be_traced_and_differentiated():
    def final_loss(rate, strength):
        objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(strength))
        one = jn.train.program(jn.dense(3), objective, optax.sgd(rate), (X, Y), epochs=2, batch_size=5)
        return one(KEY)[1]["loss"][-1]

    with jax.enable_x64(True):
        gradient = jax.grad(final_loss, argnums=(0, 1))(0.1, 0.01)
        for place, argument in enumerate((0.1, 0.01)):
            at = partial(
                lambda value, place: final_loss(*(value if k == place else a for k, a in enumerate((0.1, 0.01)))),
                place=place,
            )
            slope = (at(argument + 1e-3) - at(argument - 1e-3)) / 2e-3
            np.testing.assert_allclose(gradient[place], slope, rtol=2e-3)


def test_data_travel_as_arguments():
    big = (np.zeros((5000, 4), np.float32), np.zeros(5000, np.int32))
    one = jn.train.program(jn.dense(3), OBJECTIVE, optax.sgd(0.1), big, epochs=1)
    closed = jax.make_jaxpr(lambda program, key: program(key))(one, KEY)
    assert sum(np.size(const) for const in closed.consts) < 100


def test_augmentation_reaches_training_alone():
    keys = []

    def spoil(key, x):
        jax.debug.callback(lambda data: keys.append(tuple(np.asarray(data).tolist())), jax.random.key_data(key))
        return x + jnp.nan

    options = jn.train.Options(halt_on_nonfinite=False)
    one = program(augment=spoil, epochs=2, batch_size=5, optimizer=optax.sgd(0.0), options=options)
    _, history = jax.jit(one)(KEY)
    jax.effects_barrier()
    assert np.isnan(history["loss"]).all()
    assert len(keys) == len(set(keys)) == 2 * N


@pytest.mark.parametrize("size", [1, 3, 7, 10, 64])
@pytest.mark.slow_cases("1", "7", "10", "64")
def test_evaluation_is_exact_for_any_batch_size(size: int):
    net = regular()
    params, state = variables(net, X)
    state = jax.tree.map(np.abs, state)
    metrics = ACCURACY | {"loss of one": jn.metrics.mean(jn.losses.cross_entropy)}
    objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(0.1, on="**/kernel"))
    logits = np.asarray(jax.jit(net.apply)(params, state, X)[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    data_loss = -log_p[np.arange(N), Y].mean()
    penalty = 0.1 * sum(float((params[name]["kernel"] ** 2).sum()) for name in ("0", "out"))
    got = jn.evaluate(net, (params, state), (X, Y), metrics, objective, batch_size=size)
    np.testing.assert_allclose(got["loss of one"], data_loss, rtol=2e-6)
    np.testing.assert_allclose(got["loss"], data_loss + penalty, rtol=2e-6)
    np.testing.assert_allclose(got["accuracy"], (logits.argmax(-1) == Y).mean(), rtol=1e-6)
    np.testing.assert_allclose(jn.predict(net, (params, state), X, batch_size=size), logits, atol=2e-6)


@pytest.mark.slow
def test_sequences_train_too():
    x = jn.Padded(floats(6, 5, 2), integers(6, low=1, high=6))
    net = jn.serial(jn.recurrent(jn.rnn_cell(4), return_sequences=False), jn.dense(2))
    one = jn.train.program(net, OBJECTIVE, optax.adam(0.1), (x, Y[:6] % 2), epochs=30, batch_size=4, metrics=ACCURACY)
    _, history = jn.train.run(one, key=KEY)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
