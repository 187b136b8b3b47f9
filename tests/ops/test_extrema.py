"""Maxima: ties, NaN, and gradients behind a batch norm, which XLA computes again with other rounding."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnets.ops import pool
from jaxnets.ops.extrema import max_along, positive_part
from tests.oracle import floats

AS_USERS_DO: Any = {"xla_backend_optimization_level": 3}  # the suite compiles at a lower level, where this is rare
WINDOW, STRIDE, PADDING = (3, 3), (2, 2), ((1, 1), (1, 1))


def normalized(x, scale, shift):
    """Return a batch norm of x, and ReLU."""
    y = (x - x.mean((0, 1, 2))) * lax.rsqrt(x.var((0, 1, 2)) + 1e-3)
    return jax.nn.relu(y * scale + shift)


def native(x):
    padding = ((0, 0), *PADDING, (0, 0))
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, (1, *WINDOW, 1), (1, *STRIDE, 1), padding)


def by_index(x, axis):
    return jnp.take_along_axis(x, jnp.argmax(x, axis, keepdims=True), axis).squeeze(axis)


MAXIMA = {
    "max_pool": (lambda x: pool.max_pool(x, WINDOW, STRIDE, PADDING, (1, 1)), native),
    "max_along rows": (lambda x: max_along(x, 1), lambda x: by_index(x, 1)),
    "max_along channels": (lambda x: max_along(x, -1), lambda x: by_index(x, -1)),
    "positive_part": (lambda x: positive_part(x - 1), lambda x: jnp.where(x > 1, x - 1, 0)),
}


@pytest.mark.parametrize("name", MAXIMA)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.slow_cases(
    *("float32-max_pool", "float32-max_along channels", "float64-max_along rows", "float64-positive_part"),
    "float64-max_along channels",
)
@jax.numpy_rank_promotion("allow")
@jax.enable_x64(True)
def test_gradients_behind_a_batch_norm(name, dtype):
    """The equality test that `jnp.max` and pools commonly differentiate through loses up to all of them here."""
    x, scale, shift = (a.astype(dtype) for a in (floats(2, 12, 12, 64), floats(64, seed=1), floats(64, seed=2)))

    def gradient(maximum):
        y = jax.eval_shape(maximum, x)
        g = floats(*y.shape, seed=3).astype(dtype)
        run = jax.jit(jax.grad(lambda x: (maximum(normalized(x, scale, shift)) * g).sum()))
        return run.lower(x).compile(AS_USERS_DO)(x)

    ours, other = map(gradient, MAXIMA[name])
    np.testing.assert_allclose(ours, other, rtol=0, atol=100 * np.finfo(dtype).eps * np.abs(other).max())


def test_ties_and_nan():
    x = jnp.array([[1.0, 2, 2], [jnp.nan, 1, jnp.nan], [-jnp.inf, -jnp.inf, -jnp.inf]])
    y, pull = jax.vjp(functools.partial(max_along, axis=1), x)
    np.testing.assert_array_equal(y, [2, np.nan, -np.inf])
    np.testing.assert_array_equal(pull(jnp.ones(3))[0], [[0, 1, 0], [1, 0, 0], [1, 0, 0]])
    y, slope = jax.jvp(positive_part, (jnp.array([-2.0, 0, 2, jnp.nan]),), (jnp.ones(4),))
    np.testing.assert_array_equal(y, [0, 0, 2, np.nan])
    np.testing.assert_array_equal(slope[:3], [0, 0.5, 1])
