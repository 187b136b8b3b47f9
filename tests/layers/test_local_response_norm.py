import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from tests.layers.near import call, near
from tests.layers.test_norm import agree, both_precisions, example, torch_values
from tests.oracle import witness

RESPONSES = {
    "odd": (3, (2, 2, 3, 7)),
    "even": (4, (2, 3, 6)),
    "two": (2, (2, 3, 4)),
    "wide": (9, (2, 3, 4)),
    "one": (1, (2, 2, 3)),
}


@both_precisions
@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.slow_cases("odd-float64", "even-float32", "two-float64", "wide-float32", "wide-float64", "one-float64")
def test_agrees_with_torch(name, dtype):
    size, shape = RESPONSES[name]

    def forward(F, x, *_):
        return F.local_response_norm(x.movedim(-1, 1), size, alpha=0.9, beta=0.6, k=1.5).movedim(1, -1)

    expected = witness(f"layers/local_response_norm_{name}", lambda: torch_values(forward, shape, (1,)))
    agree(jn.local_response_norm(size, alpha=0.9, beta=0.6, bias=1.5), shape, (1,), dtype, expected)


def test_defaults_are_torchs():
    def forward(F, x, *_):
        return F.local_response_norm(100 * x.movedim(-1, 1), 5).movedim(1, -1)

    expected = witness("layers/local_response_norm_defaults", lambda: torch_values(forward, (2, 2, 7), (1,)))
    near(jn.local_response_norm().apply({}, {}, 100 * jnp.asarray(example((2, 2, 7))))[0], expected["y"], 1e-6)


def test_alexnets():
    """The paper's sum with k = 2, n = 5, α = 1e-4, written out."""
    x = 100 * example((2, 9)).astype(np.float64)
    expected = np.zeros_like(x)
    for c in range(9):
        total = sum(x[:, j] ** 2 for j in range(max(0, c - 2), min(8, c + 2) + 1))
        expected[:, c] = x[:, c] / (2 + 1e-4 * total) ** 0.75
    net = jn.local_response_norm(5, alpha=5e-4, beta=0.75, bias=2.0)
    near(net.apply({}, {}, jnp.asarray(x, jnp.float32))[0], expected)


@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    size=st.integers(1, 7),
    numbers=st.tuples(st.floats(0.0, 2.0), st.floats(0.1, 1.5), st.floats(0.5, 2.0)),
)
@pytest.mark.slow  # PyTorch agrees on single shapes, above
def test_agrees_with_loops(shape, size, numbers):
    alpha, beta, bias = numbers
    x = example(shape)
    expected, c = np.zeros(shape), shape[-1]
    for place in np.ndindex(*shape):
        window = range(max(0, place[-1] - size // 2), min(c, place[-1] + (size + 1) // 2))
        total = sum(float(x[(*place[:-1], j)]) ** 2 for j in window)
        expected[place] = float(x[place]) / (bias + alpha / size * total) ** beta
    net = jn.local_response_norm(size, alpha=alpha, beta=beta, bias=bias)
    near(call(net, {}, {}, x)[0], expected)


def given_to(x, params=None):
    return jn.local_response_norm().apply(params or {}, {}, x)


MISTAKES = {
    "size": (lambda: jn.local_response_norm(0), r"local_response_norm\(size=0\) expects size ≥ 1"),
    "alpha": (lambda: jn.local_response_norm(alpha=-1.0), r"expects alpha ≥ 0, got -1"),
    "bias": (lambda: jn.local_response_norm(bias=0.0), r"expects bias > 0, got 0"),
    "beta": (lambda: jn.local_response_norm(beta="a"), r"expects a real number, got str 'a'; write it without quotes"),  # type: ignore[arg-type]
    "integers": (lambda: given_to(jnp.ones((2, 4), int)), r"floating input"),
    "rank": (lambda: given_to(jnp.ones(4)), r"expects \(batch, ..., channels\)"),
    "parameters": (lambda: given_to(jnp.ones((2, 4)), {"scale": 1}), r"has no parameters, got"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
