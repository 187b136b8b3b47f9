"""Layers that corrupt their input in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats

KEY = jax.random.key(4)
X = floats(50, 400)
NOISES = {"masking": jn.masking_noise(0.3), "gaussian": jn.gaussian_noise(0.3), "salt": jn.salt_and_pepper(0.3)}


def corrupted(net, x=X, key=KEY):
    return np.asarray(net.apply({}, {}, jnp.asarray(x), key=key, train=True)[0])


def assert_binomial(count, n, p):
    assert abs(count - n * p) < 5 * (n * p * (1 - p)) ** 0.5


def test_masking_loses_its_share_and_keeps_the_rest():
    y = corrupted(jn.masking_noise(0.3))
    assert_binomial((y == 0).sum(), X.size, 0.3)
    np.testing.assert_array_equal(y[y != 0], X[y != 0])


def test_gaussian_noise_has_its_moments():
    noise = (corrupted(jn.gaussian_noise(0.3)) - X).astype(np.float64) / 0.3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        deviation = {1: 1, 2: 2, 3: 15, 4: 96}[power] ** 0.5 / X.size**0.5  # of the mean of ε^power
        assert abs((noise**power).mean() - moment) < 5 * deviation


def test_salt_and_pepper_come_in_equal_parts():
    y = corrupted(jn.salt_and_pepper(0.3, low=-9.0, high=9.0))
    for end in (-9, 9):
        assert_binomial((y == end).sum(), X.size, 0.15)
    rest = np.abs(y) != 9
    np.testing.assert_array_equal(y[rest], X[rest])


@pytest.mark.parametrize("make", [jn.masking_noise, jn.gaussian_noise, jn.salt_and_pepper])
def test_the_rate_may_be_traced(make):
    rates = jnp.array([0.1, 0.5])
    x = jnp.asarray(X[:3])
    together = jax.jit(jax.vmap(lambda rate: make(rate).apply({}, {}, x, key=KEY, train=True)[0]))(rates)
    for rate, y in zip((0.1, 0.5), together, strict=True):
        np.testing.assert_allclose(y, corrupted(make(rate), X[:3]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NOISES)
def test_what_noise_leaves_alone(name):
    """Evaluation, dtype and lengths."""
    net = NOISES[name]
    sequences = jn.Padded(jnp.asarray(X[:4, :12].reshape(4, 3, 4)).astype(jnp.bfloat16), jnp.array([3, 1, 2, 0]))
    y, _ = net.apply({}, {}, sequences)
    assert y is sequences
    y, _ = net.apply({}, {}, sequences, key=KEY, train=True)
    assert y.values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.lengths, sequences.lengths)
    assert (y.values != sequences.values).any()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: jn.masking_noise(30), r"masking_noise\(30\) expects rate in \[0, 1\), got 30; 30 % is 0.3"),
        (lambda: jn.salt_and_pepper(-0.1), r"expects rate in \[0, 1\), got -0.1"),
        (lambda: jn.gaussian_noise(-1.0), "expects scale ≥ 0, got -1"),
        (lambda: NOISES["masking"].apply({}, {}, jnp.ones(3), train=True), r"masking_noise\(0.3\) is random.*key"),
        (lambda: NOISES["salt"].apply({}, {}, jnp.ones(3, int), key=KEY, train=True), "floating input, got int32"),
        (lambda: NOISES["gaussian"].apply({"bias": 1.0}, {}, X), "has no parameters, got bias"),
        (lambda: jn.unflatten((3, 0)), "expects each size ≥ 1, got 0"),
        (lambda: jn.unflatten((3, 4)).apply({}, {}, jnp.ones((2, 13))), r"expects \(batch, 12\), got \(2, 13\)"),
    ],
)
def test_a_mistake_is_explained(run, message):
    with pytest.raises(jn.NetError, match=message):
        run()


def test_unflatten_undoes_flatten():
    x = floats(2, 3, 4, 5)
    np.testing.assert_array_equal(jn.unflatten((3, 4, 5)).apply({}, {}, jn.flatten(x))[0], x)
