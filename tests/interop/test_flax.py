"""Weights from Flax: the same outputs, every array once, whatever names Flax chose."""

import re
import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnets as jn
from jaxnets.core.paths import paths
from jaxnets.interop import from_flax
from tests.once import once
from tests.oracle import floats, integers

KEY = jax.random.key(0)


def variables(module: nn.Module, x: Any) -> Any:
    """Draw a module's variables by their paths, variances positive."""

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        numbers = floats(*shape, seed=zlib.crc32(path.encode()), scale=0.3)
        return np.exp(numbers) if path.endswith(("var", "scale")) else numbers

    specs = jax.eval_shape(module.init, KEY, x)
    leaves = [draw(path, leaf.shape) for path, leaf in paths(specs).items()]
    return jax.tree.unflatten(jax.tree.structure(specs), leaves)


def same_outputs(net: jn.Net, module: nn.Module, x: Any, **options: Any) -> None:
    given = variables(module, x)
    trees = from_flax(net, given, x, **options)
    y, want = once(
        lambda trees, given, x: (net.apply(trees[0], trees[1], x)[0], module.apply(given, x)), trees, given, x
    )
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5 * np.ptp(want))


class Layers(nn.Module):
    """Layers of every kind that have parameters, most under automatic names."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(4, (3, 3), padding=1, name="stem")(x)
        x = nn.BatchNorm(use_running_average=True)(x)
        x = nn.PReLU()(x)
        x = nn.ConvTranspose(6, (3, 2), (2, 2), padding="VALID")(x)
        x = nn.LayerNorm(epsilon=1e-5)(x)
        x = nn.Conv(6, (3, 3), feature_group_count=2, padding="VALID", use_bias=False)(x)
        x = nn.GroupNorm(3, epsilon=1e-5)(x)
        x = nn.Conv(6, (2, 2), feature_group_count=6, padding="VALID")(x)
        x = nn.Dense(5)(x.reshape(x.shape[0], -1))
        return nn.Dense(3)(jnp.tanh(x))


LAYERS = jn.serial(
    jn.conv(4, 3, padding=1),
    jn.batch_norm(),
    jn.prelu(),
    jn.conv_transpose(6, (3, 2), stride=2),
    jn.layer_norm(),
    inside=jn.serial(jn.conv(6, 3, groups=2, use_bias=False), jn.group_norm(3), jn.depthwise_conv(2)),
    flatten=jn.flatten,
    head=jn.serial(jn.dense(5), jnp.tanh, jn.dense(3)),
)


class Cells(nn.Module):
    """Cells in depth, one way and both ways."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Embed(7, 3)(x)
        x = nn.RNN(nn.OptimizedLSTMCell(4))(x)
        x = nn.RNN(nn.GRUCell(4), name="unused")(x)
        x = nn.RNN(nn.SimpleCell(4))(x)
        x = nn.RNN(nn.OptimizedLSTMCell(4))(x)
        return nn.Bidirectional(nn.RNN(nn.OptimizedLSTMCell(3)), nn.RNN(nn.OptimizedLSTMCell(3)))(x)


