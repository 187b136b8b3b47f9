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


@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    features=st.integers(1, 3),
    pieces=st.integers(1, 4),
    use_bias=st.booleans(),
)
@pytest.mark.slow
def test_agrees_with_loops(shape, features, pieces, use_bias):
    """Output, and the gradient that flows through the winning piece alone, in float64."""
    x, g = floats(*shape), floats(*shape[:-1], features, seed=1)
    params = {"kernel": floats(shape[-1], pieces, features, seed=2), "bias": floats(pieces, features, seed=3)}
    params = params if use_bias else {"kernel": params["kernel"]}
    y, dx = np.zeros(g.shape), np.zeros(shape)
    dkernel, dbias = np.zeros(params["kernel"].shape), np.zeros((pieces, features))
    for place in np.ndindex(*g.shape):
        row, f = x[place[:-1]].astype(np.float64), place[-1]
        offset = params["bias"][:, f] if use_bias else np.zeros(pieces)
        values = [float(row @ params["kernel"][:, k, f]) + float(offset[k]) for k in range(pieces)]
        best = int(np.argmax(values))
        y[place] = values[best]
        dx[place[:-1]] += g[place] * params["kernel"][:, best, f]
        dkernel[:, best, f] += g[place] * row
        dbias[best, f] += g[place]
    net = jn.maxout(features, pieces, use_bias=use_bias)
    assert jax.tree.map(jnp.shape, net.init(KEY, x)[0]) == jax.tree.map(jnp.shape, params)
    expected = {"y": y, "dx": dx, "dkernel": dkernel} | ({"dbias": dbias} if use_bias else {})
    near(pull(net, params, {}, x, g), expected | {"state": {}}, 2e-6)


def torch_maxout(x, kernel, bias, g):
    import torch

    x, kernel, bias = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, kernel, bias))
    y = (torch.einsum("bi,ikf->bkf", x, kernel) + bias).amax(1)
    y.backward(torch.tensor(g, dtype=torch.float64))
    return {
        "y": y.detach().numpy(),
        **{f"d{n}": np.asarray(t.grad) for n, t in zip(("x", "kernel", "bias"), (x, kernel, bias))},
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_torch(dtype):
    x, kernel, bias, g = floats(5, 4), floats(4, 3, 2, seed=1), floats(3, 2, seed=2), floats(5, 2, seed=3)
    expected = witness("layers/maxout", lambda: torch_maxout(x, kernel, bias, g))
    with jax.enable_x64(dtype is np.float64):
        params = {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.asarray(bias, dtype)}
        out = pull(jn.maxout(2, 3), params, {}, x.astype(dtype), g.astype(dtype))
        assert out["y"].dtype == dtype
        near(out, {**expected, "state": {}}, 1e-6 if dtype is np.float32 else 1e-14)


def test_one_piece_is_dense():
    x = jnp.asarray(floats(3, 4))
    params, _ = jn.maxout(2, 1).init(KEY, x)
    dense = {"kernel": params["kernel"][:, 0], "bias": params["bias"][0]}
    near(jn.maxout(2, 1).apply(params, {}, x)[0], jn.dense(2).apply(dense, {}, x)[0], 1e-6)


def test_two_pieces_make_a_rectifier():
    x = jnp.asarray(floats(3, 4))
    kernel = jnp.stack([jnp.eye(4), jnp.zeros((4, 4))], axis=1)
    net = jn.maxout(4, use_bias=False)
    near(net.apply({"kernel": kernel}, {}, x)[0], jax.nn.relu(x), 1e-6)


def test_each_piece_is_drawn_by_itself_at_the_scale_of_dense():
    """The fans an initializer sees are those of one piece."""
    params, _ = jn.maxout(60, 3, kernel_init=jax.nn.initializers.glorot_normal()).init(KEY, jnp.ones((1, 40)))
    kernel = np.asarray(params["kernel"])
    assert abs(kernel.std() - (2 / 100) ** 0.5) < 5 * (2 / 100) ** 0.5 / (2 * kernel.size) ** 0.5
    assert (kernel[:, 0] != kernel[:, 1]).all()


def given_to(x, net=jn.maxout(2, 3)):
    params, state = net.init(KEY, jnp.ones((1, 4)))
    return net.apply(params, state, x)


MISTAKES = {
    "features": (lambda: jn.maxout(0), r"maxout\(0\) expects features ≥ 1, got 0"),
    "pieces": (lambda: jn.maxout(2, 0), r"expects pieces ≥ 1, got 0"),
    "no integer": (lambda: jn.maxout(2, True), r"expects an integer for pieces, got bool"),
    "integers": (lambda: given_to(jnp.ones((2, 4), int)), r"maxout\(2, .*3\) expects floating input, got int32"),
    "rank": (lambda: given_to(jnp.ones(4)), r"expects \(batch, ..., features\), got \(4,\)"),
    "width": (
        lambda: given_to(jnp.ones((2, 5))),
        r"has kernel \(4, 3, 2\), but input \(2, 5\) needs kernel \(5, 3, 2\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
