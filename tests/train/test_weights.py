"""Batch statistics go by the examples' weights: what has weight 0 is not there."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.core.example_weights import example_weights
from tests.oracle import floats, integers, variables

KEY = jax.random.key(2)
N = 7
X, Y = floats(N, 4), integers(N, high=3)
OUT = np.array([0, 1, 1, 1, 0, 1, 1], np.float32)  # two examples left out
KEPT = OUT > 0
FAR = np.where(KEPT[:, None], X, 1e4).astype(np.float32)
OBJECTIVE = jn.objective(jn.losses.cross_entropy)


def close(a: Any, b: Any, atol: float = 2e-6) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5), a, b)


def weighed(net: jn.Net, params: Any, state: Any, x: Any, weights: Any) -> Any:
    """Return outputs and state, and the gradient of a weighted sum of outputs, jitted."""

    @jax.jit
    def both(params: Any, weights: Any) -> Any:
        def loss(params: Any) -> Any:
            with example_weights(weights):
                y, new = net.apply(params, state, x, key=KEY, train=True)
            y = y.values if isinstance(y, jn.Padded) else y
            rows = jnp.where(jnp.ones(len(y)) > 0 if weights is None else weights > 0, 1.0, 0.0)
            return (jnp.sin(y) * rows.reshape(-1, *(1,) * (y.ndim - 1))).sum(), (y, new)

        return jax.grad(loss, has_aux=True)(params)

    grads, (y, new) = both(params, weights)
    return grads, y, new


def begun(net: jn.Net, x: Any) -> tuple[Any, Any]:
    """Return parameters, and a state whose variances are positive."""
    params, state = variables(net, x)
    return params, jax.tree.map(np.abs, state)


def test_rows_of_weight_0_are_not_in_running_averages():
    """The running mean is that of the other rows, and no 5,000."""
    net = jn.serial(bn=jn.batch_norm(decay=0.0), out=jn.dense(3))
    one = jn.train.program(net, OBJECTIVE, optax.sgd(0.1), (FAR, Y, OUT), epochs=1, batch_size=None)
    run, _ = jax.jit(one)(KEY)
    close(run.state["bn"], {"mean": X[KEPT].mean(0), "var": X[KEPT].var(0, ddof=1)})


IMAGES = np.where(KEPT[:, None, None, None], floats(N, 3, 3, 2), np.inf).astype(np.float32)
LENGTHS = np.array([3, 1, 3, 2, 2, 0, 3])
NETS: dict[str, tuple[jn.Net, Any]] = {
    "dense": (jn.serial(jn.dense(5), jn.batch_norm(), jnp.tanh, jn.batch_norm(use_scale=False)), FAR),
    "images, infinite": (jn.batch_norm(), IMAGES),
    "repeat": (jn.repeat(jn.serial(fc=jn.dense(4), bn=jn.batch_norm()), 3), FAR),
    "remat": (jn.remat(jn.serial(jn.dense(5), jn.batch_norm())), FAR),
    "ensemble": (jn.ensemble(jn.serial(jn.dense(5), jn.batch_norm()), 2), FAR),
    "padded": (jn.batch_norm(), jn.Padded(np.where(KEPT[:, None, None], floats(N, 3, 2), 1e4), LENGTHS)),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.slow_cases("images, infinite", "repeat", "remat", "ensemble")
def test_weight_0_is_not_being_there(name: str):
    """Values, gradients and running averages are those of the batch without these rows."""
    net, x = NETS[name]
    params, state = begun(net, x)
    grads, y, new = weighed(net, params, state, x, OUT)
    less = jax.tree.map(lambda leaf: np.asarray(leaf)[KEPT], x)
    want_grads, want, want_new = weighed(net, params, state, less, None)
    close(y[KEPT], want, 1e-5)
    close(grads, want_grads, 2e-5)
    close(new, want_new, 1e-5)
    assert np.abs(new[next(iter(new))]["mean"] if "mean" not in new else new["mean"]).max() > 0.001


def test_weights_are_numpys():
    """Mean and variance are those of `np.average` and `np.cov` with `aweights`, whatever the weights add up to."""
    with jax.enable_x64(True):
        x, net = X.astype(np.float64) + 50, jn.batch_norm(decay=0.0)
        params, state = {"scale": np.ones(4), "bias": np.zeros(4)}, {"mean": np.zeros(4), "var": np.ones(4)}

        @jax.jit
        def apply(weights: Any) -> Any:
            with example_weights(weights):
                return net.apply(params, state, x, train=True)

        for weights in (np.array([0, 1, 2.5, 0.2, 3, 0, 1]), np.array([0, 1, 2.5, 0.2, 3, 0, 1]) / 1e4):
            y, new = jax.device_get(apply(weights))
            mean = np.average(x, axis=0, weights=weights)
            close(new, {"mean": mean, "var": np.diag(np.cov(x.T, aweights=weights))}, 1e-12)
            deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights) + 1e-5)
            close(y[weights > 0], ((x - mean) / deviation)[weights > 0], 1e-10)


@pytest.mark.slow
def test_weights_have_derivatives():
    with jax.enable_x64(True):
        x, net = X.astype(np.float64), jn.batch_norm()
        params, state = {"scale": np.ones(4), "bias": np.zeros(4)}, {"mean": np.zeros(4), "var": np.ones(4)}

        def own(weights: Any) -> Any:
            with example_weights(weights):
                return jnp.sin(net.apply(params, state, x, train=True)[0]).sum()

        def plain(weights: Any) -> Any:
            share = (weights / weights.sum())[:, None]
            mean = (share * x).sum(0)[None]
            return jnp.sin((x - mean) / jnp.sqrt((share * (x - mean) ** 2).sum(0) + 1e-5)[None]).sum()

        weights = np.linspace(0.5, 2, N)
        derivatives = jax.jit(lambda w: [(jax.grad(f)(w), jax.hessian(f)(w)) for f in (own, plain)])
        (slope, curvature), (own_slope, own_curvature) = derivatives(weights)
        close(slope, own_slope, 1e-12)
        close(curvature, own_curvature, 1e-11)


@pytest.mark.slow
def test_rows_that_fill_up_a_batch_count_for_nothing():
    """Seven examples in batches of four: the second step is one on three."""
    net = jn.serial(fc=jn.dense(5), bn=jn.batch_norm(), out=jn.dense(3))
    one = jn.train.program(net, OBJECTIVE, optax.sgd(0.1), (X, Y), epochs=1, batch_size=4)

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs, new = net.apply(params, state, x, train=True)
            return OBJECTIVE(params, outputs, y)[0], new

        grads, new = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda own, slope: own - 0.1 * slope, params, grads), new

    run, next_batch = jax.jit(one.start)(KEY), jax.jit(one.next_batch)
    params, state = run.params, run.state
    for number, size in ((0, 4), (1, 3)):
        batch = jax.device_get(next_batch(replace(run, step=np.int32(number))))
        params, state = step(params, state, batch.x[:size], batch.y[:size])
    got, _ = jax.jit(one)(KEY)
    close(got.params, params, 1e-5)
    close(got.state, state, 1e-5)


def test_estimated_statistics_go_by_weights():
    net = jn.serial(fc=jn.dense(5), bn=jn.batch_norm())
    params, state = begun(net, X)
    estimate = partial(jn.train.estimate_statistics, net, params, state, key=KEY)
    close(estimate(FAR, weights=OUT), estimate(X[KEPT]), 1e-5)
    some = np.array([0, 0, 0, 2, 2, 1, 1], np.float32)  # a batch of which nothing counts, and two
    first, second = estimate(X[3:5]), estimate(X[5:])
    first, second = (
        jax.tree.map(lambda leaf, w=w: np.asarray(leaf) * w / 6, each) for each, w in ((first, 4), (second, 2))
    )
    rows = np.array([0, 1, 3, 4, 5, 6])
    close(estimate(X[rows], weights=some[rows], batch_size=2), jax.tree.map(np.add, first, second), 1e-5)


def test_estimated_statistics_of_many_batches():
    """A thousand times 1 after 2²⁴: in float32 alone they would be lost."""
    x = np.where(np.arange(2002)[:, None] < 2, np.float32(2**24), np.float32(1))
    net = jn.batch_norm()
    state = jn.train.estimate_statistics(net, *begun(net, x), x, key=KEY, batch_size=2)
    close(state["mean"], np.full(1, (2**24 + 1000) / 1001, np.float32), 1e-6)


def test_vectors_of_spectral_norm_move_on_instead_of_being_averaged():
    """As in a loop over the batches, from those given; the statistics behind them are means as ever."""
    layer, dense = jn.spectral_norm(jn.dense(5)), jn.dense(5)
    net = jn.serial(fc=layer, bn=jn.batch_norm(), block=jn.repeat(layer, 2))
    fixed = jn.serial(fc=dense, bn=jn.batch_norm(), block=jn.repeat(dense, 2))
    params, state = begun(net, X)
    train = jax.jit(lambda state, x: net.apply(params, state, x, train=True)[1])
    for _ in range(100):
        state = train(state, X)
    got = jn.train.estimate_statistics(net, params, state, X[:6], key=KEY, batch_size=2)
    after = state
    for batch in np.split(X[:6], 3):
        after = train(after, batch)
    for name in ("fc", "block"):
        close(got[name], after[name], 1e-6)
    # They have settled, so the first layer is the same for every batch.
    divided = params["fc"]["kernel"] / np.linalg.norm(params["fc"]["kernel"], 2)
    plain = params | {"fc": params["fc"] | {"kernel": divided}}
    want = jn.train.estimate_statistics(fixed, plain, {"bn": state["bn"]}, X[:6], key=KEY, batch_size=2)
    close(got["bn"], want["bn"], 1e-5)


@pytest.mark.slow
def test_a_net_compiled_inside_sees_the_weights_of_its_own_step():
    inner = jn.batch_norm()
    net = jn.Net(inner.init, jax.jit(inner.apply, static_argnames="train"))
    params, state = begun(inner, X)
    for weights in (OUT, None, 1 - OUT):
        close(weighed(net, params, state, FAR, weights), weighed(inner, params, state, FAR, weights))


def test_rows_that_are_no_examples_are_refused():
    net = jn.serial(lambda x: x.reshape(-1, 2), jn.batch_norm(), lambda x: x.reshape(-1, 4), jn.dense(3))
    one = jn.train.program(net, OBJECTIVE, optax.sgd(0.1), (X, Y), epochs=1, batch_size=4)
    with pytest.raises(jn.NetError, match=r"1: batch_norm\(\) has the weights of 4 examples, .* \(8, 2\)"):
        jax.eval_shape(one, KEY)
    whole = jn.train.program(net, OBJECTIVE, optax.sgd(0.1), (X, Y), epochs=1, batch_size=None)
    jax.eval_shape(whole, KEY)
