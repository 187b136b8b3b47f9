"""`fold_batch_norm`: the same outputs in evaluation, with the batch norms gone where they can go."""

import pickle
import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.core.net import Net
from tests.models.row import Row
from tests.models.test_every_model import ROWS
from tests.models.weights import draw
from tests.once import once
from tests.oracle import floats

KEY = jax.random.key(0)


def outputs(net: Net, params, state, x):
    return once(lambda params, state, x: net.apply(params, state, x)[0], params, state, x)


def eagerly(net: Net, params, state, x):
    """Return outputs not under `jit`: the layers of a deep network have few shapes, each compiled once for all."""
    return net.apply(params, state, jnp.asarray(x))[0]


def check(net: Net, x, *, left: int = 0, run=outputs):
    """Fold a network, compare the outputs, and return the folded network; `left` batch norms remain."""
    params, state = draw(net, x)
    folded, new_params, new_state = jn.fold_batch_norm(net, params, state)
    made = jax.eval_shape(folded.init, KEY, x)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, (new_params, new_state))
    assert len(jax.tree.leaves(new_state)) == 2 * left
    expected = run(net, params, state, x)
    for a, b in zip(jax.tree.leaves(run(folded, new_params, new_state, x)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))
    return folded, new_params, new_state


# A head for training needs larger images. Batch norms at the start of a block, of ResNets version 2, remain.
NORMED = [row for row in ROWS if "batch_norm" in repr(row.make()) and "heads" not in row.name]
# One of each family: its members differ in their numbers of layers and features.
FAMILIES = {re.sub(r"(?<!_v)\d+", "", row.name): row for row in reversed(NORMED)}


@pytest.mark.slow
@pytest.mark.parametrize("row", FAMILIES.values(), ids=str)
def test_every_model_gives_the_same(row: Row):
    # The smallest size that the network takes.
    least = {"inception_v2": 64}.get(row.name, 80 if row.name.startswith("inception") else 32)
    net, size = row.make(), min(row.x.shape[1], least)
    x = floats(2, size, size, row.x.shape[-1]) if len(row.x.shape) == 4 else floats(2, *row.x.shape[1:])
    left = sum(map(_starts_a_block, jn.paths.paths(draw(net, x)[1]))) // 2
    _, _, state = check(net, x, left=left, run=eagerly)
    assert all(map(_starts_a_block, jn.paths.paths(state)))


def _starts_a_block(path: str) -> bool:
    # Of DenseNet, also the norms of transitions and the last one, which follow sums and joints.
    return "/norm1/" in path or "/norm/" in path or "norm5/" in path or path.startswith("norm/")


LAYERS = {
    "conv": jn.conv(6, 3, stride=2, padding=1),
    "conv without bias": jn.conv(6, 3, use_bias=False),
    "groups": jn.conv(6, 3, groups=2),
    "depthwise": jn.depthwise_conv(3, 2),
    "transposed": jn.conv_transpose(6, 3, stride=2),
    "transposed in groups": jn.conv_transpose(6, 3, groups=2),
    "dense": jn.dense(5),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_each_linear_layer_takes_up_the_batch_norm_behind_it(layer: Net):
    x = floats(3, 6, 7, 4)
    check(jn.serial(layer, jn.batch_norm(epsilon=0.1)), x)
    folded, params, _ = check(jn.serial(layer, jn.batch_norm(use_scale=False, use_bias=False), jax.nn.relu), x)
    assert set(params["0"]) == {"kernel", "bias"}
    assert folded.children.keys() == {"0", "1", "2"}


def block(features: int = 4) -> Net:
    return jn.serial(
        conv1=jn.conv(features, 3, padding=1), bn1=jn.batch_norm(), relu=jax.nn.relu,
        conv2=jn.conv(features, 3, padding=1, use_bias=False), bn2=jn.batch_norm(),
    )  # fmt: skip


@jn.labeled
def labeled_block() -> Net:
    return jn.residual(block(), activation=jax.nn.relu)


AROUND = {
    "residual": jn.residual(block()),
    "residual, activation": jn.residual(block(), activation=jax.nn.relu),
    "residual, other activation": jn.residual(block(), activation=jnp.tanh),
    "residual, projection": jn.residual(block(6), jn.serial(jn.conv(6, 1), jn.batch_norm()), jax.nn.relu),
    "residual of dense": jn.residual(jn.serial(jn.dense(4), jn.batch_norm()), activation=jax.nn.relu),
    "repeat": jn.repeat(jn.residual(block(), activation=jax.nn.relu), 3),
    "ensemble": jn.serial(jn.ensemble(block(), 2)),
    "ensemble of repeat": jn.ensemble(jn.repeat(block(), 2), 2),
    "remat": jn.remat(jn.residual(block())),
    "branches": jn.branches(jn.concatenate, block(), jn.serial(jn.conv(3, 1), jn.batch_norm())),
    "graph": jn.graph(
        a=jn.conv(4, 1), bn=jn.batch_norm(), b=(jn.conv(3, 1), "input"), bn2=jn.batch_norm(),
        join=(jn.concatenate, "bn", "bn2"),
    ),
    "heads": jn.auxiliary_heads(jn.serial(body=block(), out=jn.dense(2)), aux=(jn.dense(3), "body")),
    "labeled by the user": labeled_block(),
}  # fmt: skip


@pytest.mark.parametrize("net", AROUND.values(), ids=AROUND)
def test_batch_norms_are_folded_at_any_depth(net: Net):
    folded, params, state = check(net, x := floats(2, 5, 6, 4))
    assert pickle.loads(pickle.dumps(net)) == net
    expected, again = outputs(folded, params, state, x), jn.fold_batch_norm(folded, params, state)
    np.testing.assert_allclose(outputs(*again, x), expected, rtol=0, atol=1e-5)


def test_mixed_precision_computes_low_and_folds_high():
    net, x = jn.cast(block(), jn.Policy()), floats(2, 5, 6, 4)
    params, state = draw(net, x)
    folded, new_params, new_state = jn.fold_batch_norm(net, params, state)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(new_params)} == {"float32"}
    found, expected = outputs(folded, new_params, new_state, x), outputs(net, params, state, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05 * float(jnp.std(expected)))


