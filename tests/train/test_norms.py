"""Norms layer by layer: by hand, as PyTorch's hooks see them, and as the network cut off at each layer gives them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.train.debug.norms import activations
from tests.oracle import floats, integers, witness

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(5)
X, Y = floats(8, 4), integers(8, high=3)
OBJECTIVE = jn.objective(jn.losses.cross_entropy)


def seen(net: jn.Net, x: Any) -> jn.train.StepInfo:
    """Return a step in which nothing was learned."""
    run = jn.train.start(net, optax.sgd(0.1), x, key=KEY)
    zeros = jax.tree.map(jnp.zeros_like, run.params)
    return jn.train.StepInfo(run, jn.train.Batch(x, None, jnp.ones(len(X))), jax.random.key(7), zeros, zeros)


def root_mean_square(*arrays: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.square(jnp.stack(arrays)).mean())


def rms(y: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(y, np.float64)))))


def norm(*arrays: np.ndarray) -> float:
    return float(np.sqrt(sum((np.asarray(a, np.float64) ** 2).sum() for a in arrays)))


def test_one_step_by_hand():
    """Two layers and a squared error, differentiated on paper; the bias starts at zero, so its ratio is 0."""
    net = jn.serial(hidden=jn.dense(5), tanh=jnp.tanh, out=jn.dense(2, use_bias=False))
    objective = jn.objective(lambda outputs, targets: ((outputs - targets) ** 2).sum(-1))
    target = floats(8, 2, seed=1)
    sgd = optax.sgd(0.1)
    watches = {
        "layer": jn.train.norms(net, of=("gradients", "updates", "activations", "parameters")),
        "leaf": jn.train.norms(by="parameter", on="hidden/*"),
        "whole": jn.train.norms(net, by="network"),
    }
    start = jax.jit(lambda key: jn.train.start(net, sgd, X, key=key))(KEY)

    def watch(seen: jn.train.StepInfo) -> dict[str, jax.Array]:
        return {f"{kind}:{name}": value for kind, each in watches.items() for name, value in each(seen).items()}

    step = jax.jit(jn.train.make_train_step(net, objective, sgd, jn.train.Options(monitor=watch)))
    found = step(start, jn.train.Batch(jnp.asarray(X), jnp.asarray(target), jnp.ones(8)))[2]
    w1, b1, w2 = (np.asarray(a, np.float64) for a in (*start.params["hidden"].values(), start.params["out"]["kernel"]))
    w1, b1 = (w1, b1) if w1.ndim == 2 else (b1, w1)
    h = X @ w1 + b1
    t = np.tanh(h)
    o = t @ w2
    d_o = 2 * (o - target) / 8
    d_h = d_o @ w2.T * (1 - t**2)
    hidden, out = (X.T @ d_h, d_h.sum(0)), t.T @ d_o
    want = {
        "gradient_norm/hidden": norm(*hidden),
        "gradient_norm/out": norm(out),
        "update_norm/hidden": 0.1 * norm(*hidden),
        "update_norm/out": 0.1 * norm(out),
        "update_ratio/hidden": 0.1 * norm(*hidden) / norm(w1, b1),
        "update_ratio/out": 0.1 * norm(out) / norm(w2),
        "parameter_norm/hidden": norm(w1, b1),
        "parameter_norm/out": norm(w2),
        "activation_norm/hidden": rms(h),
        "activation_norm/tanh": rms(t),
        "activation_norm/out": rms(o),
    }
    assert {name for name in found if name.startswith("layer")} == {f"layer:{name}" for name in want}
    want = {f"layer:{name}": value for name, value in want.items()}
    want |= {f"leaf:gradient_norm/hidden/{name}": norm(each) for name, each in zip(("kernel", "bias"), hidden)}
    want |= {"leaf:update_ratio/hidden/bias": 0, "whole:gradient_norm": norm(*hidden, out)}
    want |= {"whole:activation_norm": rms(o)}
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert not any("out" in name for name in found if name.startswith("leaf"))


def test_three_steps_are_what_hooks_of_pytorch_see():
    """A convolution with batch norm, under momentum."""
    kernel, fc = floats(3, 3, 1, 4, seed=1, scale=0.5), floats(36, 3, seed=2, scale=0.3)
    images = floats(8, 6, 6, 1, seed=3)

    def torch_run():
        import torch
        from torch import nn

        layers = {"conv": nn.Conv2d(1, 4, 3, padding=1), "bn": nn.BatchNorm2d(4), "relu": nn.ReLU()}
        layers |= {"pool": nn.MaxPool2d(2), "flatten": nn.Flatten(), "fc": nn.Linear(36, 3)}
        with torch.no_grad():
            layers["conv"].weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
            rows = fc.reshape(3, 3, 4, 3).transpose(3, 2, 0, 1).reshape(3, 36)  # channels last to channels first
            layers["fc"].weight.copy_(torch.from_numpy(rows.copy()))
            layers["conv"].bias.zero_()
            layers["fc"].bias.zero_()
        model = nn.Sequential(*layers.values()).train()
        found: dict[str, list[float]] = {}
        for name, module in layers.items():
            module.register_forward_hook(
                lambda _, __, y, name=name: found.setdefault(f"activation_norm/{name}", []).append(
                    y.double().pow(2).mean().sqrt().item()
                )
            )
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            sgd.zero_grad()
            x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
            nn.functional.cross_entropy(model(x), torch.from_numpy(Y).long()).backward()
            before = [p.detach().clone() for p in model.parameters()]
            sgd.step()
            for name, place in (("conv", 0), ("bn", 2), ("fc", 4)):
                own, old = [*model.parameters()][place : place + 2], before[place : place + 2]
                grad = norm(*(np.asarray(p.grad) for p in own))
                update = norm(*(np.asarray(p.detach() - q) for p, q in zip(own, old)))
                weight = norm(*(np.asarray(q) for q in old))
                for what, value in (
                    ("gradient_norm", grad),
                    ("update_norm", update),
                    ("update_ratio", update / weight),
                ):
                    found.setdefault(f"{what}/{name}", []).append(value)
        return {name: np.array(values) for name, values in found.items()}

    want = witness("train/norms", torch_run)
    net = jn.serial(
        conv=jn.conv(4, 3, padding=1),
        bn=jn.batch_norm(),
        relu=jax.nn.relu,
        pool=jn.max_pool(2),
        flatten=jn.flatten,
        fc=jn.dense(3),
    )
    sgd = optax.sgd(0.1, momentum=0.9)
    step = jax.jit(jn.train.make_train_step(net, OBJECTIVE, sgd, jn.train.Options(monitor=jn.train.norms(net))))
    run = jax.jit(lambda key: jn.train.start(net, sgd, images, key=key))(KEY)
    run.params["conv"]["kernel"], run.params["fc"]["kernel"] = jnp.asarray(kernel), jnp.asarray(fc)
    for number in range(3):
        run, _, parts = step(run, jn.train.Batch(jnp.asarray(images), jnp.asarray(Y), jnp.ones(8)))
        assert {name for name in parts if "/" in name} == set(want)
        for name, values in want.items():
            np.testing.assert_allclose(parts[name], values[number], rtol=2e-5, err_msg=name)


@pytest.mark.slow
def test_activations_are_those_of_the_network_cut_off_there():
    """With dropout's own draw, through blocks that remat and cast, and a shortcut."""
    block = jn.residual(jn.serial(fc=jn.dense(4), drop=jn.dropout(0.5)))
    net = jn.serial(
        stem=jn.dense(4),
        block=block,
        again=jn.remat(jn.serial(fc=jn.dense(6), gelu=jax.nn.gelu)),
        low=jn.cast(jn.serial(fc=jn.dense(3))),
        out=jn.dense(2),
    )
    paths = ("stem", "block", "block/drop", "again/fc", "again/gelu", "low", "out")

    def both(x: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        one = seen(net, x)
        cuts = {path: net.upto(path).apply(one.state.params, {}, x, key=one.key, train=True)[0] for path in paths}
        return activations(net, one), {path: root_mean_square(y) for path, y in cuts.items()}

    found, want = jax.jit(both)(X)
    assert set(found) == {*paths, "block/fc", "low/fc"}
    for path, value in want.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-5, err_msg=path)


