import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import jaxnets as jn
from tests.layers.near import call, near
from tests.oracle import floats, integers, witness

KEY = jax.random.key(0)


def torch_embedding(x, table, g):
    import torch

    layer = torch.nn.Embedding(*table.shape).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(table))
    y = layer(torch.tensor(x).long())
    y.backward(torch.tensor(g).double())
    return {"y": y.detach().numpy(), "dembedding": np.asarray(layer.weight.grad)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_torch(dtype):
    x, table, g = integers(4, 6, high=5), floats(5, 3), floats(4, 6, 3, seed=1)
    expected = witness("layers/embed", lambda: torch_embedding(x, table, g))
    with jax.enable_x64(dtype is np.float64):
        net = jn.embed(5, 3, dtype=dtype)
        params, _ = net.init(KEY, x)
        assert params["embedding"].dtype == dtype

        @jax.jit
        def run(table, x, g):
            y, back = jax.vjp(lambda table: net.apply({"embedding": table}, {}, x)[0], table)
            return y, *back(g)

        y, gradient = run(jnp.asarray(table, dtype), jnp.asarray(x), jnp.asarray(g, dtype))
        near(y, expected["y"], 0)
        near(gradient, expected["dembedding"], 1e-6 if dtype is np.float32 else 1e-14)


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    size=st.integers(1, 9),
    features=st.integers(1, 3),
    kind=st.sampled_from([np.int32, np.uint8, np.int16]),
)
def test_agrees_with_loops(shape, size, features, kind):
    x, table = integers(*shape, high=size).astype(kind), floats(size, features)
    expected = np.zeros((*shape, features))
    for place in np.ndindex(*shape):
        expected[place] = table[int(x[place])]
    near(call(jn.embed(size, features), {"embedding": jnp.asarray(table)}, {}, x)[0], expected, 0)


@jax.enable_x64(True)
def test_gradient_agrees_with_finite_differences():
    x, net = jnp.asarray(integers(3, 4, high=4)), jn.embed(4, 2, dtype=jnp.float64)
    params, state = net.init(KEY, x)
    check_grads(jax.jit(lambda p: jnp.tanh(net.apply(p, state, x)[0])), (params,), order=1, rtol=1e-7, atol=1e-8)


def test_initial_values_are_standard_normal():
    table = np.asarray(jn.embed(400, 50).init(KEY, jnp.zeros((1,), int))[0]["embedding"])
    assert abs(table.mean()) < 5 / table.size**0.5
    assert abs(table.std() - 1) < 5 / (2 * table.size) ** 0.5


def test_indices_out_of_range_that_are_traced_give_nan_and_no_gradient():
    net, table = jn.embed(3, 2), jnp.asarray(floats(3, 2))

    @jax.jit
    def run(table, x):
        return jax.vjp(lambda table: net.apply({"embedding": table}, {}, x)[0], table)

    y, back = run(table, jnp.array([0, -1, 3, 2, -3]))
    assert np.isnan(y[jnp.array([1, 2, 4])]).all()
    near(y[jnp.array([0, 3])], table[jnp.array([0, 2])], 0)
    near(back(jnp.ones((5, 2)))[0], [[1, 1], [0, 0], [1, 1]], 0)


def test_padding_may_hold_any_integer():
    net, table = jn.embed(3, 2), jnp.asarray(floats(3, 2))
    x = jn.Padded(jnp.array([[1, 99, -1], [2, 0, 7]]), jnp.array([1, 2]))

    def outputs(table):
        y, _ = net.apply({"embedding": table}, {}, x)
        assert isinstance(y, jn.Padded)
        return y.zeroed()

    y, back = jax.vjp(outputs, table)
    near(y, np.concatenate([table, np.zeros((1, 2))])[np.array([[1, 3, 3], [2, 0, 3]])], 0)
    near(back(jnp.ones((2, 3, 2)))[0], np.ones((3, 2)), 0)


def test_cast_lowers_the_output():
    net = jn.cast(jn.serial(table=jn.embed(3, 2)), jn.Policy(jnp.float32, jnp.bfloat16, jnp.bfloat16))
    params, state = net.init(KEY, jnp.array([1]))
    y, _ = net.apply(params, state, jnp.array([1]))
    assert (params["table"]["embedding"].dtype.name, y.dtype.name) == ("float32", "bfloat16")


def given_to(x, params=None):
    return jn.embed(3, 2).apply({"embedding": jnp.ones((3, 2))} if params is None else params, {}, x)


MISTAKES = {
    "floats": (lambda: given_to(jnp.ones((2, 3))), r"embed\(3, 2\) expects integers, got float32 \(2, 3\); .*astype"),
    "floats at init": (lambda: jn.embed(3, 2).init(KEY, jnp.ones(2)), r"expects integers, got float32"),
    "booleans": (lambda: given_to(jnp.array([True])), r"expects integers, got bool"),
    "large": (lambda: given_to(jnp.array([[0, 3]])), r"expects indices in \[0, 3\), got 3; .*vocabulary_size"),
    "negative": (lambda: given_to(np.array([2, -1])), r"expects indices in \[0, 3\), got -1"),
    "large in a sequence": (
        lambda: given_to(jn.Padded(jnp.array([[0, 5], [0, 9]]), jnp.array([2, 1]))),
        r"expects indices in \[0, 3\), got 5",
    ),
    "scalar": (lambda: given_to(jnp.array(1)), r"expects \(batch, ...\), got a scalar"),
    "list": (lambda: given_to([0, 1]), r"expects an array, got list"),
    "vocabulary": (lambda: jn.embed(0, 2), r"embed\(0, 2\) expects vocabulary_size ≥ 1, got 0"),
    "features": (lambda: jn.embed(3, 2.5), r"expects an integer for features, got float 2.5"),  # type: ignore[arg-type]
    "other size": (
        lambda: given_to(jnp.array([0]), {"embedding": jnp.ones((4, 2))}),
        r"has embedding \(4, 2\), but .* needs embedding \(3, 2\)",
    ),
    "other parameters": (
        lambda: given_to(jnp.array([0]), {"kernel": 0}),
        r"needs the parameters embedding, got kernel",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