def test_sequences_of_unequal_length():
    x = jn.Padded(floats(3, 7, 4), jnp.array([7, 2, 5]))
    layers = {"conv": jn.conv(4, 3, padding="SAME"), "bn": jn.batch_norm(), "relu": jax.nn.relu}
    net = jn.serial(
        jn.residual(jn.serial(**layers)), jn.residual(jn.serial(conv=layers["conv"]), activation=jax.nn.relu)
    )
    params, state = draw(net, x)
    y, _ = net.apply(params, state, x)
    folded, new_params, new_state = jn.fold_batch_norm(net, params, state)
    found, _ = folded.apply(new_params, new_state, x)
    assert found.lengths.tolist() == y.lengths.tolist() == [7, 2, 5]
    np.testing.assert_allclose(found.zeroed(), y.zeroed(), atol=1e-5)


KEPT = {
    "read by two": jn.graph(a=jn.conv(3, 1), bn=jn.batch_norm(), join=(jn.concatenate, "a", "bn")),
    "behind an activation": jn.serial(jn.conv(3, 1), jax.nn.relu, jn.batch_norm()),
    "first": jn.serial(jn.batch_norm(), jn.conv(3, 1)),
    "changed by the user": replace(block(1), label="mine"),
    "a body that is wrapped": jn.residual(jn.remat(jn.serial(a=jn.conv(4, 1), bn=jn.batch_norm()))),
}


