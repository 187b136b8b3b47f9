from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import jaxnets as jn
from tests.layers.near import call, near, pull
from tests.oracle import floats, witness

KEY = jax.random.key(0)
SHAPES = {1: (6, 4), 2: (4, 3, 3), 3: (3, 2, 3, 4), 4: (2, 2, 2, 2, 3)}
STEPS = 20


def example(shape, seed=0, shift=2.0):
    return floats(*shape, seed=seed, scale=1.5) + np.float32(shift)


def torch_batch_norm(shape):
    """Twenty steps of training, the last one's gradients, then evaluation, in float64."""
    import torch

    module = (
        torch.nn.BatchNorm1d if len(shape) < 4 else torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm3d
    )
    channels = shape[-1]
    layer = module(channels).double()

    def first(array):
        return torch.tensor(np.moveaxis(array, -1, 1)).double()

    def last(tensor):
        return np.moveaxis(tensor.detach().numpy(), 1, -1)

    with torch.no_grad():
        layer.weight.copy_(torch.tensor(floats(channels, seed=1)))
        layer.bias.copy_(torch.tensor(floats(channels, seed=2)))

    def step(k):
        layer.zero_grad()
        x = first(example(shape, k)).requires_grad_()
        y = layer(x)
        y.backward(first(floats(*shape, seed=99)))
        return x, y

    out = {}
    for mode in ("train", "evaluation"):
        layer.train(mode == "train")
        x, y = [step(k) for k in range(STEPS if mode == "train" else 1)][-1]
        found = {"y": last(y), "dx": last(x.grad), "dscale": layer.weight.grad, "dbias": layer.bias.grad}
        out |= {f"{mode} {name}": np.asarray(value).copy() for name, value in found.items()}
    return out | {"mean": np.asarray(layer.running_mean), "var": np.asarray(layer.running_var)}


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.slow_cases("float32-2", "float32-4", "float64-1", "float64-3", "float64-4")
def test_agrees_with_torch_after_twenty_steps(rank, dtype):
    shape = SHAPES[rank]
    expected = witness(f"layers/batch_norm_{rank}", lambda: torch_batch_norm(shape))
    with jax.enable_x64(dtype is np.float64):
        net, tolerance = jn.batch_norm(), 1e-6 if dtype is np.float32 else 1e-13
        x, g = example(shape).astype(dtype), floats(*shape, seed=99).astype(dtype)
        params, state = net.init(KEY, x)
        assert state["mean"].dtype == state["var"].dtype == dtype
        params = {
            "scale": jnp.asarray(floats(shape[-1], seed=1), dtype),
            "bias": jnp.asarray(floats(shape[-1], seed=2), dtype),
        }
        step = jax.jit(lambda state, x: net.apply(params, state, x, train=True)[1])
        for k in range(STEPS - 1):
            state = step(state, jnp.asarray(example(shape, k).astype(dtype)))
        after = pull(net, params, state, example(shape, STEPS - 1).astype(dtype), g, train=True)
        evaluated = pull(net, params, after["state"], x, g)
        near(after["state"], {"mean": expected["mean"], "var": expected["var"]}, tolerance)
        near(evaluated["state"], after["state"], 0)
        for name in ("y", "dx", "dscale", "dbias"):
            assert after[name].dtype == dtype
            near(after[name], expected[f"train {name}"], 10 * tolerance)
            near(evaluated[name], expected[f"evaluation {name}"], 10 * tolerance)


def by_hand(x, scale, bias, running, decay, epsilon):
    """Return the output and the state after training, value by value in float64."""
    y, after = np.zeros(x.shape), {"mean": np.zeros(x.shape[-1]), "var": np.zeros(x.shape[-1])}
    for c in range(x.shape[-1]):
        values = [float(value) for value in x[..., c].ravel()]
        n, mean = len(values), sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        normal = [(value - mean) / (squares / n + epsilon) ** 0.5 for value in values]
        y[..., c] = np.reshape(normal, x.shape[:-1]) * float(scale[c]) + float(bias[c])
        after["mean"][c] = decay * running["mean"][c] + (1 - decay) * mean
        after["var"][c] = decay * running["var"][c] + (1 - decay) * squares / (n - 1)
    return y, after