def test_layers_of_a_loop_are_means_over_its_turns():
    block = jn.serial(fc=jn.dense(4), tanh=jnp.tanh)
    short, long = jn.serial(blocks=jn.repeat(block, 3)), jn.serial(blocks=jn.serial(block, block, block))

    def both(x: jax.Array) -> tuple[Any, ...]:
        one = seen(short, x)
        params = {"blocks": jn.unstack(one.state.params["blocks"])}
        inner = [long.upto(f"blocks/{k}/fc").apply(params, {}, x)[0] for k in range(3)]
        return activations(short, one), root_mean_square(*inner), root_mean_square(long.apply(params, {}, x)[0])

    found, inner, outer = jax.jit(both)(X)
    assert set(found) == {"blocks", "blocks/fc", "blocks/tanh"}
    np.testing.assert_allclose(found["blocks/fc"], inner, rtol=1e-5)
    np.testing.assert_allclose(found["blocks"], outer, rtol=1e-5)


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.slow
def test_a_recurrent_layer_gives_its_sequence_or_its_last_step(every: bool):
    net = jn.serial(rnn=jn.recurrent(jn.rnn_cell(3), return_sequences=every))

    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        one = seen(net, x)
        return activations(net, one)["rnn"], root_mean_square(net.apply(one.state.params, {}, x)[0])

    np.testing.assert_allclose(*jax.jit(both)(floats(8, 5, 2)), rtol=1e-5)


