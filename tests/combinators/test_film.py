"""Feature-wise modulation against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near
from tests.oracle import floats, normal_like, witness

KEY = jax.random.key(0)
SHAPES = {"image": (3, 4, 5, 2), "steps": (3, 6, 2), "vector": (3, 2)}


def torch_film(x, z, params, g):
    import torch

    params = jax.tree.map(lambda leaf: torch.tensor(leaf, dtype=torch.float64, requires_grad=True), params)
    tx, tz = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (x, z))
    gamma, beta = (
        torch.nn.functional.linear(tz, params[name]["kernel"].T, params[name]["bias"]) for name in ("gamma", "beta")
    )
    # Channels first, as the authors' code: gammas.unsqueeze(2).unsqueeze(3).expand_as(x).
    first = tx.movedim(-1, 1)
    shape = gamma.shape + (1,) * (first.ndim - 2)
    y = (gamma.reshape(shape).expand_as(first) * first + beta.reshape(shape).expand_as(first)).movedim(1, -1)
    y.backward(torch.tensor(g, dtype=torch.float64))
    gradients = {f"d{path}": np.asarray(leaf.grad) for path, leaf in jn.paths.paths(params).items()}
    return {"y": y.detach().numpy(), "dx": np.asarray(tx.grad), "dz": np.asarray(tz.grad), **gradients}


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_torch(shape):
    net, x, z = jn.film(2), floats(*SHAPES[shape]), floats(3, 4, seed=1)
    g, params = floats(*SHAPES[shape], seed=2), normal_like(jax.eval_shape(net.init, KEY, (x, z))[0], seed=3)
    expected = witness(f"combinators/film_{shape}", lambda: torch_film(x, z, params, g))

    @jax.jit
    def run(params, x, z):
        y, back = jax.vjp(lambda p, x, z: net.apply(p, {}, (x, z))[0], params, x, z)
        return y, *back(jnp.asarray(g))

    y, dparams, dx, dz = run(params, x, z)
    near({"y": y, "dx": dx, "dz": dz} | {f"d{k}": v for k, v in jn.paths.paths(dparams).items()}, expected, 3e-6)


X, Z = jnp.ones((2, 4, 4, 3)), jnp.ones((2, 5))
MISTAKES = {
    "features": (lambda: jn.film(0), r"^film\(0\) expects features ≥ 1, got 0$"),
    "one input": (lambda: jn.film(3).init(KEY, X), r"^pair: film expects a pair \(x, condition\), got one input"),
    "channels": (lambda: jn.film(4).init(KEY, (X, Z)), r"^pair: film expects x \(batch, ..., 4\), got \(2, 4, 4, 3\)"),
    "batch": (lambda: jn.film(3).init(KEY, (X, Z[:1])), r"expects a condition \(2, features\) for x .*\(1, 5\)"),
    "rank": (lambda: jn.film(3).init(KEY, (X, Z[0])), r"expects a condition \(2, features\) for x .*\(5,\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