@pytest.mark.parametrize("net", KEPT.values(), ids=KEPT)
def test_other_batch_norms_stay(net: Net):
    check(net, floats(2, 5, 6, 4), left=len(jax.tree.leaves(draw(net, floats(2, 5, 6, 4))[1])) // 2)


def test_a_cut_network_is_left_alone_and_a_folded_one_can_be_cut():
    net, x = jn.serial(block=jn.residual(block(), activation=jax.nn.relu), out=jn.dense(2)), floats(2, 5, 6, 4)
    params, state = draw(net, x)
    before = net.upto("block/conv1")
    np.testing.assert_array_equal(
        outputs(*jn.fold_batch_norm(before, params, state), x), outputs(before, params, state, x)
    )
    folded, new_params, new_state = jn.fold_batch_norm(net, params, state)
    expected = outputs(net.upto("block"), params, state, x)
    np.testing.assert_allclose(outputs(folded.upto("block"), new_params, new_state, x), expected, atol=1e-5)


def test_a_folded_network_is_a_value_and_can_be_saved(tmp_path):
    net, x = jn.models.resnet_cifar(8, 3), floats(2, 16, 16, 3)
    params, state = draw(net, x)
    folded, params, state = jn.fold_batch_norm(net, params, state)
    assert folded == jn.fold_batch_norm(jn.models.resnet_cifar(8, 3), *draw(net, x))[0] != net
    assert pickle.loads(pickle.dumps(folded)) == folded
    jn.save(file := tmp_path / "folded.safetensors", (params, state), net=folded)
    assert jn.load(file).net == folded


def test_values_may_be_traced_and_stacked():
    net, x = block(), floats(2, 5, 6, 4)
    params, state = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), draw(net, x))
    stacked = jax.jit(jax.vmap(lambda params, state: jn.fold_batch_norm(net, params, state)[1:]))(params, state)
    for trial in range(2):
        alone = jn.fold_batch_norm(net, *jax.tree.map(lambda leaf, trial=trial: leaf[trial], (params, state)))[1:]
        for a, b in zip(jax.tree.leaves(stacked), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[trial], b, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_does_not_become_a_number(bad: float):
    body = jn.residual(block(), activation=jax.nn.relu)
    net, x = jn.serial(block=body, pool=jn.global_avg_pool), floats(3, 12, 12, 4)
    params, state = draw(net, x)
    folded, new_params, new_state = jn.fold_batch_norm(net, params, state)
    y = outputs(folded, new_params, new_state, np.where(np.arange(3 * 576).reshape(x.shape) == 700, bad, x))
    assert np.isnan(y[1]).all()
    np.testing.assert_allclose(y[::2], outputs(net, params, state, x)[::2], atol=1e-5)
    params["block"]["conv1"]["kernel"] = np.array(params["block"]["conv1"]["kernel"])
    params["block"]["conv1"]["kernel"][0, 0, 0, 0] = bad
    with pytest.raises(jn.NetError, match=r"expects finite parameters and averages, got .* in block/conv1/kernel"):
        jn.fold_batch_norm(net, params, state)


@pytest.mark.parametrize("place", [0, 1])
def test_each_array_of_an_input_is_looked_at(place: int):
    net = jn.serial(total=sum, conv=jn.conv(3, 1), relu=jax.nn.relu, pool=jn.global_avg_pool)
    x = (floats(2, 5, 6, 4), floats(2, 5, 6, 4, seed=1))
    params, _ = draw(net, x)
    folded, params, state = jn.fold_batch_norm(net, params, {})
    expected = outputs(net, params, {}, x)
    np.testing.assert_allclose(outputs(folded, params, state, x), expected, atol=1e-5)
    x[place][1, 0, 0, 0] = np.nan
    y = outputs(folded, params, state, x)
    assert np.isnan(y[1]).all()
    np.testing.assert_allclose(y[0], expected[0], atol=1e-5)


def test_derivatives_are_those_of_the_network():
    net, x = jn.residual(block(), activation=jax.nn.relu), floats(2, 6, 6, 4)
    params, state = draw(net, x)
    folded, new_params, new_state = jn.fold_batch_norm(net, params, state)

    def loss(net, params, state):
        return lambda x: (net.apply(params, state, x)[0] ** 2).mean()

    def derivatives(f):
        xs = jnp.stack([x, 2 * x])
        return (
            jax.grad(f)(x),
            jax.jvp(jax.grad(f), (x,), (jnp.cos(x),))[1],
            jax.vmap(jax.grad(f))(xs),
            jax.lax.map(f, xs),
        )

    found = jax.jit(lambda: derivatives(loss(folded, new_params, new_state)))()
    for a, b in zip(found, jax.jit(lambda: derivatives(loss(net, params, state)))(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


def test_onednn_computes_what_is_behind_a_convolution(monkeypatch):
    body = jn.serial(conv0=jn.conv(24, 1), relu0=jax.nn.relu, **block(24).children)
    net, x = jn.residual(body, jn.conv(24, 1), jax.nn.relu), floats(2, 6, 6, 16)
    folded, *trees = jn.fold_batch_norm(net, *draw(net, x))
    usable = "__onednn$convolution" in jax.jit(jn.conv(24, 3).apply).lower(draw(jn.conv(24, 3), x)[0], {}, x).as_text()
    program = jax.jit(folded.apply).lower(*trees, x).as_text()
    assert (program.count("RELU"), program.count("BINARY_ADD")) == (2 * usable, 1 * usable)
    monkeypatch.setenv("JAXNETS_ONEDNN", "0")
    assert "__onednn" not in jax.jit(partial(folded.apply)).lower(*trees, x).as_text()
