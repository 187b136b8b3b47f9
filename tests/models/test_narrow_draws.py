"""Boltzmann machines in bfloat16 draw with the right probabilities: in float32."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import models

KEY = jax.random.key(3)
ROWS, UNITS = 20_000, 10
BF16 = jnp.bfloat16


def machine(below: int, above: int, bias: float) -> dict[str, jax.Array]:
    """Return a machine whose units are independent, each on with probability σ(bias)."""
    return {
        "kernel": jnp.zeros((below, above), BF16),
        "bias": jnp.full(above, bias, BF16),
        "visible_bias": jnp.full(below, bias, BF16),
    }


def by_gibbs(bias: float) -> list[jax.Array]:
    return [models.gibbs_step(KEY, machine(UNITS, 2, bias), jnp.zeros((ROWS, UNITS), BF16))]


def by_deep_gibbs(bias: float) -> list[jax.Array]:
    layers = [jnp.zeros((ROWS, UNITS), BF16) for _ in range(3)]
    deep = {"0": machine(UNITS, UNITS, bias), "1": machine(UNITS, UNITS, bias)}
    return models.dbm_gibbs_step(KEY, deep, layers)


def by_belief_network(bias: float) -> list[jax.Array]:
    """The means at the bottom are σ(4 h − 2) for hidden units h that are on with probability σ(bias)."""
    unit = machine(UNITS, UNITS, bias) | {"kernel": 4 * jnp.eye(UNITS, dtype=BF16)}
    below = unit | {"visible_bias": jnp.full(UNITS, -2, BF16)}
    deep = {"0": below, "1": machine(UNITS, 2, 0.0), "2": machine(2, 2, 0.0)}
    deep["1"]["visible_bias"] = jnp.full(UNITS, bias, BF16)
    means = models.dbn_sample(KEY, deep, jnp.zeros((ROWS, UNITS), BF16), steps=1)
    return [(means > 0.5).astype(BF16)]


@pytest.mark.parametrize("bias", [-7.0, 7.0])
@pytest.mark.parametrize("draw", [by_gibbs, by_deep_gibbs, by_belief_network])
def test_units_are_on_as_often_as_their_probability_says(draw: Callable[[float], list[jax.Array]], bias: float):
    """In bfloat16 a probability of 0.0009 is drawn as 0.0078, and one of 0.9991 as 1."""
    p = 1 / (1 + math.exp(-bias))
    for units in jax.jit(draw)(np.float32(bias)):
        assert units.dtype == BF16
        found = np.asarray(units, np.float64)
        assert abs(found.mean() - p) < 5 * math.sqrt(p * (1 - p) / found.size)


def test_real_units_reach_beyond_three_deviations_as_often_as_a_normal_does():
    params, v = machine(UNITS, 2, 0.0), jnp.zeros((ROWS, UNITS), BF16)
    drawn = jax.jit(lambda v: models.gibbs_step(KEY, params, v, visible="gaussian"))(v)
    assert drawn.dtype == BF16
    found = np.asarray(drawn, np.float64)
    for limit, half in ((1.0, 2**-9), (3.0, 2**-7)):  # of the step of bfloat16 below it: what rounds up to the limit
        p = math.erfc((limit - half) / math.sqrt(2)) / 2
        assert abs((found >= limit).mean() - p) < 5 * math.sqrt(p / found.size)
