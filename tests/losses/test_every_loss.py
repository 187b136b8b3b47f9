"""What every loss keeps, over one table of losses; each is compiled once in float32 and once in float64."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import losses
from tests.losses.table import ROWS, Row
from tests.oracle import witness

# Of several outputs: tests/losses/test_generative.py, test_adversarial.py
GENERATIVE = {
    "negative_elbo",
    "gaussian_kl",
    "energy_gap",
    "gan_discriminator",
    "gan_generator",
    "velocity_error",
}

DETECTION = {"fcos", "giou"}  # of boxes: tests/losses/test_detection.py

each_row = pytest.mark.parametrize("row", ROWS, ids=str)
another_option = pytest.mark.slow_cases(  # of a loss that another row has
    *("squared_error_vector", "half_squared_error", "negative_log_likelihood_soft", "focal_below_one", "margin_below_0")
)


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
        "takes_labels",
        "weighted",
        *DETECTION,
        *GENERATIVE,
    }
    assert len({row.name for row in ROWS}) == len(ROWS)


FACTORS = (1.0, 0.5, 1.3)
"""Of the options of three trials."""


@cache
def in_float32(name: str) -> dict[str, Any]:
    """Return all that is asked of a loss of float32 arrays, computed by one program."""
    (row,) = (row for row in ROWS if row.name == name)
    trials = [{name: value * factor for name, value in row.options.items()} for factor in FACTORS]

    @jax.jit
    def program(outputs, targets, rounded, extreme):
        def weighed(outputs):
            values = row.with_options(outputs, targets)
            return (values * jnp.arange(1.0, len(values) + 1)).sum(), values

        def sloped(outputs):
            values, pull = jax.vjp(lambda o: row.with_options(o, targets), outputs)
            return values, *pull(jnp.ones_like(values))

        stacked = {name: jnp.stack([jnp.asarray(trial[name]) for trial in trials]) for name in row.options}
        gradient, values = jax.grad(weighed, has_aux=True)(outputs)
        return {
            "values": values,
            "gradient": gradient,
            "one by one": [row.with_options(outputs[k : k + 1], targets[k : k + 1])[0] for k in range(len(outputs))],
            "of bfloat16": row.with_options(rounded, targets),
            "of rounded": row.with_options(rounded.astype(jnp.float32), targets),
            "trials together": jax.vmap(lambda given: row.loss(outputs, targets, **given), axis_size=3)(stacked),
            "trials in a loop": [row.loss(outputs, targets, **trial) for trial in trials],
            "extreme": jax.vmap(sloped)(extreme) if row.extreme else (),
        }

    rounded = np.asarray(row.outputs).astype(jnp.bfloat16)
    found = program(row.outputs, row.targets, rounded, np.stack(row.extreme) if row.extreme else None)
    return jax.tree.map(np.asarray, found)


@cache
def in_float64(name: str) -> dict[str, Any]:
    """Return the values of a loss of float64 arrays, and its derivative along one direction in three ways."""
    (row,) = (row for row in ROWS if row.name == name)
    draw = np.random.default_rng(0)
    point = row.outputs.astype(np.float64), {name: np.float64(value) for name, value in row.options.items()}
    direction = jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape), point)
    targets = row.targets.astype(np.float64) if row.targets.dtype == np.float32 else row.targets

    @jax.jit
    def program(point, direction, targets):
        def loss(given):
            return row.loss(given[0], targets, **given[1])

        def moved(step):
            return loss(jax.tree.map(lambda at, along: at + step * along, point, direction))

        values, forward = jax.jvp(loss, (point,), (direction,))
        cotangent = jnp.cos(jnp.arange(values.size, dtype=values.dtype)).reshape(values.shape)
        (gradient,) = jax.vjp(loss, point)[1](cotangent)
        return {
            "values": loss((point[0], row.options)),
            "forward": forward,
            "differences": (moved(1e-6) - moved(-1e-6)) / 2e-6,
            "of the sum": (cotangent * forward).sum(),
            "reverse": sum(map(jnp.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction))),
        }

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, program(point, direction, targets))


@each_row
@another_option
def test_values_and_gradients_match_torch(row: Row, torch_says):
    found = in_float32(row.name)
    assert found["values"].shape == row.outputs.shape[:1]
    for ours, theirs in (("values", "value"), ("gradient", "gradient")):
        expected = torch_says[f"{row.name}.{theirs}"]
        np.testing.assert_allclose(found[ours], expected, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(expected).max()))


@each_row
@another_option
def test_precision_is_float32_or_wider(row: Row):
    found, wide = in_float32(row.name), in_float64(row.name)["values"]
    assert [found[each].dtype for each in ("values", "of bfloat16")] == [np.float32] * 2
    np.testing.assert_allclose(found["of bfloat16"], found["of rounded"], rtol=1e-6)
    rounded = jax.ShapeDtypeStruct(row.outputs.shape, jnp.bfloat16)
    gradient = jax.grad(lambda o: row.with_options(o, jnp.asarray(row.targets)).sum())
    assert jax.eval_shape(gradient, rounded).dtype == jnp.bfloat16
    assert wide.dtype == np.float64
    np.testing.assert_allclose(found["values"], wide, rtol=1e-5, atol=1e-6)


@each_row
@another_option
def test_vmap_over_options_equals_a_loop(row: Row):
    found = in_float32(row.name)
    for together, alone in zip(found["trials together"], found["trials in a loop"], strict=True):
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


@each_row
@another_option
def test_examples_are_alone(row: Row):
    found = in_float32(row.name)
    np.testing.assert_allclose(found["one by one"], found["values"], rtol=1e-6)


@each_row
@another_option
def test_finite_at_extreme_outputs(row: Row):
    """Such as 1e4 and -1e4 side by side, and nothing but zeros."""
    assert row.extreme or row.name == "squared_error_vector"
    for array in in_float32(row.name)["extreme"]:
        assert len(array) == len(row.extreme)
        assert np.isfinite(array).all()


@each_row
@another_option
def test_gradients_agree_with_finite_differences(row: Row):
    """Of outputs and of options, in forward and reverse mode."""
    found = in_float64(row.name)
    np.testing.assert_allclose(found["forward"], found["differences"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found["reverse"], found["of the sum"], rtol=1e-10, atol=1e-12)
