"""Networks and their weights in Flax: the same values, gradients and steps as here, and every array back again."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import errors, nnx
from flax.training.train_state import TrainState

import jaxnets as jn
from jaxnets.core.paths import paths
from jaxnets.interop import from_flax, to_flax
from jaxnets.interop.spec import nested
from tests.interop.test_flax import LAYERS, RENAME, Cells, Layers, Nested, ResNet, variables
from tests.interop.test_flax_modules import KEY, X, Y, close, cross_entropy, step
from tests.once import once
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes
NET = jn.serial(
    conv=jn.conv(4, 3),
    bn=jn.batch_norm(),
    relu=jax.nn.relu,
    pool=jn.global_avg_pool,
    drop=jn.dropout(0.3),
    out=jn.dense(3),
)


def test_variables_of_a_linen_module_are_those_of_the_network():
    module: Any = jn.to_linen(NET)
    made = module.init(KEY, X)
    params, state = NET.init(module.bind({}, rngs={"params": KEY}).make_rng("params"), X)
    assert jax.tree.structure(made) == jax.tree.structure({"batch_stats": state, "params": params})
    for a, b in zip(*map(jax.tree.leaves, (made, {"batch_stats": state, "params": params})), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [*jn.to_linen(NET, collection="state").init(KEY, X)] == ["params", "state"]
    assert [*jn.to_linen(jn.dense(3)).init(KEY, X)] == ["params"]
    assert jn.to_linen(jn.dense(3)) == jn.to_linen(jn.dense(3)) != jn.to_linen(jn.dense(2))
    assert jn.from_flax_module(module) == NET


class Stats(TrainState):
    batch_stats: Any = None


def test_a_step_of_flaxs_loop_is_ours():
    module: Any = jn.to_linen(NET)
    made = module.init(KEY, X)
    train = Stats.create(apply_fn=module.apply, tx=optax.sgd(0.1), **made)

    @jax.jit
    def theirs(train: Stats, key: Any) -> Any:
        def loss(params: Any) -> Any:
            given = {"params": params, "batch_stats": train.batch_stats}
            y, new = train.apply_fn(given, X, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
            return cross_entropy(y, Y), new

        (value, new), gradients = jax.value_and_grad(loss, has_aux=True)(train.params)
        return value, gradients, train.apply_gradients(grads=gradients, batch_stats=new["batch_stats"])

    value, gradients, train = theirs(train, KEY)
    own = module.bind({}, rngs={"dropout": KEY}).make_rng("dropout")
    ours = jax.jit(lambda key: step(NET, made["params"], made["batch_stats"], key))(own)
    close(ours, (value, gradients, train.params, train.batch_stats))
    close(
        NET.apply(ours[2], ours[3], X)[0], module.apply({"params": train.params, "batch_stats": train.batch_stats}, X)
    )


def test_linen_composes_and_lifts_it():
    sequence, x = (
        nn.Sequential([nn.Dense(4), jn.to_linen(jn.serial(jn.dense(3), jn.batch_norm()), train=True)]),
        floats(4, 2),
    )
    made = sequence.init(KEY, x)
    applied: Any = sequence.apply(made, x, mutable=["batch_stats"])
    y, new = applied
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    assert not np.allclose(new["batch_stats"]["layers_1"]["1"]["mean"], 0)
    axes: Any = {"params": 0, "batch_stats": 0}
    net = jn.serial(fc=jn.dense(3), bn=jn.batch_norm())
    lifted = nn.vmap(type(jn.to_linen(net)), variable_axes=axes, split_rngs={"params": True})(net)
    many = np.stack([x, x])
    made: Any = lifted.init(KEY, many)
    kernel = made["params"]["fc"]["kernel"]
    assert kernel.shape == (2, 2, 3)
    assert not np.allclose(kernel[0], kernel[1])
    one = jax.tree.map(lambda leaf: leaf[1], made)
    close(lifted.apply(made, many)[1], net.apply(one["params"], one["batch_stats"], x)[0])


def test_two_calls_of_one_linen_module_drop_differently():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            drop = jn.to_linen(jn.dropout(0.5), train=True)
            return drop(x), drop(x)

    both: Any = Twice().apply({}, np.ones((4, 9), np.float32), rngs={"dropout": KEY})
    assert not np.array_equal(*both)


def test_linen_refuses_what_it_does_for_its_own():
    module: Any = jn.to_linen(NET)
    made = module.init(KEY, X)
    with pytest.raises(errors.ModifyScopeVariableError):
        module.apply(made, X, train=True, rngs={"dropout": KEY})
    with pytest.raises(jn.NetError, match=r"drop: dropout\(0\.3\) is random in training and needs a key"):
        module.apply(made, X, train=True, mutable=["batch_stats"])
    with pytest.raises(jn.NetError, match="to_linen expects a name for collection, other than params, got 'params'"):
        jn.to_linen(NET, collection="params")


def test_a_step_of_nnx_is_ours():
    module: Any = jn.to_nnx(NET, X, rngs=nnx.Rngs(0))
    trees = NET.init(nnx.Rngs(0).params(), X)
    for kind, tree, name in zip((nnx.Param, nnx.BatchStat), trees, ("params", "state"), strict=True):
        close(nnx.to_pure_dict(nnx.state(module, kind))[name], tree)
    key = nnx.clone(module).rngs()
    optimizer = nnx.Optimizer(module, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def theirs(module: Any, optimizer: Any) -> Any:
        value, gradients = nnx.value_and_grad(lambda module: cross_entropy(module(X), Y))(module)
        optimizer.update(module, gradients)
        return value, gradients

    value, gradients = theirs(module, optimizer)
    ours = jax.jit(lambda key: step(NET, *trees, key))(key)
    close(ours[:2], (value, nnx.to_pure_dict(gradients)["params"]))
    own = nnx.to_pure_dict(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    close(ours[2:], (own["params"], own["state"]))
    module.eval()
    want = module(X)
    close(NET.apply(ours[2], ours[3], X)[0], want)
    # Both ways once more.
    again = jn.from_flax_module(module)
    close(again.apply(*again.init(KEY, X), X)[0], want)
    held: Any = jn.to_nnx(NET, X, rngs=1, trained=ours[2:])
    held.eval()
    close(held(X), want)
    with pytest.raises(jn.NetError, match="to_nnx expects the network's arrays, got others: params/0/bias"):
        jn.to_nnx(jn.serial(*NET.children.values()), X, rngs=1, trained=ours[2:])


class Recurrent(nnx.Module):
    """Every cell of NNX, one way and both ways."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.lstm = nnx.RNN(nnx.LSTMCell(3, 4, rngs=rngs))
        self.fast = nnx.RNN(nnx.OptimizedLSTMCell(4, 5, rngs=rngs), reverse=True, keep_order=True)
        self.gru = nnx.RNN(nnx.GRUCell(5, 4, rngs=rngs))
        self.plain = nnx.RNN(nnx.SimpleCell(4, 3, rngs=rngs))
        self.both = nnx.Bidirectional(nnx.RNN(nnx.GRUCell(3, 2, rngs=rngs)), nnx.RNN(nnx.LSTMCell(3, 2, rngs=rngs)))

    def __call__(self, x: Any) -> Any:
        for each in (self.lstm, self.fast, self.gru, self.plain, self.both):
            x = each(x)
        return x


