"""What the page says of Flax, on which the library depends."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxnets as jn
from tests.coming_from.page import Checks, Row, apply, close, differ, images, rows
from tests.oracle import floats, integers

ROWS = rows("Flax")
KEY = jax.random.key(0)
checks = Checks()


@pytest.mark.promotes
@pytest.mark.parametrize("there", ROWS)
@pytest.mark.slow_cases("nn.RNN(nn.LSTMCell(4), return_carry=True)")
def test_row(there: str):
    checks[there](ROWS[there])


def test_every_row_is_checked():
    assert set(checks) == set(ROWS)


def code(row: Row, **names: Any) -> Any:
    return row.theirs(nn=nn, nnx=nnx, optax=optax, **names)


@checks.row("nn.Dense(8)")
@checks.row("nn.Conv(6, (3, 3))")
@checks.row("nn.Conv(6, (3, 3), strides=2, padding=1)")
@checks.row("nn.ConvTranspose(6, (4, 4), strides=(2, 2))")
def weighted(row: Row):
    x, module = images(), code(row)
    params = {name: floats(*leaf.shape) for name, leaf in jax.eval_shape(module.init, KEY, x)["params"].items()}
    want, mine = jax.jit(module.apply)({"params": params}, x), params
    if "Transpose" in row.there:
        differ(apply(row.ours(), x, params), want)
        mine = params | {"kernel": params["kernel"][::-1, ::-1]}
    close(apply(row.ours(), x, mine), want)
    if row.there == "nn.Conv(6, (3, 3))":
        assert jax.eval_shape(nn.Conv(6, 3).init, KEY, x[0])["params"]["kernel"].shape == (3, 3, 6)
    if row.there == "nn.Dense(8)":
        wide = images(1, 900)
        both = jax.jit(lambda: (nn.Dense(900).init(KEY, wide)["params"], jn.dense(900).init(KEY, wide)[0]))()
        theirs, ours = jax.tree.map(np.asarray, both)
        close(theirs["kernel"].std() * 30, 1, 0.01)
        close(ours["kernel"].std() * 30, 1, 0.01)
        close(abs(ours["kernel"]).max(), abs(theirs["kernel"]).max(), 0.01)  # both are cut off at the same
        assert not ours["bias"].any()
        assert not theirs["bias"].any()


@checks.row("nn.max_pool(x, (2, 2), strides=(2, 2))")
@checks.row('nn.avg_pool(x, (3, 3), strides=(2, 2), padding="SAME")')
def pool(row: Row):
    x = images(2, 7, 7, 3)
    close(apply(row.ours(), x), jax.jit(lambda x: code(row, x=x))(x))
    for theirs in (nn.max_pool, nn.avg_pool):
        assert jax.eval_shape(lambda x, theirs=theirs: theirs(x, (2, 2)), x).shape == (2, 6, 6, 3)


@checks.row("nn.BatchNorm(use_running_average=False)")
@checks.row("nnx.BatchNorm(3, rngs=nnx.Rngs(0))")
def batch_norm(row: Row):
    x, module = images(2, 3, 3, 3), code(row)
    if row.there.startswith("nnx"):
        module.train()
        want, theirs = module(x), {"mean": module.mean.get_value(), "var": module.var.get_value()}
    else:
        want, variables = jax.jit(lambda: module.apply(module.init(KEY, x), x, mutable=["batch_stats"]))()
        theirs = variables["batch_stats"]

    def fresh(net):
        params, state = net.init(KEY, x)
        return net.apply(params, state, x, train=True)

    (y, new), (_, usual) = jax.jit(lambda: [fresh(net) for net in (row.ours(), jn.batch_norm())])()
    close(y, want)
    close(new["mean"], theirs["mean"])
    close(new["var"], theirs["var"])
    close(usual["mean"], 10 * np.asarray(theirs["mean"]))
    close(usual["var"], 0.9 + 0.1 * x.reshape(-1, 3).var(0, ddof=1))


@checks.row("nn.LayerNorm()")
@checks.row("nn.GroupNorm(num_groups=3)")
def norm(row: Row):
    x, module = 1e-3 * images(2, 4, 4, 6), code(row)
    want = jax.jit(lambda: module.apply(module.init(KEY, x), x))()
    params = {"scale": np.ones(6, np.float32), "bias": np.zeros(6, np.float32)}
    close(apply(row.ours(), x, params), want, 1e-4)
    differ(apply(jn.layer_norm() if "Layer" in row.there else jn.group_norm(3), x, params), want, 0.1)


@checks.row("nn.RMSNorm()")
def rms_norm(row: Row):
    x, module = 1e-3 * images(2, 4, 4, 6), code(row)  # so small that ε is seen
    want = jax.jit(lambda: module.apply(module.init(KEY, x), x))()
    close(apply(row.ours(), x, {"scale": np.ones(6, np.float32)}), want)


@checks.row("nn.Dropout(0.2, deterministic=False)")
def dropout(row: Row):
    x = np.ones((100, 400), np.float32)
    theirs = jax.jit(lambda: code(row).apply({}, x, rngs={"dropout": KEY}))()
    for y in map(np.asarray, (theirs, apply(row.ours(), x, key=KEY, train=True))):
        close(np.unique(y), [0, 1.25])
        assert abs(float((y > 0).mean()) - 0.8) < 0.01


@checks.row("nn.Dropout(0.2, broadcast_dims=(1, 2, 3), deterministic=False)")
def drop_path(row: Row):
    x = np.ones((2000, 2, 3, 2), np.float32)
    theirs = jax.jit(lambda: code(row).apply({}, x, rngs={"dropout": KEY}))()
    for y in map(np.asarray, (theirs, apply(row.ours(), x, key=KEY, train=True))):
        close(np.unique(y), [0, 1.25])
        assert (y == y[:, :1, :1, :1]).all()
        assert abs(float((y > 0).mean()) - 0.8) < 0.04
    assert apply(row.ours(), x[:, 0, 0], key=KEY, train=True).shape == (2000, 2)


@checks.row("nn.WeightNorm(nn.Dense(8))")
def weight_norm(row: Row):
    x, module = floats(5, 3), code(row)
    shapes = jax.eval_shape(module.init, KEY, x)["params"]
    params = jax.tree.map(lambda leaf: floats(*leaf.shape), shapes)
    own, scale = params["layer_instance"], params["layer_instance/kernel/scale"]
    close(apply(row.ours(), x, own | {"scale": scale}), jax.jit(module.apply)({"params": params}, x))
    both = jax.jit(lambda: (module.init(KEY, x)["params"], row.ours().init(KEY, x)[0]))()
    theirs, ours = jax.tree.map(np.asarray, both)
    close(theirs["layer_instance/kernel/scale"], np.ones(8))
    close(ours["scale"], np.linalg.norm(ours["kernel"], axis=0))


@checks.row("nn.SpectralNorm(nn.Dense(8))")
def spectral_norm(row: Row):
    x, module, net = floats(5, 3), code(row), row.ours()
    both = jax.jit(lambda: (module.init(KEY, x, update_stats=False), net.init(KEY, x)))()
    theirs, (_, state) = jax.tree.map(np.asarray, both)
    params = {"kernel": floats(3, 8), "bias": floats(8)}
    theirs = theirs | {"params": {"layer_instance": params}}
    step = jax.jit(lambda given: module.apply(given, x, update_stats=True, mutable=["batch_stats"]))
    train = jax.jit(lambda state: net.apply(params, state, x, train=True))
    for _ in range(100):
        theirs = theirs | step(theirs)[1]
        state = train(state)[1]
    close(apply(net, x, params, state), module.apply(theirs, x, update_stats=False))


@checks.row("nn.MultiHeadDotProductAttention(num_heads=2)")
def attention(row: Row):
    x, module = floats(2, 5, 6), code(row)
    start = jax.jit(module.init)(KEY, x)["params"]
    theirs = jax.tree.map(lambda leaf: floats(*leaf.shape, seed=1), start)
    params = {
        name: {"kernel": leaves["kernel"].reshape(6, 6), "bias": leaves["bias"].reshape(6)}
        for name, leaves in theirs.items()
    }
    close(apply(row.ours(), x, params), jax.jit(module.apply)({"params": theirs}, x))


@checks.row("nn.dot_product_attention(q, k, v, mask=nn.make_attention_mask(s, s, jnp.equal))")
def segments(row: Row):
    q, k, v = (floats(2, 5, 2, 4, seed=seed) for seed in range(3))
    s = np.array([[0, 0, 1, 1, 1], [2, 2, 2, 2, 5]])
    close(row.ours(q=q, k=k, v=v, s=s), code(row, jnp=jnp, q=q, k=k, v=v, s=s))
    differ(jn.ops.attention(*map(jnp.asarray, (q, k, v))), row.ours(q=q, k=k, v=v, s=s))


@checks.row("nn.Embed(500, 20)")
def embed(row: Row):
    indices, module = integers(3, 4, high=500), code(row)
    variables, (ours, _) = jax.jit(lambda: (module.init(KEY, indices), row.ours().init(KEY, indices)))()
    close(apply(row.ours(), indices, variables["params"]), jax.jit(module.apply)(variables, indices))
    close(np.std(variables["params"]["embedding"]), 20**-0.5, 0.03)
    close(np.std(ours["embedding"]), 1, 0.03)


@checks.row("nn.RNN(nn.LSTMCell(4), return_carry=True)")
@checks.row("nn.RNN(nn.GRUCell(4))")
def recurrent(row: Row):
    x, module, net = floats(2, 5, 3), code(row), row.ours()
    start, (ours, _) = jax.jit(lambda: (module.init(KEY, x)["params"], net.init(KEY, x)))()
    params = jax.tree.map(lambda leaf: floats(*leaf.shape, seed=1), start)
    theirs = jax.jit(module.apply)({"params": params}, x)
    y = apply(net, x, *jn.interop.from_flax(net, {"params": params["cell"]}, x))
    if "GRU" in row.there:
        close(y, theirs)
        return
    (cell, hidden), want = theirs
    close(y[0], want)
    close(y[1].cell, cell)
    close(y[1].hidden, hidden)
    assert not any(np.any(leaf) for path, leaf in jn.paths.paths(start).items() if path.endswith("bias"))
    assert ours["bias"].tolist() == [0] * 4 + [1] * 4 + [0] * 8


@checks.row("nn.gelu")
def gelu(row: Row):
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    np.testing.assert_array_equal(row.ours()(x), code(row)(x))


@checks.row("optax.softmax_cross_entropy_with_integer_labels")
@checks.row("optax.sigmoid_binary_cross_entropy")
@checks.row("optax.l2_loss")
def loss(row: Row):
    outputs = floats(2, 5, 4)
    targets = integers(2, 5, high=4) if "labels" in row.there else np.abs(floats(2, 5, 4, seed=1)) / 4
    want, found = (np.asarray(jax.jit(loss)(outputs, targets)) for loss in (code(row), row.ours()))
    assert found.shape == (2,)
    close(found, want.reshape(2, -1).mean(1))


@checks.row("nnx.Linear(3, 8, rngs=nnx.Rngs(0))")
def linear(row: Row):
    x, module = floats(5, 3), code(row)
    params = {"kernel": module.kernel.get_value(), "bias": floats(8)}
    module.bias.set_value(params["bias"])
    close(apply(row.ours(), x, params), module(x))
