"""The range test: where a quadratic is known to explode, and how well its suggestion trains beside a grid."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.train.debug.lr_finder import _analyze
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(5)
CLASSES = jn.objective(jn.losses.cross_entropy)
SQUARES = jn.objective(lambda outputs, targets: ((outputs - targets) ** 2).sum(-1))


@pytest.mark.parametrize("curvature", [1.0, 30.0])
@pytest.mark.slow_cases("1.0")
def test_a_quadratic_explodes_at_two_over_its_curvature(curvature: float):
    """L = λ w² / 2 under w ← (1 - η λ) w: each loss is (1 - η λ)² times the one before, above it from η = 2 / λ on."""
    x = np.full((4, 1), np.sqrt(curvature / 2), np.float32)
    found = jn.train.find_learning_rate(
        jn.dense(1, use_bias=False),
        SQUARES,
        optax.sgd,
        (x, np.zeros((4, 1), np.float32)),
        key=KEY,
        low=0.2 / curvature,
        high=20 / curvature,
        steps=30,
        batch_size=4,
    )
    np.testing.assert_allclose(
        found.losses[1:] / found.losses[:-1], (1 - found.rates[:-1] * curvature) ** 2, rtol=1e-3, atol=1e-4
    )
    least = int(found.losses.argmin())
    assert found.rates[least - 1] < 2 / curvature < found.rates[least]
    assert (np.diff(found.losses[least:]) > 0).all()
    assert 2 / curvature < found.explodes < 4 / curvature
    assert found.suggestion < 2 / curvature


@pytest.mark.slow
def test_the_suggestion_trains_nearly_as_well_as_the_best_of_a_grid():
    """Digits, one hidden layer, five epochs: within a third of the best of nine rates, four decades wide."""
    images, labels = jn.data.digits()
    images = images.reshape(-1, 64)
    data, held_out = (images[:600], labels[:600]), (images[600:1200], labels[600:1200])
    net = jn.serial(hidden=jn.dense(32), relu=jax.nn.relu, out=jn.dense(10))
    found = jn.train.find_learning_rate(net, CLASSES, optax.adam, data, key=KEY)

    @jax.jit
    def learn(rates: jax.Array) -> jax.Array:
        def one(rate: jax.Array) -> jax.Array:
            program = jn.train.program(net, CLASSES, optax.adam(rate), data, epochs=5, validation=held_out)
            return program(KEY)[1]["validation/loss"][-1]

        return jax.vmap(one)(rates)

    *losses, suggested = learn(jnp.asarray([*np.logspace(-4, 0, 9), found.suggestion], jnp.float32))
    assert suggested < 4 / 3 * np.nanmin(np.asarray(losses))
    assert np.nanmax(np.asarray(losses)) > 4 * suggested  # the grid is wide enough to tell


def test_what_is_read_off_a_curve_does_not_depend_on_its_sign_or_on_what_comes_after():
    rates = np.logspace(-6, 1, 100)
    decades = np.log10(rates)
    losses = 1 - 0.9 / (1 + np.exp(-4 * (decades + 2)))  # falls fastest at 0.01
    losses[85:] = 1e3 ** np.arange(15)
    found = _analyze(rates, losses)
    np.testing.assert_allclose(found.suggestion, 0.01, rtol=0.2)
    assert found.explodes == rates[85]
    assert np.isnan(found.smoothed[85:]).all()
    assert np.isfinite(found.smoothed[:85]).all()
    for after in (np.nan, np.inf):
        same = _analyze(rates, np.where(np.arange(100) < 85, losses, after))
        assert (same.suggestion, same.explodes) == (found.suggestion, found.explodes)
    below = _analyze(rates, losses - 5)  # a log-likelihood, say
    assert below.suggestion == found.suggestion
    gentle = _analyze(rates[:85], losses[:85])
    assert np.isnan(gentle.explodes)


@pytest.mark.slow
def test_examples_weights_and_the_plot():
    """An example of weight 0 might as well be another."""
    x, y = floats(20, 3), integers(20, high=2)
    weights = np.where(np.arange(20) < 15, 1, 0).astype(np.float32)
    other = np.where(weights[:, None] > 0, x, 7)
    a, b = (
        jn.train.find_learning_rate(
            jn.dense(2), CLASSES, optax.adam, (each, y, weights), key=KEY, steps=30, batch_size=10
        )
        for each in (x, other)
    )
    np.testing.assert_array_equal(a.losses, b.losses)
    (axes,) = a.plot().axes
    assert axes.get_xscale() == "log"
    assert [line.get_label() for line in axes.lines] == ["a batch", "smoothed", f"suggested: {a.suggestion:.2g}"]
    assert axes.lines[2].get_xdata()[0] == a.suggestion  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "expects low > 0, got 0"),
        ({"low": 1.0, "high": 0.1}, "expects high > low, got 0.1 for low=1"),
        ({"steps": 5}, "expects at least 10 steps, got 5"),
        ({"batch_size": 50}, "expects a batch no larger than the data, got batch_size=50 for 20"),
    ],
)
def test_what_cannot_be_tried_is_an_error(options: dict[str, Any], message: str):
    with pytest.raises(jn.NetError, match=message):
        jn.train.find_learning_rate(
            jn.dense(2), CLASSES, optax.adam, (floats(20, 3), integers(20, high=2)), key=KEY, **options
        )


def test_a_loss_that_never_falls_or_starts_as_nan_is_an_error():
    with pytest.raises(jn.NetError, match="finds no rate at which the loss falls"):
        _analyze(np.logspace(-6, 1, 50), np.linspace(1, 2, 50))
    with pytest.raises(jn.NetError, match="finds a loss of nan in step 0; lower low="):
        _analyze(np.logspace(-6, 1, 50), np.full(50, np.nan))