@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4).filter(lambda shape: np.prod(shape[:-1]) > 1),
    decay=st.floats(0.0, 0.99),
    epsilon=st.floats(1e-5, 0.1),
    shift=st.sampled_from([0.0, -30.0, 1000.0]),
    use=st.tuples(st.booleans(), st.booleans()),
)
@pytest.mark.slow  # PyTorch agrees on single shapes, above
def test_agrees_with_loops(shape, decay, epsilon, shift, use):
    x, c = example(shape, shift=shift), shape[-1]
    scale = floats(c, seed=1) if use[0] else np.ones(c)
    bias = floats(c, seed=2) if use[1] else np.zeros(c)
    running = {"mean": floats(c, seed=3), "var": np.abs(floats(c, seed=4))}
    net = jn.batch_norm(decay=decay, epsilon=epsilon, use_scale=use[0], use_bias=use[1])
    params = ({"scale": scale} if use[0] else {}) | ({"bias": bias} if use[1] else {})
    assert jax.tree.map(jnp.shape, net.init(KEY, x)[0]) == jax.tree.map(jnp.shape, params)
    y, state = call(net, params, running, x, train=True)
    expected, after = by_hand(x, scale, bias, running, decay, epsilon)
    near(y, expected)
    near(state, after, 1e-6)


@pytest.mark.parametrize("mean", [1e4, -1e6])
def test_a_large_mean_costs_no_accuracy(mean):
    """The rounding of the inputs counts as given: float32 agrees with float64 on the very same values."""
    x, g = example((64, 5, 2), shift=mean), floats(64, 5, 2, seed=1)
    net = jn.batch_norm()
    params, state = net.init(KEY, x)
    narrow = pull(net, params, state, x, g, train=True)
    with jax.enable_x64(True):
        wide = [x.astype(np.float64), g.astype(np.float64)]
        params, state = net.init(KEY, wide[0])
        near(narrow, pull(net, params, state, *wide, train=True), 2e-6)


@pytest.mark.parametrize("decay", [1.0, jnp.float32(1.0)])
def test_with_decay_one_the_averages_do_not_change(decay):
    """PyTorch's momentum=0: the batch's statistics in training, those given in evaluation, even beside an infinity."""
    net, x = jn.batch_norm(decay=decay), example((6, 2))
    state = {"mean": jnp.array([3.0, -1.0]), "var": jnp.array([2.0, 5.0])}
    params = {"scale": jnp.ones(2), "bias": jnp.zeros(2)}
    y, after = jax.jit(lambda x: net.apply(params, state, x, train=True))(x)
    near(after, state, 0)
    near(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), 1e-5)
    x[0] = np.inf
    near(net.apply(params, state, x, train=True)[1], state, 0)


def test_the_running_variance_may_be_the_biased_one():
    """Keras' and Flax' rule, by hand in float64 and by Flax: 25 values a channel, over three steps."""
    shape, theirs = (5, 5, 3), nn.BatchNorm(use_running_average=False, momentum=0.8)
    net = jn.batch_norm(decay=0.8, unbiased=False)
    params, state = net.init(KEY, example(shape))
    stats: Any = theirs.init(KEY, example(shape))
    expected = np.ones(3)
    for k in range(3):
        x = example(shape, k)
        expected = 0.8 * expected + 0.2 * x.astype(np.float64).var((0, 1))
        _, state = net.apply(params, state, jnp.asarray(x), train=True)
        stats = stats | theirs.apply(stats, x, mutable=["batch_stats"])[1]
    near(state["var"], expected, 1e-6)
    near(state, dict(stats["batch_stats"]), 1e-6)