RECURRENT = jn.serial(
    lstm=jn.recurrent(jn.lstm_cell(4)),
    fast=jn.recurrent(jn.lstm_cell(5), reverse=True),
    gru=jn.recurrent(jn.gru_cell(4)),
    plain=jn.recurrent(jn.rnn_cell(3)),
    both=jn.bidirectional(jn.gru_cell(2), jn.lstm_cell(2)),
)


def recurrent() -> tuple[Recurrent, Any]:
    """Return the module with every weight and bias drawn, and its variables."""
    module = Recurrent(nnx.Rngs(0))
    given = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    drawn = {path: floats(*leaf.shape, seed=k, scale=0.5) for k, (path, leaf) in enumerate(paths(given).items())}
    nnx.update(module, nested(drawn))
    return module, nested(drawn)


def test_recurrent_cells_of_nnx():
    (module, given), x = recurrent(), floats(2, 6, 3)
    params, state = from_flax(RECURRENT, given, x, module=module)

    graphdef, own, rest = nnx.split(module, nnx.Param, ...)

    def both(params: Any, own: Any, x: Any) -> Any:
        def ours(params: Any) -> Any:
            y = RECURRENT.apply(params, state, x)[0]
            return jnp.sum(y**2), y

        def theirs(own: Any) -> Any:
            y = nnx.merge(graphdef, own, jax.tree.map(jnp.asarray, rest))(x)  # variables of this trace
            return jnp.sum(y**2), y

        return jax.grad(ours, has_aux=True)(params), jax.grad(theirs, has_aux=True)(own)

    (gradients, y), (theirs, want) = once(both, params, own, x)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-6)
    theirs = from_flax(RECURRENT, nnx.to_pure_dict(theirs), x)[0]
    # NNX's GRU has no second bias.
    for tree in (gradients["gru"], gradients["both"]["forward"]):
        tree["recurrent_bias"] = jnp.zeros_like(tree["recurrent_bias"])
    for path, leaf in paths(gradients).items():
        np.testing.assert_allclose(leaf, paths(theirs)[path], rtol=1e-5, atol=1e-6, err_msg=path)
    back = to_flax(RECURRENT, params, state, module, x)
    for path, leaf in paths(back).items():
        np.testing.assert_array_equal(leaf, paths(given)[path], err_msg=path)
    nnx.update(module, back)
    params["gru"]["recurrent_bias"] = np.ones(4, np.float32)
    with pytest.raises(jn.NetError, match="expects zeros in params/gru/recurrent_bias, which the module does not have"):
        to_flax(RECURRENT, params, state, module, x)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"lstm": jn.recurrent(jn.lstm_cell(4), reverse=True)}, "lstm: RNN has reverse=False, got True"),
        ({"fast": jn.recurrent(jn.lstm_cell(5))}, "fast: RNN has reverse=True, got False"),
        (
            {"plain": jn.recurrent(jn.rnn_cell(3, activation=jax.nn.relu))},
            "SimpleCell has activation='tanh', got 'relu'",
        ),
        ({"gru": jn.recurrent(jn.gru_cell(4, reset_after=False))}, "gru: GRUCell has reset_after=True, got False"),
    ],
    ids=lambda case: "" if isinstance(case, dict) else case,
)
def test_recurrent_settings_of_nnx_are_compared(other: Any, message: str):
    module, given = recurrent()
    with pytest.raises(jn.NetError, match=re.escape(message)):
        from_flax(jn.serial(**{**RECURRENT.children, **other}), given, floats(2, 6, 3), module=module)