TANH = jn.serial(hidden=jn.dense(5), tanh=jnp.tanh, head=jn.dense(3))


def learn(key: jax.Array, rate: Any) -> dict[str, jax.Array]:
    options = jn.train.Options(monitor=jn.train.norms(TANH))
    given: dict[str, Any] = {"epochs": 2, "batch_size": None, "freeze": "hidden/**", "options": options}
    return jn.train.program(TANH, OBJECTIVE, optax.sgd(rate), (X, Y), **given)(key)[1]


def test_what_is_frozen_has_no_gradient():
    assert {name for name in jax.eval_shape(learn, KEY, 0.1) if "/" in name} == {
        "gradient_norm/head", "update_norm/head", "update_ratio/head",
        "activation_norm/hidden", "activation_norm/tanh", "activation_norm/head",
    }  # fmt: skip


@pytest.mark.slow
def test_a_map_gives_each_member_its_own():
    keys, rates = jax.random.split(KEY, 2), np.array([0.1, 0.2], np.float32)
    both = jax.jit(jax.vmap(learn))(keys, rates)
    steps = rates[:, None] * np.asarray(both["gradient_norm/head"])
    np.testing.assert_allclose(both["update_norm/head"], steps, rtol=1e-5)
    begun = jax.vmap(lambda key: jn.train.start(TANH, optax.sgd(0.1), X, key=key).params["hidden"])
    own = jax.device_get(jax.jit(begun)(keys))
    for trial in range(2):
        hidden = np.tanh(X @ own["kernel"][trial] + own["bias"][trial])
        np.testing.assert_allclose(both["activation_norm/tanh"][trial], [rms(hidden)] * 2, rtol=1e-5)


def test_sixteen_bits_are_summed_in_thirty_two():
    params = {"fc": {"kernel": jnp.full((300, 300), 1.0, jnp.bfloat16)}}
    run = jn.train.TrainState(params, {}, (), KEY, jnp.int32(0))
    batch = jn.train.Batch(jnp.ones((1, 1)), None, jnp.ones(1))
    found = jn.train.norms(of=["gradients"])(jn.train.StepInfo(run, batch, KEY, params, params))
    assert found["gradient_norm/fc"].dtype == jnp.float32
    np.testing.assert_allclose(found["gradient_norm/fc"], 300, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": ["weights"]}, "expects any of gradients, updates, activations, parameters, got 'weights'"),
        ({"by": "block"}, "expects by='layer', 'parameter' or 'network', got 'block'"),
        ({"of": ["activations"]}, r"needs the network for its activations: norms\(net\)"),
    ],
)
def test_what_cannot_be_watched_is_an_error(options: Any, message: str):
    with pytest.raises(jn.NetError, match=message):
        jn.train.norms(**options)


def test_a_pattern_that_matches_nothing_is_an_error():
    net = jn.serial(hidden=jn.dense(5))
    watch = jn.train.norms(net, on="tail")
    with pytest.raises(jn.NetError, match="'tail' matches none of hidden"):
        jax.eval_shape(lambda x: watch(seen(net, x)), X)
