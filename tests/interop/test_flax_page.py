"""The table of what converts from Flax and back: outputs, gradients, state, settings and every bit."""

import re
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnets as jn
from jaxnets.core.paths import paths
from jaxnets.interop import from_flax, to_flax
from jaxnets.interop.spec import nested
from tests.once import once
from tests.oracle import floats, integers

PAGE = Path(__file__).parents[2] / "docs" / "port-your-weights.md"
ROWS = re.findall(
    r"^\| `(nn\..*)` \| `(nnx\..*)` \| `(jn\..*)` \|.*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
)
CASES = {theirs: ours for linen, other, ours in ROWS for theirs in (linen, other)}


def drawn(tree: Any) -> Any:
    """Draw arrays by their paths, variances positive."""
    leaves = {
        path: floats(*leaf.shape, seed=zlib.crc32(path.encode()), scale=0.4) for path, leaf in paths(tree).items()
    }
    return nested({path: np.exp(leaf) if path.endswith(("var", "scale")) else leaf for path, leaf in leaves.items()})


def merged(module: Any, params: Any, state: Any) -> Any:
    """Return Flax's variables of a network that runs a module."""
    return {"params": params, **state} if isinstance(module, nn.Module) else nested({**paths(params), **paths(state)})


def close(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(paths(ours).items(), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=path)


def test_the_table_is_read():
    assert len(ROWS) == 16


@pytest.mark.promotes
@pytest.mark.parametrize("theirs", CASES)
@pytest.mark.slow_cases(*(each for each in CASES if "RNN(" in each or "nnx" in each))
def test_row(theirs: str):
    module, net = (eval(each, {"nn": nn, "nnx": nnx, "jn": jn, "r": nnx.Rngs(0)}) for each in (theirs, CASES[theirs]))
    steps = floats(2, 5, 4) if "RNN(" in theirs else floats(2, 6, 5, 4)
    x = integers(2, 5, high=7) if "Embed" in theirs else steps
    same = jn.from_flax_module(module)
    given, kept = map(drawn, jax.eval_shape(same.init, jax.random.key(0), x))
    variables = merged(module, given, kept)
    named = partial(module.init, use_running_average=True) if theirs == "nn.BatchNorm()" else module
    params, state = from_flax(net, variables, x, module=named)

    def all_of(net: jn.Net, params: Any, state: Any) -> Any:
        def loss(params: Any, train: bool) -> Any:
            y, new = net.apply(params, state, x, train=train)
            return jnp.sum(jnp.sin(y)), (y, new)

        calm, (gradients, (y, new)) = net.apply(params, state, x)[0], jax.grad(loss, has_aux=True)(params, True)
        return (calm, y), gradients, new

    want, found = once(lambda a, b: (all_of(same, *a), all_of(net, *b)), (given, kept), (params, state))
    close(found[0], want[0])
    gradients, new = from_flax(net, merged(module, *want[1:]), x, module=named)
    # NNX's GRU has no second bias for which to have a gradient.
    ours = {
        path: np.zeros_like(leaf) if "nnx" in theirs and path == "recurrent_bias" else leaf
        for path, leaf in paths(found[1]).items()
    }
    close(nested(ours), gradients)
    close(found[2], new)
    back = to_flax(net, params, state, named, x)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    for path, leaf in paths(back).items():
        np.testing.assert_array_equal(leaf, paths(variables)[path], err_msg=path)
