from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets import losses
from tests.oracle import floats, integers, witness

LENGTHS = np.array([3, 0, 4, 1], np.int32)
STEP_LOSSES = {
    "cross_entropy": (losses.cross_entropy, floats(4, 4, 3), integers(4, 4, high=3)),
    "soft": (losses.cross_entropy, floats(4, 4, 3), np.full((4, 4, 3), 1 / 3, np.float32)),
    "squared_error": (losses.squared_error, floats(4, 4, 2), floats(4, 4, 2, seed=1)),
    "hinge": (losses.hinge, floats(4, 4), np.where(floats(4, 4) > 0, 1, -1)),
    "cosine": (losses.cosine, floats(4, 4, 2), floats(4, 4, 2, seed=1)),
    "kl_divergence": (losses.kl_divergence, -np.full((4, 4, 2), np.log(2.0)), np.full((4, 4, 2), 0.5)),
    "partial": (partial(losses.huber, delta=0.3), floats(4, 4), floats(4, 4, seed=1)),
}


def spoiled(values, lengths):
    """Fill the padding with what no loss takes: NaN, or a label far out of range."""
    values = np.array(values)
    for row, length in enumerate(lengths):
        values[row, length:] = np.nan if values.dtype.kind == "f" else -7
    return jnp.asarray(values)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", STEP_LOSSES)
@pytest.mark.slow_cases(
    *("cosine-mean", "soft-mean", "soft-sum", "cross_entropy-mean", "hinge-mean", "squared_error-sum"),
    *("kl_divergence-sum", "partial-sum"),
)
def test_padding_never_matters(name, reduction):
    """Against each sequence cut to its length, in value and gradient, with the padding's values known."""
    loss, outputs, targets = STEP_LOSSES[name]
    lengths, whole = jnp.asarray(LENGTHS), losses.sequence(loss, reduction)

    @jax.jit
    def program(outputs, targets, padded_outputs, padded_targets):
        values, pull = jax.vjp(
            lambda o: whole(jn.Padded(o, lengths), jn.Padded(padded_targets, lengths)), padded_outputs
        )
        steps = []
        for row, length in enumerate(LENGTHS):
            if length:
                cut, cut_targets = outputs[row, :length], targets[row, :length]
                row_values, row_pull = jax.vjp(lambda o, t=cut_targets: loss(o, t), cut)
                steps.append((row_values, *row_pull(jnp.ones_like(row_values))))
        return values, *pull(jnp.arange(1.0, 5.0)), steps

    values, gradient, steps = program(outputs, targets, spoiled(outputs, LENGTHS), spoiled(targets, LENGTHS))
    expected, slopes = np.zeros(4), np.zeros_like(outputs)
    for row, (row_values, row_slopes) in zip(np.flatnonzero(LENGTHS), steps, strict=True):
        length = LENGTHS[row]
        share = 1.0 if reduction == "sum" else 1.0 / length
        expected[row] = np.sum(row_values) * share
        slopes[row, :length] = np.asarray(row_slopes) * (row + 1) * share
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.sampled_from(["outputs", "targets", "both", "weights"]))
def test_lengths_may_come_with_either(lengths, where):
    lengths = np.array(lengths, np.int32)
    outputs, targets = floats(len(lengths), 3, 2), integers(len(lengths), 3, high=2)
    steps = -np.log(
        np.take_along_axis(np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True), targets[..., None], -1)
    )
    expected = [steps[row, :n].mean() if n else 0.0 for row, n in enumerate(lengths)]
    o, t = spoiled(outputs, lengths), spoiled(targets, lengths)
    options = {"weights": (np.arange(3) < lengths[:, None]).astype(np.float32)} if where == "weights" else {}
    o = jn.Padded(o, jnp.asarray(lengths)) if where in ("outputs", "both") else o
    t = jn.Padded(t, jnp.asarray(lengths)) if where in ("targets", "both") else t
    np.testing.assert_allclose(jax.jit(losses.sequence(losses.cross_entropy))(o, t, **options), expected, rtol=1e-5)


def test_weights_apply_to_steps():
    outputs, weights = jnp.asarray(floats(2, 3)), jnp.array([[1.0, 2.0, 0.0], [0.5, 0.0, 0.0]])
    loss = jax.jit(losses.sequence(losses.squared_error))
    values = loss(outputs, jnp.zeros((2, 3)), weights)
    np.testing.assert_allclose(
        values, [(outputs[0, 0] ** 2 + 2 * outputs[0, 1] ** 2) / 3, outputs[1, 0] ** 2], rtol=1e-6
    )
    padded = loss(jn.Padded(outputs, jnp.array([1, 3])), jnp.zeros((2, 3)), weights)
    np.testing.assert_allclose(padded, outputs[:, 0] ** 2, rtol=1e-6)