class Block(nn.Module):
    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.Conv(self.features, (3, 3), self.stride, padding=1, use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
        y = nn.Conv(self.features, (3, 3), padding=1, use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=True)(y)
        if self.stride > 1:
            x = nn.Conv(self.features, (1, 1), self.stride, padding=0, use_bias=False, name="conv_proj")(x)
            x = nn.BatchNorm(use_running_average=True, name="norm_proj")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A ResNet of 14 layers for CIFAR with projections, all blocks on one level."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(16, (3, 3), padding=1, use_bias=False, name="conv_init")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="bn_init")(x))
        for stage in range(3):
            for place in range(2):
                x = Block(16 * 2**stage, 2 if stage and not place else 1)(x)
        return nn.Dense(10)(x.mean((1, 2)))


RENAME = {"conv_init": "conv1", "bn_init": "bn1"} | {
    f"Block_{k}/{theirs}": f"Block_{k}/downsample/{ours}"
    for k in (2, 4)
    for theirs, ours in (("conv_proj", "0"), ("norm_proj", "1"))
}


@pytest.mark.promotes
def test_layers_of_every_kind():
    same_outputs(LAYERS, Layers(), floats(2, 6, 5, 4), rename={"stem": "0"})


@pytest.mark.promotes
def test_cells_of_every_kind():
    both = jn.bidirectional(jn.lstm_cell(3))
    cells = jn.recurrent(jn.rnn_cell(4), jn.lstm_cell(4))
    net = jn.serial(jn.embed(7, 3), jn.recurrent(jn.lstm_cell(4)), jn.recurrent(jn.gru_cell(4)), cells, both)
    same_outputs(net, Cells(), integers(2, 5, high=7))


@pytest.mark.promotes
@pytest.mark.slow
def test_blocks_on_one_level_are_stages_here():
    net, x = jn.models.resnet_cifar(14, shortcut="B"), floats(2, 8, 8, 3)
    same_outputs(net, ResNet(), x, rename=RENAME)
    given = variables(ResNet(), x)
    params, state = from_flax(jn.models.resnet_cifar(14, shortcut="B", scan=True), given, x, rename=RENAME)
    written_out = from_flax(net, given, x, rename=RENAME)
    for place in ("0", "1"):
        for tree, scanned in zip(written_out, (params, state)):
            ours = tree["layer3"][place]
            theirs = scanned["layer3"][place]
            for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
                np.testing.assert_array_equal(a, np.asarray(b)[0] if place == "1" else b)


@pytest.mark.promotes
def test_stacked_variables_belong_to_a_repeat_of_their_name():
    class Cell(nn.Module):
        @nn.compact
        def __call__(self, x: Any, _: None) -> tuple[Any, None]:
            return jnp.tanh(nn.Dense(4)(x)), None

    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            scan = nn.scan(Cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return nn.Dense(2)(scan(name="body")(x, None)[0])

    net = jn.serial(body=jn.repeat(jn.serial(jn.dense(4), jnp.tanh), 3), out=jn.dense(2))
    same_outputs(net, Scanned(), floats(2, 4))


@pytest.mark.promotes
def test_nnx():
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.conv = nnx.Conv(3, 4, (3, 3), padding="VALID", rngs=rngs)
            self.bn = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
            self.rest = nnx.List([nnx.Linear(4, 2, rngs=rngs)])

        def __call__(self, x: Any) -> Any:
            return self.rest[0](self.bn(self.conv(x)))

    model, x = Model(nnx.Rngs(0)), floats(2, 5, 5, 3)
    net = jn.serial(conv=jn.conv(4, 3), bn=jn.batch_norm(), rest=jn.serial(jn.dense(2)))
    given = nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    params, state = from_flax(net, given, x)
    y, want = jax.jit(lambda params, state, x: (net.apply(params, state, x)[0], model(x)))(params, state, x)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-6)


def refused(message: str, net: jn.Net, given: Any, x: Any, **options: Any) -> None:
    with pytest.raises(jn.NetError, match=message):
        from_flax(net, given, x, **options)


def test_one_error_lists_what_is_missing_unexpected_and_misshapen():
    x = floats(2, 4)
    net = jn.serial(fc1=jn.dense(3), bn=jn.batch_norm(), fc2=jn.dense(2))
    given = {
        "params": {
            "fc1": {"kernel": floats(4, 5), "bias": floats(3), "extra": floats(1)},
            "bn": {"scale": floats(3), "bias": floats(3)},
            "other": {"kernel": floats(3, 2), "bias": floats(2)},
        },
        "batch_stats": {"bn": {"mean": floats(3)}},
    }
    listed = (
        "from_flax expects the network's arrays, got others: missing fc2/bias, fc2/kernel, bn/var; "
        "unexpected fc1/extra, other/bias, other/kernel; misshapen fc1/kernel (4, 5) for (4, 3); "
        "pass the variables of the same network, or map modules by rename="
    )
    refused(re.escape(listed), net, given, x)
    del given["params"]["fc1"]["extra"]
    given["params"]["fc1"]["kernel"] = floats(4, 3)
    given["batch_stats"]["bn"]["var"] = floats(3)
    from_flax(net, given, x, rename={"other": "fc2"})
    refused("expects names of tensors in rename=, got others", net, given, x, rename={"others": "fc2"})


def test_more_or_fewer_layers_than_there_are_is_an_error():
    x = floats(2, 4)
    given = {f"Dense_{k}": {"kernel": floats(4, 4), "bias": floats(4)} for k in range(3)}
    from_flax(jn.serial(jn.dense(4), jn.dense(4), jn.dense(4)), {"params": given}, x)
    refused("unexpected Dense_2/bias, Dense_2/kernel;", jn.serial(jn.dense(4), jn.dense(4)), {"params": given}, x)
    refused("missing 3/bias, 3/kernel;", jn.serial(*[jn.dense(4)] * 4), {"params": given}, x)
    refused(
        "missing 2/bias, 2/kernel;",
        jn.serial(jn.repeat(jn.dense(4), 2), jn.dense(4), jn.dense(4)),
        {"params": given},
        x,
    )


def test_ten_layers_are_counted_as_numbers():
    x = floats(1, 2)
    given = {f"Dense_{k}": {"kernel": np.full((2, 2), float(k)), "bias": np.zeros(2)} for k in range(11)}
    params, _ = from_flax(jn.serial(*[jn.dense(2)] * 11), {"params": dict(sorted(given.items()))}, x)
    assert [float(params[str(k)]["kernel"][0, 0]) for k in range(11)] == list(range(11))


def test_numbers_that_are_not_finite_are_named_and_precision_is_asked_for():
    given = {"params": {"fc": {"kernel": np.full((4, 3), np.nan, np.float32), "bias": floats(3)}}}
    net = jn.serial(fc=jn.dense(3))
    with pytest.warns(UserWarning, match=r"from_flax: NaN or infinite numbers in fc/kernel$"):
        params, _ = from_flax(net, given, floats(1, 4), dtype=jnp.bfloat16)
    assert params["fc"]["bias"].dtype == jnp.bfloat16


class Nested(nn.Module):
    """Two layers in one expression: the outer one is made first, and called last."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.relu(nn.Dense(4)(x)))


def test_modules_that_are_called_in_another_order_than_made():
    x = floats(3, 4)
    given = variables(Nested(), x)
    ours = jn.serial(jn.dense(4), jax.nn.relu, jn.dense(4))
    trees = from_flax(ours, given, x, module=Nested())
    y, want = once(
        lambda trees, given, x: (ours.apply(trees[0], trees[1], x)[0], Nested().apply(given, x)), trees, given, x
    )
    np.testing.assert_allclose(y, want, atol=1e-6)