def test_constant_channels_give_the_bias():
    net, x = jn.batch_norm(), jnp.full((7, 3), 12345.678)
    params, state = net.init(KEY, x)
    out = pull(net, params, state, x, floats(7, 3), train=True)
    near(out["y"], np.zeros((7, 3)), 1e-6)
    near(out["state"]["var"], np.full(3, 0.9), 1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))


@jax.enable_x64(True)
def test_second_derivatives_are_exact():
    net, x = jn.batch_norm(use_bias=False), jnp.asarray(example((3, 2, 2)), jnp.float64)
    params, state = net.init(KEY, x)

    def loss(x):
        return jnp.sum(jnp.sin(net.apply(params, state, x, train=True)[0]))

    check_grads(jax.jit(loss), (x,), order=2, rtol=1e-6, atol=1e-6, eps=1e-4)


def test_no_gradient_flows_into_the_state():
    net, x = jn.batch_norm(), jnp.asarray(example((4, 3)))
    params, state = net.init(KEY, x)

    def total(x):
        return sum(leaf.sum() for leaf in net.apply(params, state, x, train=True)[1].values())

    assert not jax.grad(total)(x).any()


def test_traced_decay_and_epsilon():
    x = jnp.asarray(example((4, 3)))

    def run(decay, epsilon):
        net = jn.batch_norm(decay=decay, epsilon=epsilon)
        return net.apply(*net.init(KEY, x), x, train=True)

    decays, epsilons = jnp.array([0.0, 0.5, 0.99]), jnp.array([1e-5, 1e-3, 1.0])
    y, state = jax.vmap(run)(decays, epsilons)
    for k in range(3):
        alone, alone_state = run(float(decays[k]), float(epsilons[k]))
        near(y[k], alone, 1e-6)
        near(jax.tree.map(lambda leaf, k=k: leaf[k], state), jax.tree.map(np.asarray, alone_state), 1e-6)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("inner", [(), (2,)])
@pytest.mark.slow_cases("inner0-False-False", "inner1-False-False", "inner1-True-False")
def test_padding_does_not_count(traced, train, inner):
    """The real steps of padded sequences have the outputs that they have as one flat batch, whatever the padding."""
    lengths, c = np.array([3, 0, 1, 4], np.int32), 2
    values, g = example((4, 4, *inner, c)), floats(4, 4, *inner, c, seed=1)
    real = np.arange(4)[None] < lengths[:, None]
    spoilt = np.where(real.reshape(4, 4, *(1 for _ in inner), 1), values, np.nan)
    net = jn.batch_norm()
    params = {"scale": jnp.asarray(floats(c, seed=2)), "bias": jnp.asarray(floats(c, seed=3))}
    state = {"mean": jnp.asarray(floats(c, seed=4)), "var": jnp.ones(c)}

    def run(params, values, lengths):
        def outputs(params, values):
            y, after = net.apply(params, state, jn.Padded(values, lengths), train=train)
            return y.values, after

        y, back, after = jax.vjp(outputs, params, values, has_aux=True)
        dparams, dx = back(jnp.asarray(g))  # cotangents for padding as well: they must lead nowhere
        return {"y": y, "dx": dx, "state": after, "dscale": dparams["scale"], "dbias": dparams["bias"]}

    out = (jax.jit(run) if traced else run)(params, jnp.asarray(spoilt), jnp.asarray(lengths))
    flat = pull(net, params, state, values[real], g[real], train=train)
    for name in ("y", "dx"):
        near(np.asarray(out[name])[real], flat.pop(name), 1e-6)
        assert not np.asarray(out.pop(name))[~real].any()
    near(out, flat, 2e-6)


