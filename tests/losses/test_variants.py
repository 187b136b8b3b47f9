"""Losses under their other options, and weights of single elements, against PyTorch; what -inf and rounding do."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import hinge_loss

import jaxnets as jn
from jaxnets import losses
from tests.oracle import floats, integers, witness

P, BITS = 1 / (1 + np.exp(-floats(4, 3))), integers(4, 3, high=2).astype(np.float32)
SCORES, LABELS = floats(6, 4), integers(6, high=4)
W = np.abs(floats(4, 3, seed=2))
ENDS = np.array([0.0, 1.0, 0.0, 1.0, 1e-8], np.float32), np.array([0.0, 1.0, 1.0, 0.0, 1.0], np.float32)


def by_torch() -> dict[str, np.ndarray]:
    import torch
    from torch.nn import functional as F

    p, bits, w = (torch.tensor(x) for x in (P, BITS, W))
    p.requires_grad_()
    bce = F.binary_cross_entropy(p, bits, weight=w, reduction="none")
    ends = [torch.tensor(x) for x in ENDS]
    found = {
        "weighted": bce.detach(),
        "weighted gradient": torch.autograd.grad(bce.mean(), p)[0],
        "ends": F.binary_cross_entropy(ends[0], ends[1], reduction="none"),
        "logits": F.binary_cross_entropy_with_logits(p.detach(), bits, weight=w),
    }
    for power, margin in itertools.product((1, 2), (1.0, 0.0, -0.5)):
        scores, labels = torch.tensor(SCORES), torch.tensor(LABELS).long()
        found[f"margin {power} {margin}"] = F.multi_margin_loss(
            scores, labels, p=power, margin=margin, reduction="none"
        )
    return {name: value.numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def torch_says() -> dict[str, np.ndarray]:
    return witness("losses/variants", by_torch)


def test_probabilities_and_weights_of_elements_match_pytorch(torch_says):
    of_probabilities = partial(losses.binary_cross_entropy, from_logits=False)
    unreduced, mean = losses.weighted(of_probabilities, "none"), losses.weighted(of_probabilities)

    @jax.jit
    def program(p, ends):
        found = {
            "weighted": unreduced(p, BITS, W),
            "ends": of_probabilities(ends, ENDS[1]),
            "weighted gradient": jax.grad(lambda p: mean(p, (BITS, W)).mean())(p),
            "logits": losses.weighted(losses.binary_cross_entropy)(p, BITS, W).mean(),
        }
        return found, jax.grad(lambda p: of_probabilities(p, ENDS[1]).sum())(ends)

    found, ends = program(P, ENDS[0])
    for name, value in found.items():
        np.testing.assert_allclose(value, torch_says[name], rtol=1e-5, err_msg=name)
    assert np.isfinite(ends).all()
    assert (np.sign(ends)[np.array([2, 3])] == [-1, 1]).all()
    assert np.isnan(jax.jit(of_probabilities)(np.array([1.5]), np.zeros(1)))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("margin", [1.0, 0.0, -0.5])
def test_multiclass_hinge_equals_pytorch_times_the_classes(power, margin, torch_says):
    ours = losses.multiclass_hinge(SCORES, LABELS, margin=margin, power=power)
    np.testing.assert_allclose(ours, 4 * torch_says[f"margin {power} {margin}"], rtol=1e-5, atol=1e-7)


def test_crammer_singer_hinge_matches_scikit_learn():
    weights = np.arange(6.0)
    ours = np.average(losses.crammer_singer_hinge(SCORES, LABELS), weights=weights)
    assert ours == pytest.approx(hinge_loss(LABELS, SCORES, labels=range(4), sample_weight=weights), rel=1e-6)


def test_reductions_of_weighted_elements():
    errors, weights = np.square(P - BITS), W.copy()
    weights[0], weights[1, 0], p = 0, 0, P.copy()
    p[0] = np.nan
    expected = {
        "none": weights * errors,
        "sum": (weights * errors).sum(1),
        "mean": (weights * errors).mean(1),
        "weighted mean": np.append(0, np.average(errors[1:], axis=1, weights=weights[1:])),
    }
    pixels, labels, alike = floats(2, 3, 4, 5), integers(2, 3, 4, high=5), np.ones((2, 3, 4), np.float32)

    @jax.jit
    def program(p, weights, pixels):
        found = {each: losses.weighted(losses.squared_error, each)(p, BITS, weights) for each in expected}  # type: ignore[arg-type]
        by_pixel = losses.weighted(losses.cross_entropy)(pixels, labels, alike)
        return found, by_pixel, losses.cross_entropy(pixels, labels)

    found, by_pixel, plain = program(p, weights, pixels)
    for reduction, values in expected.items():
        np.testing.assert_allclose(found[reduction], values, rtol=1e-5, err_msg=reduction)
    np.testing.assert_allclose(by_pixel, plain, rtol=1e-5)
    with pytest.raises(jn.NetError, match=r"weighted\(huber\) expects reduction 'mean', .* got 'max'"):
        losses.weighted(losses.huber, "max")  # type: ignore[arg-type]


@pytest.mark.promotes  # Optax's own arithmetic
def test_weights_of_elements_travel_with_the_targets():
    import optax

    objective = jn.objective(losses.weighted(losses.squared_error))
    x, target = floats(4, 3), (BITS, np.where(BITS > 0, 1, 0))
    program = jn.train.program(jn.dense(3), objective, optax.sgd(1.0), (x, target), epochs=60, batch_size=4)
    run, history = jax.jit(lambda program, key: program(key))(program, jax.random.key(0))
    outputs = jn.dense(3).apply(run.params, {}, x)[0]
    assert history["squared_error"][-1] < 0.02 < np.square(outputs - BITS).mean()  # zeros are not learned


MASKED = np.array([[0.5, -np.inf, 1.0], [2.0, -np.inf, -np.inf]], np.float32), np.array([0, 0])
OF_CLASSES = {
    "cross_entropy": (losses.cross_entropy, [0.974077, 0.0]),
    "smoothed by a traced 0": (partial(losses.cross_entropy, label_smoothing=jnp.zeros(())), [0.974077, 0.0]),
    "soft labels": (lambda o, t: losses.cross_entropy(o, jax.nn.one_hot(t, o.shape[1])), [0.974077, 0.0]),
    "softmax_focal": (losses.softmax_focal, [0.974077 * (1 - np.exp(-0.974077)) ** 2, 0.0]),
    "softmax_focal at 0": (partial(losses.softmax_focal, gamma=0.0), [0.974077, 0.0]),
    "maximum_a_posteriori": (losses.maximum_a_posteriori, [np.log(np.exp([-1, 0.5, 1.0]).sum()) - 0.5, 0.048587]),
    "multiclass_hinge": (losses.multiclass_hinge, [1.5, 0.0]),
    "crammer_singer_hinge": (losses.crammer_singer_hinge, [1.5, 0.0]),
}


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.slow_cases("smoothed by a traced 0", "softmax_focal at 0", "crammer_singer_hinge")
def test_classes_ruled_out_by_minus_infinity(name):
    """As if they were not there: the values of the other classes alone, and the derivative 0."""
    loss, expected = OF_CLASSES[name]

    @jax.jit
    def program(outputs, others):
        gradient, reduced = (jax.grad(lambda o: loss(o, jnp.zeros(len(o), int)).sum())(o) for o in (outputs, others))
        return loss(outputs, MASKED[1]), gradient, reduced

    values, gradient, reduced = map(np.asarray, program(MASKED[0], MASKED[0][:1, ::2]))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(gradient).all()
    assert not gradient[~np.isfinite(MASKED[0])].any()
    np.testing.assert_allclose(gradient[0, ::2], reduced[0], rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.focal])
def test_infinite_logits_of_yes_and_no(loss):
    logits, truth = np.array([np.inf, -np.inf, np.inf, -np.inf]), np.array([1, 0, 0, 1])

    @jax.jit
    def program(logits):
        right, both = (jax.grad(lambda o, n=n: loss(o, truth)[:n].sum())(logits) for n in (2, 4))
        return loss(logits, truth), right, both

    values, right, both = program(logits)
    np.testing.assert_array_equal(values, [0, 0, np.inf, np.inf])
    np.testing.assert_array_equal(right, 0)
    assert np.isfinite(both).all()


def test_no_loss_is_negative_by_rounding():
    x = floats(200, 7) * (10.0 ** integers(200, 1, high=6)).astype(np.float32)
    small = np.array([1e-4, -3e-3, 0.2, 30.0], np.float32)

    @jax.jit
    def program(x, small):
        log_p = jax.nn.log_softmax(x)
        return (
            losses.ctc(np.array([[[0.0, 17.0], [0.0, 17.0]]]), np.array([[1]])),
            losses.cosine(x, 3 * x),
            losses.kl_divergence(log_p, jnp.exp(log_p)),
            losses.gaussian_kl({"mean": jnp.zeros((200, 7)), "log_variance": 1e-4 * x}),
            losses.log_cosh(small, 0 * small),
        )

    certain, *others, of_small = map(np.asarray, program(x, small))
    blanks = 1 / (1 + np.exp(17.0))
    assert certain[0] >= 0
    assert certain[0] == pytest.approx(-np.log1p(-(blanks**2)), abs=1e-6)
    for values in others:
        assert values.min() >= 0
    np.testing.assert_allclose(of_small, np.log(np.cosh(small.astype(np.float64))), rtol=2e-6)


def test_ctc_against_all_paths():
    """Every path of 5 steps and 3 classes in float64."""
    logits, labels = 3 * floats(1, 5, 3), np.array([[1, 2]])
    log_p = np.asarray(logits[0], np.float64)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    total: Any = 0.0
    for path in itertools.product(range(3), repeat=5):
        merged = [key for key, _ in itertools.groupby(path) if key]
        total += np.exp(log_p[range(5), path].sum()) * (merged == [1, 2])
    assert jax.jit(losses.ctc)(logits, labels)[0] == pytest.approx(-np.log(total), rel=1e-6)
