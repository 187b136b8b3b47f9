"""Schedules against their formulas, in and out of an optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn


def test_the_rate_is_the_papers():
    """Equation 3 of the paper, for its steps from 1."""
    features, warmup = 512, 4000
    schedule = jn.train.inverse_square_root_schedule((features * warmup) ** -0.5, warmup)
    steps = np.array([1, 2, 1000, 3999, 4000, 4001, 100_000])
    paper = features**-0.5 * np.minimum(steps**-0.5, steps * warmup**-1.5)
    np.testing.assert_allclose(jax.jit(schedule)(steps - 1), paper, rtol=1e-5)


def test_an_optimizer_follows_it_and_peaks_may_be_traced():
    def step(peak):
        optimizer = optax.sgd(jn.train.inverse_square_root_schedule(peak, 2))
        state, x = optimizer.init(jnp.zeros(())), list[jax.Array]()
        for _ in range(3):
            update, state = optimizer.update(jnp.ones(()), state)
            x.append(-jnp.asarray(update))
        return jnp.stack(x)

    found = jax.jit(jax.vmap(step))(jnp.array([0.1, 1.0]))
    np.testing.assert_allclose(found, np.outer([0.1, 1.0], [0.5, 1, (2 / 3) ** 0.5]), rtol=1e-6)
    assert jax.jit(jax.grad(lambda peak: step(peak).sum()))(0.1) > 0


@pytest.mark.parametrize(("peak", "warmup"), [(0.0, 4), (0.1, 0)])
def test_wrong_rates_are_named(peak, warmup):
    with pytest.raises(jn.NetError, match=r"^inverse_square_root_schedule\(.* expects (peak|warmup)"):
        jn.train.inverse_square_root_schedule(peak, warmup)
