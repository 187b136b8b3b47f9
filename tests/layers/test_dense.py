import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from tests.layers.near import near, pull
from tests.oracle import floats, witness

KEY = jax.random.key(0)


def torch_linear(x, kernel, bias, g):
    import torch

    layer = torch.nn.Linear(*kernel.shape, bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel.T))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    y.backward(torch.tensor(g, dtype=torch.float64))
    found = {"y": y.detach().numpy(), "dx": np.asarray(x.grad), "dkernel": np.asarray(layer.weight.grad).T}
    return found if bias is None else found | {"dbias": np.asarray(layer.bias.grad)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["matrix", "no_bias", "steps"])
def test_dense_agrees_with_torch(name, dtype):
    shape = (3, 2, 5) if name == "steps" else (6, 5)
    x, g, kernel = floats(*shape), floats(*shape[:-1], 4, seed=1), floats(5, 4, seed=2)
    bias = None if name == "no_bias" else floats(4, seed=3)
    expected = witness(f"layers/dense_{name}", lambda: torch_linear(x, kernel, bias, g))
    with jax.enable_x64(dtype is np.float64):
        params = {"kernel": jnp.asarray(kernel, dtype)}
        params |= {} if bias is None else {"bias": jnp.asarray(bias, dtype)}
        out = pull(jn.dense(4, use_bias=bias is not None), params, {}, x.astype(dtype), g.astype(dtype))
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(out))
        near(out, {**expected, "state": {}}, 1e-6 if dtype is np.float32 else 1e-14)


@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=4), features=st.integers(1, 4), use_bias=st.booleans())
@pytest.mark.slow  # PyTorch agrees on single shapes, above
def test_dense_agrees_with_loops(shape, features, use_bias):
    x, g = floats(*shape), floats(*shape[:-1], features, seed=1)
    kernel, bias = floats(shape[-1], features, seed=2), floats(features, seed=3) * use_bias
    y, dx, dkernel, dbias = (np.zeros(s) for s in (g.shape, shape, kernel.shape, bias.shape))
    for *row, f in np.ndindex(*g.shape):
        out, dbias[f] = (*row, f), dbias[f] + g[(*row, f)]
        y[out] = bias[f]
        for i in range(shape[-1]):
            y[out] += float(x[(*row, i)]) * float(kernel[i, f])
            dx[(*row, i)] += float(g[out]) * float(kernel[i, f])
            dkernel[i, f] += float(g[out]) * float(x[(*row, i)])
    params = {"kernel": kernel} | ({"bias": bias} if use_bias else {})
    net = jn.dense(features, use_bias=use_bias)
    assert jax.tree.map(jnp.shape, net.init(KEY, x)[0]) == jax.tree.map(jnp.shape, params)
    expected = {"y": y, "dx": dx, "dkernel": dkernel, "state": {}} | ({"dbias": dbias} if use_bias else {})
    near(pull(net, params, {}, x, g), expected, 2e-6)


def test_initial_values_are_lecun_normal():
    params, _ = jn.dense(200).init(KEY, jnp.ones((1, 100)))
    kernel = np.asarray(params["kernel"])
    assert abs(kernel.std() - 0.1) < 5 * 0.1 / (2 * kernel.size) ** 0.5
    assert not np.asarray(params["bias"]).any()


def test_padding_reaches_no_gradient():
    """The output does not depend on NaN in the padding of a sequence."""
    lengths, x, g = jnp.array([2, 0, 3]), floats(3, 3, 4), floats(3, 3, 2, seed=1)
    real = np.arange(3)[None] < np.asarray(lengths)[:, None]
    net = jn.dense(2)
    params, state = net.init(KEY, x)

    @jax.jit
    def run(values):
        y, back = jax.vjp(
            lambda p, v: net.apply(p, state, jn.Padded(v, lengths))[0].zeroed(), params, jnp.asarray(values)
        )
        dparams, dx = back(jnp.asarray(g))
        return {"y": y, "dx": dx, **{f"d{name}": leaf for name, leaf in dparams.items()}}

    out = run(np.where(real[..., None], x, np.nan))
    flat = pull(net, params, state, x[real], g[real])
    near(out["y"][real], flat["y"], 1e-6)
    near(out["dx"][real], flat["dx"], 1e-6)
    assert not np.asarray(out["dx"])[~real].any()
    near({name: out[name] for name in ("dkernel", "dbias")}, {name: flat[name] for name in ("dkernel", "dbias")}, 1e-6)


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_flatten_keeps_row_major_order(shape):
    x = floats(*shape)
    y = np.asarray(jn.flatten(jnp.asarray(x)))
    assert y.shape == (shape[0], x[0].size)
    for k in range(shape[0]):
        assert list(y[k]) == list(x[k].flat)


def test_flatten_agrees_with_torch():
    def compute():
        import torch

        x = torch.tensor(floats(2, 3, 4, 2), requires_grad=True)
        y = torch.flatten(x, 1)
        y.backward(torch.tensor(floats(2, 24, seed=1)))
        assert x.grad is not None
        return {"y": y.detach().numpy(), "dx": x.grad.numpy()}

    expected = witness("layers/flatten", compute)
    out = pull(jn.as_net(jn.flatten), {}, {}, floats(2, 3, 4, 2), floats(2, 24, seed=1))
    near(out, {**expected, "state": {}}, 0)


def given_to(x, net=jn.dense(3)):
    params, state = net.init(KEY, jnp.ones((1, 4)))
    return net.apply(params, state, x)


MISTAKES = {
    "features": (lambda: jn.dense(0), r"dense\(0\) expects features ≥ 1, got 0"),
    "fraction": (lambda: jn.dense(2.0), r"expects an integer for features, got float 2.0"),  # type: ignore[arg-type]
    "integers": (
        lambda: given_to(jnp.ones((2, 4), int)),
        r"dense\(3\) expects floating input, got int32 \(2, 4\); .*embed",
    ),
    "rank": (lambda: given_to(jnp.ones(4)), r"expects \(batch, ..., features\), got \(4,\); .*x\[None\]"),
    "rank at init": (lambda: jn.dense(3).init(KEY, jnp.ones(4)), r"expects \(batch, ..., features\), got \(4,\)"),
    "width": (lambda: given_to(jnp.ones((2, 5))), r"has kernel \(4, 3\), but input \(2, 5\) needs kernel \(5, 3\)"),
    "list": (lambda: given_to([[1.0] * 4]), r"expects an array, got list"),
    "parameters": (lambda: jn.dense(3).apply({}, {}, jnp.ones((2, 4))), r"needs the parameters kernel, bias, got none"),
    "scalar": (lambda: jn.flatten(jnp.ones(())), r"flatten expects \(batch, ...\), got a scalar"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
