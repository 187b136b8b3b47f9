"""Losses of generative models, against PyTorch's distributions and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxnets as jn
from jaxnets import losses
from tests.oracle import floats, witness

CODE = {"mean": floats(4, 3), "log_variance": floats(4, 3, seed=1)}
OUTPUTS = {"reconstruction": floats(4, 2, 5), **CODE}
TARGETS = 1 / (1 + np.exp(-floats(4, 2, 5, seed=2)))
WEIGHTS = jnp.arange(1.0, 5.0)
LOSSES = {
    "kl": losses.gaussian_kl,
    "bernoulli": losses.negative_elbo,
    "gaussian": partial(losses.negative_elbo, likelihood="gaussian"),
    "options": partial(losses.negative_elbo, likelihood="gaussian", beta=0.3, variance=0.1),
}


def by_torch():
    import torch
    from torch.distributions import ContinuousBernoulli, Normal, kl_divergence

    def gaussian(leaves, t, beta=1.0, variance=1.0):
        p = Normal(leaves["reconstruction"], variance**0.5)
        return -p.log_prob(t).sum((1, 2)) + beta * kl(leaves, t)

    def bernoulli(leaves, t):
        p = ContinuousBernoulli(logits=leaves["reconstruction"])  # Bernoulli's density, but for a constant
        return -(p.log_prob(t) - p._cont_bern_log_norm()).sum((1, 2)) + kl(leaves, t)

    def kl(leaves, t):
        q = Normal(leaves["mean"], torch.exp(leaves["log_variance"] / 2))
        return kl_divergence(q, Normal(0.0, 1.0)).sum(1)

    given = {}
    options = partial(gaussian, beta=0.3, variance=0.1)
    for name, loss in {"kl": kl, "bernoulli": bernoulli, "gaussian": gaussian, "options": options}.items():
        leaves = {key: torch.tensor(value, requires_grad=True) for key, value in OUTPUTS.items()}
        values = loss(leaves, torch.tensor(TARGETS))
        (values * torch.arange(1.0, 5.0)).sum().backward()
        given[name] = values.detach().numpy()
        for key, leaf in leaves.items():
            given[f"{name}.{key}"] = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
    return given


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_match_torch(name):
    want = witness("losses/generative", by_torch)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def both(outputs):
        values = LOSSES[name](outputs, jnp.asarray(TARGETS))
        return (values * WEIGHTS).sum(), values

    gradients, values = both(jax.tree.map(jnp.asarray, OUTPUTS))
    np.testing.assert_allclose(values, want[name], rtol=1e-5)
    for key in OUTPUTS:
        expected = want[f"{name}.{key}"]
        np.testing.assert_allclose(gradients[key], expected, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(expected).max()))


def test_options_have_derivatives():
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (OUTPUTS, TARGETS))

        @jax.jit
        def loss(beta, variance):
            return losses.negative_elbo(*wide, beta=beta, variance=variance, likelihood="gaussian")

        check_grads(loss, (jnp.float64(0.7), jnp.float64(0.4)), order=1, rtol=1e-6, eps=1e-5)


def test_precision_is_float32_or_wider():
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), OUTPUTS)
    raised = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    both = jax.jit(lambda *given: [[loss(each, TARGETS) for loss in LOSSES.values()] for each in given])
    for values, wide in zip(*both(half, raised), strict=True):
        assert values.dtype == jnp.float32
        np.testing.assert_array_equal(values, wide)
    assert losses.energy_gap({"energy_gap": jnp.ones(2, jnp.bfloat16)}).dtype == jnp.float32


def test_a_code_that_is_the_prior_costs_nothing():
    """And one that is nearly so does not cancel: ½ σ⁴/2 near σ² = 1."""
    near = {"mean": jnp.zeros((1, 1)), "log_variance": jnp.full((1, 1), 1e-3)}
    assert losses.gaussian_kl(jax.tree.map(jnp.zeros_like, near)).item() == 0.0
    np.testing.assert_allclose(losses.gaussian_kl(near), 0.25e-6, rtol=1e-3)


def test_it_trains_and_reports_by_name():
    first = jax.tree.map(lambda leaf: leaf[:2], (OUTPUTS, TARGETS))

    @jax.jit
    def run(outputs, targets):
        total, parts = jn.objective(partial(losses.negative_elbo, beta=2.0))(
            {}, outputs, targets, jnp.array([1.0, 1.0, 0.0, 0.0])
        )
        kl = jn.metrics.mean(losses.gaussian_kl)(outputs, targets)
        return total, parts, kl, losses.negative_elbo(*first, beta=2.0).mean(), losses.gaussian_kl(CODE).mean()

    total, parts, kl, of_first, of_code = run(OUTPUTS, TARGETS)
    np.testing.assert_allclose(total, of_first, rtol=1e-6)
    assert list(parts) == ["negative_elbo"]
    np.testing.assert_allclose(kl, of_code, rtol=1e-6)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: losses.negative_elbo(TARGETS, TARGETS), "negative_elbo.*dict of outputs with 'mean', got ndarray"),
        (lambda: losses.negative_elbo(CODE, TARGETS), "outputs with a reconstruction, got mean, log_variance"),
        (lambda: losses.negative_elbo(OUTPUTS, TARGETS[:, 0]), r"the same shape, got \(4, 2, 5\) and \(4, 5\)"),
        (lambda: losses.negative_elbo(OUTPUTS, 255 * TARGETS), 'targets from 0 to 1, got .*likelihood="gaussian"'),
        (lambda: losses.negative_elbo(OUTPUTS, TARGETS, beta=-1.0), "expects beta ≥ 0, got -1"),
        (lambda: losses.negative_elbo(OUTPUTS, TARGETS, variance=0.0), "expects variance > 0, got 0"),
        (
            lambda: losses.negative_elbo(OUTPUTS, TARGETS, likelihood="poisson"),  # type: ignore[arg-type]
            "expects likelihood 'bernoulli' or 'gaussian', got 'poisson'",
        ),
        (lambda: losses.gaussian_kl({"mean": CODE["mean"]}), "with 'log_variance', got mean"),
        (lambda: losses.gaussian_kl(CODE | {"mean": CODE["mean"][:, :2]}), "gaussian_kl expects .*the same shape"),
        (lambda: losses.energy_gap(jnp.ones(3)), "energy_gap expects a dict of outputs with 'energy_gap'"),
    ],
)
def test_a_mistake_is_explained(run, message):
    with pytest.raises(jn.NetError, match=message):
        run()
