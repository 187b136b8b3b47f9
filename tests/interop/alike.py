"""Outputs and gradients of two libraries, compared."""

from typing import Any

import jax
import numpy as np

import jaxnets as jn
from tests.once import once
from tests.oracle import floats


def loss_and_gradients(run: Any, params: Any, x: Any) -> tuple[Any, Any, Any]:
    """Return the gradients of a weighted sum of the outputs by the parameters and by x, and the outputs."""

    def loss(params: Any, x: Any) -> Any:
        y = run(params, x)
        return (y * floats(*y.shape)).sum(), y

    floating = (0, 1) if x.dtype == np.float32 else (0,)
    gradients, y = once(jax.grad(loss, floating, has_aux=True), params, x)
    return gradients[0], {"x": list(gradients[1:])}, {"y": y}


def our_loss(net: jn.Net, params: Any, state: Any, x: Any) -> tuple[Any, Any, Any]:
    return loss_and_gradients(lambda params, x: net.apply(params, state, x)[0], params, x)


def close(found: Any, want: Any) -> None:
    """Assert that two trees are equal to 1e-5 of the range of each array."""
    found, want = jn.paths.paths(found), jn.paths.paths(want)
    assert found.keys() == want.keys()
    for path, leaf in want.items():
        np.testing.assert_allclose(found[path], leaf, rtol=0, atol=1e-5 * max(1, np.ptp(leaf)), err_msg=path)