@pytest.mark.parametrize("lengths", [(0, 0), (1, 0)])
def test_too_few_real_steps_do_not_change_the_averages(lengths):
    net, x = jn.batch_norm(), jn.Padded(jnp.ones((2, 3, 1)), jnp.array(lengths))
    params, state = net.init(KEY, x)
    y, after = jax.jit(lambda x: net.apply(params, state, x, train=True))(x)
    near(after, state, 0)
    assert np.isfinite(y.values).all()
    with pytest.raises(jn.NetError, match=rf"more than one value .* in training, got {sum(lengths)}"):
        net.apply(params, state, x, train=True)


def test_cast_leaves_scale_and_statistics_in_float32():
    """Each output is the nearest bfloat16 to the exact one: a scale rounded on the way in would be off by more."""
    net = jn.cast(jn.serial(norm=jn.batch_norm()), jn.Policy(jnp.bfloat16, jnp.bfloat16, jnp.float32))
    x = jnp.asarray(example((8, 16))).astype(jnp.bfloat16).astype(jnp.float32)
    params, state = net.init(KEY, x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((params, state))} == {"float32"}
    params = {"norm": {"scale": jnp.asarray(floats(16, seed=1)), "bias": jnp.zeros(16)}}
    y, after = net.apply(params, state, x, train=True)
    running = {"mean": np.zeros(16), "var": np.ones(16)}
    scale = params["norm"]["scale"]
    exact, moved = by_hand(x, scale, np.zeros(16), running, 0.9, 1e-5)
    near(after["norm"], moved, 1e-6)
    assert (y == exact.astype(jnp.bfloat16).astype(np.float32)).mean() > 0.98
    coarse, _ = by_hand(x, scale.astype(jnp.bfloat16), np.zeros(16), running, 0.9, 1e-5)
    assert (y == coarse.astype(jnp.bfloat16).astype(np.float32)).mean() < 0.8


def test_state_keeps_its_dtype_in_other_precision():
    with jax.enable_x64(True):
        net, x = jn.batch_norm(), jnp.ones((3, 2), jnp.float32)
        params, state = net.init(KEY, x)
        y, after = net.apply(params, state, x.astype(jnp.float64), train=True)
        assert y.dtype == jnp.float64
        assert {leaf.dtype.name for leaf in after.values()} == {"float32"}


MISTAKES = {
    "decay": (lambda: jn.batch_norm(decay=1.1), r"batch_norm\(decay=1.1\) expects decay in \[0, 1\], got 1.1"),
    "epsilon": (lambda: jn.batch_norm(epsilon=0.0), r"expects epsilon > 0, got 0"),
    "one value": (
        lambda: apply(jnp.ones((1, 2))),
        r"more than one value .* got 1 in \(1, 2\); .*larger batch.*layer_norm",
    ),
    "integers": (lambda: apply(jnp.ones((4, 2), int)), r"batch_norm\(\) expects floating input, got int32"),
    "rank": (lambda: apply(jnp.ones(2)), r"expects \(batch, ..., channels\), got \(2,\); .*x\[None\]"),
    "padded rank": (
        lambda: apply(jn.Padded(jnp.ones((2, 2)), jnp.array([1, 2]))),
        r"expects Padded values \(batch, time, ..., channels\), got \(2, 2\)",
    ),
    "channels": (lambda: apply(jnp.ones((4, 3))), r"has scale \(2,\), but input \(4, 3\) needs scale \(3,\)"),
    "no state": (lambda: apply(jnp.ones((4, 2)), state={}), r"needs the state mean, var, got none"),
    "other state": (
        lambda: apply(jnp.ones((4, 2)), state={"mean": jnp.zeros(2), "var": jnp.ones(3)}),
        r"has var \(3,\), but input \(4, 2\) needs var \(2,\)",
    ),
    "other parameters": (lambda: apply(jnp.ones((4, 2)), params={"kernel": 0}), r"needs the parameters scale, bias"),
}


def apply(x, *, params=None, state=None):
    net = jn.batch_norm()
    own_params, own_state = net.init(KEY, jnp.ones((4, 2)))
    return net.apply(own_params if params is None else params, own_state if state is None else state, x, train=True)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
