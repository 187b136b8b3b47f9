import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near
from tests.oracle import floats, normal_like, witness

KEY = jax.random.key(0)
GATES = {"glu": jax.nn.sigmoid, "swiglu": jax.nn.silu, "geglu": jax.nn.gelu}


def torch_gated(name, x, params, g):
    """By `glu` itself, which gates its first half by its second, or written out from the paper's equations."""
    import torch

    F = torch.nn.functional
    params = jax.tree.map(lambda leaf: torch.tensor(leaf, dtype=torch.float64, requires_grad=True), params)
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)

    def affine(part):
        return x @ part["kernel"] + part["bias"] if "bias" in part else x @ part["kernel"]

    gate, up = affine(params["gate"]), affine(params["up"])
    if name == "glu":
        y = F.glu(torch.cat([up, gate], -1))
    else:
        y = (F.silu(gate) if name == "swiglu" else F.gelu(gate, approximate="tanh")) * up
    y.backward(torch.tensor(g, dtype=torch.float64))
    gradients = {f"d{path}": np.asarray(leaf.grad) for path, leaf in jn.paths.paths(params).items()}
    return {"y": y.detach().numpy(), "dx": np.asarray(x.grad), **gradients}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", GATES)
@pytest.mark.slow_cases("glu-float64", "geglu-float32")
def test_agrees_with_torch(name, dtype):
    net = jn.gated_dense(3, activation=GATES[name], use_bias=name != "swiglu")
    x, g = floats(4, 2, 5), floats(4, 2, 3, seed=1)
    params = normal_like(jax.eval_shape(net.init, KEY, x)[0], seed=2)
    expected = witness(f"layers/gated_{name}", lambda: torch_gated(name, x, params, g))
    with jax.enable_x64(dtype is np.float64):
        x, g, params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (x, g, params))

        @jax.jit
        def run(params, x, g):
            y, back = jax.vjp(lambda p, x: net.apply(p, {}, x)[0], params, x)
            return y, *back(g)

        y, dparams, dx = run(params, x, g)
        found = {"y": y, "dx": dx, **{f"d{path}": leaf for path, leaf in jn.paths.paths(dparams).items()}}
        assert all(leaf.dtype == dtype for leaf in found.values())
        near(found, expected, 2e-6 if dtype is np.float32 else 1e-14)


def test_each_map_is_drawn_by_itself_as_dense_is():
    params, state = jn.gated_dense(200).init(KEY, jnp.ones((1, 100)))
    assert state == {}
    kernels = [np.asarray(params[name]["kernel"]) for name in ("gate", "up")]
    for kernel in kernels:
        assert abs(kernel.std() - 0.1) < 5 * 0.1 / (2 * kernel.size) ** 0.5
    assert (kernels[0] != kernels[1]).all()
    assert not any(params[name]["bias"].any() for name in ("gate", "up"))


def test_padding_reaches_no_gradient():
    """Padded sequences have the outputs and gradients of their real steps alone, with NaN as padding."""
    lengths, x, g = jnp.array([2, 0, 3]), floats(3, 3, 4), floats(3, 3, 2, seed=1)
    real, net = np.arange(3)[None] < np.asarray(lengths)[:, None], jn.gated_dense(2)
    params = normal_like(jax.eval_shape(net.init, KEY, x)[0])

    def padded(params, values):
        y, _ = net.apply(params, {}, jn.Padded(values, lengths))
        assert isinstance(y, jn.Padded)
        return y.zeroed()

    @jax.jit
    def run(values, some, g, some_g):
        both = jax.vjp(padded, params, values), jax.vjp(lambda p, v: net.apply(p, {}, v)[0], params, some)
        return [(y, *back(cotangent)) for (y, back), cotangent in zip(both, (g, some_g), strict=True)]

    spoilt = np.where(real[..., None], x, np.nan)
    (y, dparams, dx), (flat, dflat, dsome) = run(spoilt, x[real], jnp.asarray(g), jnp.asarray(g[real]))
    near(y[real], flat, 1e-6)
    near(dx[real], dsome, 1e-6)
    assert not np.asarray(dx)[~real].any()
    near(jn.paths.paths(dparams), jn.paths.paths(dflat), 1e-6)


def test_bfloat16_stays():
    net, x = jn.gated_dense(3), jnp.ones((2, 4), jnp.bfloat16)
    params, _ = net.init(KEY, x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert net.apply(params, {}, x)[0].dtype == jnp.bfloat16


def test_its_label_shows_the_gate():
    assert repr(jn.gated_dense(8)) == "gated_dense(8)"
    assert repr(jn.gated_dense(8, activation=jax.nn.silu, use_bias=False)) == (
        "gated_dense(8, activation=silu, use_bias=False)"
    )


def given_to(x, params=None, **options):
    net = jn.gated_dense(4, **options)
    drawn, state = net.init(KEY, jnp.ones((1, 4)))
    return jn.serial(ff=net).apply({"ff": drawn | (params or {})}, state, x)


MISTAKES = {
    "features": (lambda: jn.gated_dense(0), r"^gated_dense\(0\) expects features ≥ 1, got 0$"),
    "no function": (
        lambda: jn.gated_dense(3, activation="silu"),  # type: ignore[arg-type]
        r"^gated_dense\(3, activation='silu'\) expects for activation a function \(x\) -> y, got str 'silu'$",
    ),
    "none": (
        lambda: jn.gated_dense(3, activation=None),  # type: ignore[arg-type]
        r"^gated_dense\(3, activation=None\) expects for activation a function \(x\) -> y, got None; the identity is "
        r"jax.nn.identity$",
    ),
    "another shape": (
        lambda: given_to(jnp.ones((2, 4)), activation=jax.nn.glu),
        r"^ff: gated_dense\(4, activation=glu\) expects an activation that keeps the shape \(2, 4\), got \(2, 2\); "
        r"jax.nn.glu is itself a gate, here σ is jax.nn.sigmoid$",
    ),
    "integers": (
        lambda: given_to(jnp.ones((2, 4), int)),
        r"^ff: gated_dense\(4\) expects floating input, got int32 \(2, 4\); convert it, x.astype\(jnp.float32\) / 255 "
        r"for images, or use jn.embed for indices$",
    ),
    "rank": (
        lambda: given_to(jnp.ones(4)),
        r"^ff: gated_dense\(4\) expects \(batch, ..., features\), got \(4,\); add a batch axis with x\[None\]$",
    ),
    "width": (
        lambda: given_to(jnp.ones((2, 5))),
        r"^ff/gate: dense\(4\) has kernel \(4, 4\), but input \(2, 5\) needs kernel \(5, 4\); pass input of the shape "
        r"it was initialized for, or call init again$",
    ),
    "a parameter missing": (
        lambda: given_to(jnp.ones((2, 4)), {"up": {}}),
        r"missing parameters ff/up/bias, ff/up/ker",
    ),
    "a parameter too many": (lambda: given_to(jnp.ones((2, 4)), {"down": {}}), r"needs the parameters gate, up, got"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