class Set(nn.Module):
    """Recurrent layers under names of their own in Linen."""

    def setup(self) -> None:
        self.rnn = nn.RNN(nn.OptimizedLSTMCell(4))
        self.both = nn.Bidirectional(nn.RNN(nn.GRUCell(3)), nn.RNN(nn.GRUCell(3)))

    def __call__(self, x: Any) -> Any:
        y: Any = self.rnn(x)
        return self.both(y)


CELLS = jn.serial(
    jn.embed(7, 3),
    jn.recurrent(jn.lstm_cell(4)),
    jn.recurrent(jn.gru_cell(4)),
    jn.recurrent(jn.rnn_cell(4), jn.lstm_cell(4)),
    jn.bidirectional(jn.lstm_cell(3)),
)
# A network, its counterpart in Flax, an input, and rename=.
ROWS: dict[str, tuple[jn.Net, nn.Module, Any, dict[str, str]]] = {
    "layers of every kind": (LAYERS, Layers(), floats(2, 6, 5, 4), {"stem": "0"}),
    "cells of every kind": (CELLS, Cells(), integers(2, 5, high=7), {}),
    "cells by name": (
        jn.serial(rnn=jn.recurrent(jn.lstm_cell(4)), both=jn.bidirectional(jn.gru_cell(3))),
        Set(),
        floats(2, 5, 3),
        {},
    ),
    "blocks on one level": (jn.models.resnet_cifar(14, shortcut="B"), ResNet(), floats(2, 8, 8, 3), RENAME),
    "blocks in a scan": (jn.models.resnet_cifar(14, shortcut="B", scan=True), ResNet(), floats(2, 8, 8, 3), RENAME),
    "transposed kernels": (
        jn.serial(layers_0=jn.conv_transpose(3, (3, 2))),
        nn.Sequential([nn.ConvTranspose(3, (3, 2), padding="VALID", transpose_kernel=True)]),
        floats(2, 5, 4, 2),
        {},
    ),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.slow_cases("blocks on one level", "blocks in a scan")
def test_variables_there_and_back_are_the_same_bits(name: str):
    net, module, x, rename = ROWS[name]
    given = variables(module, x)
    settings = {"module": module} if name in ("cells by name", "transposed kernels") else {}
    params, state = from_flax(net, given, x, rename=rename, **settings)
    back = to_flax(net, params, state, settings.get("module", given), x, rename=rename)
    assert jax.tree.structure(back) == jax.tree.structure(given)
    for path, leaf in paths(back).items():
        np.testing.assert_array_equal(leaf, paths(given)[path], err_msg=path)
    if name in ("cells by name", "transposed kernels"):
        close(jax.jit(net.apply)(params, state, x)[0], jax.jit(module.apply)(back, x))


def test_modules_in_the_order_of_calls_and_mistakes():
    net, x = jn.serial(jn.dense(4), jax.nn.relu, jn.dense(4)), floats(3, 4)
    params, state = net.init(KEY, x)
    back = to_flax(net, params, state, Nested(), x)
    np.testing.assert_array_equal(back["params"]["Dense_0"]["kernel"], params["2"]["kernel"])
    close(Nested().apply(back, x), net.apply(params, state, x)[0])
    with pytest.raises(jn.NetError, match="to_flax expects the network's arrays, got others: params/2/bias"):
        to_flax(net, {"0": params["0"]}, state, Nested(), x)
    with pytest.raises(jn.NetError, match=r"to_flax expects the network's arrays, got others: missing 1/bias"):
        to_flax(jn.serial(*[jn.dense(4)] * 3), params, state, Nested(), x, rename={"Dense_0": "0", "Dense_1": "2"})
