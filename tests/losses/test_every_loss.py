"""What every loss keeps, over one table of losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxnets import losses
from tests.losses.table import ROWS, Row
from tests.oracle import witness

GENERATIVE = {"negative_elbo", "gaussian_kl", "energy_gap"}  # of several outputs: tests/losses/test_generative.py

each_row = pytest.mark.parametrize("row", ROWS, ids=str)


def everything_by_torch():
    import torch

    given = {}
    for row in ROWS:
        outputs, targets = torch.tensor(row.outputs, requires_grad=True), torch.tensor(row.targets)
        values = row.torch(torch, outputs, targets, **row.options)
        (gradient,) = torch.autograd.grad((values * torch.arange(1.0, len(values) + 1)).sum(), outputs)
        given[f"{row.name}.value"], given[f"{row.name}.gradient"] = values.detach().numpy(), gradient.numpy()
    return given


@pytest.fixture(scope="module")
def torch_says():
    return witness("losses/every_loss", everything_by_torch)


def test_the_table_has_every_loss():
    assert {row.loss.__name__ for row in ROWS} == set(losses.__all__) - {
        "sequence",
        "ctc",
        "auxiliary_loss",
        "ignoring",
        "weighted",
        *GENERATIVE,
    }
    assert len({row.name for row in ROWS}) == len(ROWS)


@each_row
def test_values_and_gradients_match_torch(row: Row, torch_says):
    def weighed(outputs):
        values = row.with_options(outputs, jnp.asarray(row.targets))
        return (values * jnp.arange(1.0, len(values) + 1)).sum(), values

    gradient, values = jax.jit(jax.grad(weighed, has_aux=True))(jnp.asarray(row.outputs))
    assert values.shape == row.outputs.shape[:1]
    for ours, theirs in ((values, "value"), (gradient, "gradient")):
        theirs = torch_says[f"{row.name}.{theirs}"]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(theirs).max()))


@each_row
def test_precision_is_float32_or_wider(row: Row):
    targets = jnp.asarray(row.targets)
    loss = jax.jit(row.with_options)
    exact = loss(jnp.asarray(row.outputs), targets)
    assert exact.dtype == jnp.float32
    rounded = jnp.asarray(row.outputs).astype(jnp.bfloat16)
    half = loss(rounded, targets)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, loss(rounded.astype(jnp.float32), targets), rtol=1e-6)
    assert jax.eval_shape(jax.grad(lambda o: loss(o, targets).sum()), rounded).dtype == jnp.bfloat16
    with jax.enable_x64(True):
        wide = loss(jnp.asarray(row.outputs, jnp.float64), jnp.asarray(row.targets))
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(exact, wide, rtol=1e-5, atol=1e-6)


@each_row
def test_jit_and_vmap_over_options_equal_a_loop(row: Row):
    outputs, targets = jnp.asarray(row.outputs), jnp.asarray(row.targets)
    names = list(row.options)
    members = [{name: row.options[name] * factor for name in names} for factor in (1.0, 0.5, 1.3)]
    stacked = {name: jnp.array([member[name] for member in members]) for name in names}
    together = jax.jit(jax.vmap(lambda options: row.loss(outputs, targets, **options), axis_size=3))(stacked)
    for member, values in zip(members, together, strict=True):
        np.testing.assert_allclose(values, row.loss(outputs, targets, **member), rtol=1e-5, atol=1e-6)


@each_row
def test_examples_are_alone(row: Row):
    loss = jax.jit(row.with_options)
    values = loss(row.outputs, row.targets)
    for k in range(len(row.outputs)):
        np.testing.assert_allclose(loss(row.outputs[k : k + 1], row.targets[k : k + 1])[0], values[k], rtol=1e-6)


@each_row
def test_finite_at_extreme_outputs(row: Row):
    """Such as 1e4 and -1e4 side by side, and nothing but zeros."""

    @jax.jit
    def both(outputs):
        values, pull = jax.vjp(lambda o: row.with_options(o, jnp.asarray(row.targets)), outputs)
        return values, pull(jnp.ones_like(values))

    assert row.extreme or row.name == "squared_error_vector"
    for outputs in row.extreme:
        for array in both(outputs):
            assert np.isfinite(array).all(), outputs


@each_row
def test_gradients_agree_with_finite_differences(row: Row):
    """Of outputs and of options, in forward and reverse mode."""
    with jax.enable_x64(True):
        outputs, targets = jnp.asarray(row.outputs, jnp.float64), jnp.asarray(row.targets)
        if targets.dtype == jnp.float32:
            targets = targets.astype(jnp.float64)
        options = {name: jnp.asarray(value, jnp.float64) for name, value in row.options.items()}
        loss = jax.jit(lambda outputs, options: row.loss(outputs, targets, **options))
        check_grads(loss, (outputs, options), order=1, rtol=1e-6, atol=1e-7, eps=1e-6)