def test_a_sequence_loss_keeps_the_name():
    assert losses.sequence(partial(losses.huber, delta=2.0)).__name__ == "huber"


def ctc_by_torch():
    import torch

    logits = torch.tensor(CTC_LOGITS, requires_grad=True)
    values = torch.nn.functional.ctc_loss(
        torch.log_softmax(logits, dim=-1).movedim(0, 1),
        torch.tensor(CTC_LABELS).long(),
        torch.tensor(CTC_TIMES).long(),
        torch.tensor(CTC_COUNTS).long(),
        reduction="none",
    )
    (gradient,) = torch.autograd.grad((values * torch.arange(1.0, 6.0)).sum(), logits)
    return {"values": values.detach().numpy(), "gradient": gradient.numpy()}


CTC_LOGITS = floats(5, 6, 4)
CTC_LABELS = np.array([[1, 2, 3], [2, 2, 1], [3, 3, 3], [1, 1, 1], [2, 1, 1]], np.int32)
CTC_TIMES, CTC_COUNTS = np.array([6, 5, 5, 4, 1], np.int32), np.array([3, 3, 3, 0, 1], np.int32)


def test_ctc_matches_torch():
    """Repeated labels, the shortest time that fits, no labels at all, a single step; NaN in the padding."""
    expected = witness("losses/ctc", ctc_by_torch)
    logits = spoiled(CTC_LOGITS, CTC_TIMES)
    targets = jn.Padded(spoiled(CTC_LABELS, CTC_COUNTS), jnp.asarray(CTC_COUNTS))

    @jax.jit
    def program(logits):
        values, pull = jax.vjp(lambda o: losses.ctc(jn.Padded(o, jnp.asarray(CTC_TIMES)), targets), logits)
        return values, *pull(jnp.arange(1.0, 6.0))

    values, gradient = program(logits)
    np.testing.assert_allclose(values, expected["values"], rtol=2e-6)
    np.testing.assert_allclose(gradient, expected["gradient"], atol=1e-5)


@pytest.mark.slow
def test_ctc_takes_arrays_and_every_precision():
    logits, labels = jnp.asarray(CTC_LOGITS), jnp.array([[1, 2], [2, 2], [3, 1], [1, 3], [1, 1]])
    full = losses.ctc(jn.Padded(logits, jnp.full(5, 6)), jn.Padded(labels, jnp.full(5, 2)))
    np.testing.assert_array_equal(losses.ctc(logits, labels), full)
    assert losses.ctc(logits.astype(jnp.bfloat16), labels).dtype == jnp.float32
    with jax.enable_x64(True):
        wide = losses.ctc(jnp.asarray(CTC_LOGITS, jnp.float64), labels)
        assert wide.dtype == jnp.float64
    np.testing.assert_allclose(full, wide, rtol=1e-6)


@given(st.lists(st.integers(1, 2), min_size=0, max_size=3), st.integers(1, 4), st.integers(0, 5))
@pytest.mark.slow
def test_ctc_is_the_sum_over_all_paths(labels, time, seed):
    logits = np.random.default_rng(seed).normal(size=(time, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    total = 0.0
    for path in np.ndindex(*[3] * time):
        merged = [k for place, k in enumerate(path) if place == 0 or k != path[place - 1]]
        if [k for k in merged if k] == labels:
            total += np.prod([p[place, k] for place, k in enumerate(path)])
    padded = jn.Padded(jnp.array([labels + [0] * (3 - len(labels))]), jnp.array([len(labels)]))
    with jax.enable_x64(True):
        value = float(losses.ctc(jnp.asarray(logits)[None], padded)[0])
    if total:
        np.testing.assert_allclose(value, -np.log(total), rtol=1e-9)
    else:
        assert 1e29 < value < 1e31


def test_ctc_is_finite_at_extreme_logits():
    @jax.jit
    def program(logits):
        values, pull = jax.vjp(lambda o: losses.ctc(o, jnp.array([[1, 2]] * 5)), logits)
        return values, *pull(jnp.ones(5))

    for array in program(1e4 * np.sign(CTC_LOGITS)):
        assert np.isfinite(array).all()
