"""How the tests of layers call a net and compare what it gives."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets import Net


def near(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Assert that two arrays, or two dicts of arrays, differ by no more than `tolerance` of the largest value."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        for name in expected:
            near(actual[name], expected[name], tolerance)
        return
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.max(np.abs(b), initial=0.0))))


@functools.lru_cache(maxsize=32)
def _applied(net: Net, train: bool) -> Any:
    return jax.jit(lambda params, state, x, key: net.apply(params, state, x, key=key, train=train))


def call(net: Net, params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> tuple[Any, Any]:
    """Apply a net under `jit`: one compilation for a new shape instead of one for each operation."""
    return _applied(net, train)(params, state, jax.tree.map(jnp.asarray, x), key)


def pull(net: Net, params: Any, state: Any, x: Any, g: Any, *, key: Any = None, train: bool = False) -> dict[str, Any]:
    """Return the output `y`, its pullback of `g` by name (`dx`, `dkernel`, …), and the `state` after it."""

    @jax.jit
    def run(params: Any, state: Any, x: Any, g: Any, key: Any) -> Any:
        y, back, after = jax.vjp(lambda p, x: net.apply(p, state, x, key=key, train=train), params, x, has_aux=True)
        return y, *back(g), after

    y, dparams, dx, after = run(params, state, jax.tree.map(jnp.asarray, x), jax.tree.map(jnp.asarray, g), key)
    return {"y": y, "dx": dx, "state": after, **{f"d{name}": leaf for name, leaf in dparams.items()}}
