"""Positions added to sequences: learned ones against PyTorch, sines and cosines against the paper's formula."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near, pull
from tests.oracle import floats, witness

KEY = jax.random.key(0)
both_precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both_precisions
@pytest.mark.parametrize("time", [3, 5])
@pytest.mark.slow_cases("3-float64", "5-float32")
def test_learned_positions_agree_with_torch(time, dtype):
    """As `torch.nn.Embedding` of the steps; vectors after the last step have no gradient."""
    x, table, g = floats(2, time, 4), floats(5, 4, seed=1), floats(2, time, 4, seed=2)

    def compute():
        import torch

        tx = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        layer = torch.nn.Embedding(5, 4).double()
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(table))
        y = tx + layer(torch.arange(time))
        y.backward(torch.tensor(g, dtype=torch.float64))
        return {"y": y.detach().numpy(), "dx": np.asarray(tx.grad), "dembedding": np.asarray(layer.weight.grad)}

    expected = witness(f"layers/learned_positions_{time}", compute)
    with jax.enable_x64(dtype is np.float64):
        params = {"embedding": jnp.asarray(table, dtype)}
        out = pull(jn.learned_positions(5), params, {}, x.astype(dtype), g.astype(dtype))
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(out))
        near(out, {**expected, "state": {}}, 1e-6 if dtype is np.float32 else 1e-14)
    assert not np.asarray(out["dembedding"])[time:].any()


def test_learned_positions_start_small():
    table = np.asarray(jn.learned_positions(400).init(KEY, jnp.ones((1, 3, 50)))[0]["embedding"])
    assert table.shape == (400, 50)
    assert abs(table.std() - 0.02) < 5 * 0.02 / (2 * table.size) ** 0.5


def by_the_paper(time, width, period=10000.0):
    """Return the equations of section 3.5, one number at a time, in float64."""
    waves = np.zeros((time, width))
    for position in range(time):
        for i in range(width // 2):
            angle = position / period ** (2 * i / width)
            waves[position, 2 * i], waves[position, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return waves


@both_precisions
@pytest.mark.parametrize("period", [10000.0, 20.0])
def test_sinusoidal_positions_are_those_of_the_paper(period, dtype):
    time, width = 300, 6
    x, g = floats(2, time, width), floats(2, time, width, seed=1)
    with jax.enable_x64(dtype is np.float64):
        out = pull(jn.sinusoidal_positions(period=period), {}, {}, x.astype(dtype), g.astype(dtype))
        assert all(leaf.dtype == dtype for leaf in (out["y"], out["dx"]))
        # An angle is known to its last bit, and grows with the position.
        error = np.abs(np.asarray(out["y"], np.float64) - x - by_the_paper(time, width, period))
        assert (error <= 2 * np.finfo(dtype).eps * (2 + np.arange(time))[None, :, None]).all()
        near(out["dx"], g, 0)


def test_bfloat16_is_rounded_once():
    x = jnp.asarray(floats(2, 200, 8)).astype(jnp.bfloat16)
    y, _ = jn.sinusoidal_positions().apply({}, {}, x)
    assert y.dtype == jnp.bfloat16
    exact = (np.asarray(x, np.float64) + by_the_paper(200, 8)).astype(jnp.bfloat16)
    assert (np.asarray(y) == exact).mean() > 0.999
    near(y, exact, 2**-8)
    table, _ = jn.learned_positions(200).init(KEY, x)
    assert table["embedding"].dtype == jnp.float32
    assert jn.learned_positions(200).apply(table, {}, x)[0].dtype == jnp.bfloat16


def test_a_period_may_be_traced_and_mapped_over():
    x, periods = jnp.asarray(floats(2, 5, 4)), [10.0, 1000.0]

    def outputs(period):
        return jn.sinusoidal_positions(period=period).apply({}, {}, x)[0]

    for y, period in zip(jax.jit(jax.vmap(outputs))(jnp.asarray(periods)), periods, strict=True):
        near(y, np.asarray(x) + by_the_paper(5, 4, period), 1e-6)


@pytest.mark.parametrize("net", [jn.learned_positions(5), jn.sinusoidal_positions()], ids=str)
def test_padding_reaches_no_gradient(net):
    """Each padded sequence has the output that it has alone at its true length, with NaN as padding."""
    lengths, x, g = np.array([2, 0, 3], np.int32), floats(3, 3, 4), floats(3, 3, 4, seed=1)
    real = (np.arange(3)[None] < lengths[:, None])[..., None]
    params = {"embedding": jnp.asarray(floats(5, 4, seed=2))} if net.kind == "learned_positions" else {}

    @jax.jit
    def run(params, values):
        def outputs(params, values):
            y, _ = net.apply(params, {}, jn.Padded(values, jnp.asarray(lengths)))
            return y.zeroed()

        y, back = jax.vjp(outputs, params, values)
        return y, *back(jnp.asarray(g))

    y, dparams, dx = run(params, jnp.asarray(np.where(real, x, np.nan)))
    near(y, np.where(real, net.apply(params, {}, x)[0], 0), 1e-6)
    near(dx, np.where(real, g, 0), 0)
    if params:
        near(dparams["embedding"][:3], np.where(real, g, 0).sum(0), 1e-6)
        assert not dparams["embedding"][3:].any()


STEPS = jnp.ones((2, 6, 4))
MISTAKES = {
    "long": (
        lambda: jn.learned_positions(5).init(KEY, STEPS),
        r"^learned_positions\(5\) expects at most 5 steps, got 6 in \(2, 6, 4\); shorten the sequences, or use a "
        r"larger length$",
    ),
    "long later": (
        lambda: jn.learned_positions(5).apply({"embedding": jnp.ones((5, 4))}, {}, STEPS),
        r"^learned_positions\(5\) expects at most 5 steps, got 6 in \(2, 6, 4\); ",
    ),
    "length": (lambda: jn.learned_positions(0), r"^learned_positions\(0\) expects length ≥ 1, got 0$"),
    "other width": (
        lambda: jn.learned_positions(6).apply({"embedding": jnp.ones((6, 3))}, {}, STEPS),
        r"^learned_positions\(6\) has embedding \(6, 3\), but input \(2, 6, 4\) needs embedding \(6, 4\); pass input "
        r"of the shape it was initialized for, or call init again$",
    ),
    "other length": (
        lambda: jn.learned_positions(6).apply({"embedding": jnp.ones((9, 4))}, {}, STEPS),
        r"^learned_positions\(6\) has embedding \(9, 4\), but input \(2, 6, 4\) needs embedding \(6, 4\); ",
    ),
    "learned rank": (
        lambda: jn.learned_positions(6).init(KEY, STEPS[0]),
        r"^learned_positions\(6\) expects \(batch, time, features\), got \(6, 4\); add a batch axis with x\[None\]$",
    ),
    "learned integers": (
        lambda: jn.learned_positions(6).init(KEY, STEPS.astype(int)),
        r"^learned_positions\(6\) expects floating input, got int32 \(2, 6, 4\); convert it, x.astype\(jnp.float32\) / "
        r"255 for images, or use jn.embed for indices$",
    ),
    "odd": (
        lambda: jn.sinusoidal_positions().apply({}, {}, STEPS[..., :3]),
        r"^sinusoidal_positions\(\) expects an even number of features, got 3 in \(2, 6, 3\); sines and cosines come "
        r"in pairs; make it even with jn.dense$",
    ),
    "period": (
        lambda: jn.sinusoidal_positions(period=0.0),
        r"^sinusoidal_positions\(period=0.0\) expects period > 0, got 0$",
    ),
    "rank": (
        lambda: jn.sinusoidal_positions().apply({}, {}, jnp.ones((2, 3, 5, 4))),
        r"^sinusoidal_positions\(\) expects \(batch, time, features\), got \(2, 3, 5, 4\); join its axes of positions "
        r"with x.reshape$",
    ),
    "integers": (
        lambda: jn.sinusoidal_positions().apply({}, {}, STEPS.astype(int)),
        r"^sinusoidal_positions\(\) expects floating input, got int32 \(2, 6, 4\); convert it, ",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
