"""Losses at random shapes against loops in NumPy, in float64, written from the definitions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnets import losses

shapes = st.tuples(st.integers(0, 3), *[st.integers(1, 3)] * 2).flatmap(
    lambda sizes: st.sampled_from([sizes, sizes[:2], sizes[:1]])
)


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(scale=2.0, size=shape)


def huber(e):
    return 0.5 * e * e if abs(e) <= 1 else abs(e) - 0.5


OF_ERROR = {
    "absolute_error": abs,
    "squared_error": lambda e: e * e,
    "half_squared_error": lambda e: e * e / 2,
    "huber": huber,
    "smooth_l1": huber,
    "log_cosh": lambda e: math.log(math.cosh(e)),
}
OF_MARGIN = {
    "hinge": lambda m: max(0.0, 1 - m),
    "squared_hinge": lambda m: max(0.0, 1 - m) ** 2,
    "perceptron": lambda m: max(0.0, -m),
    "exponential": lambda m: math.exp(-m),
}


def by_loop(function, outputs, targets):
    rows = ((np.ravel(o), np.ravel(t)) for o, t in zip(outputs, targets, strict=True))
    return [sum(map(function, o, t)) / len(o) for o, t in rows]


@pytest.mark.slow
@given(shapes, st.sampled_from([*OF_ERROR, *OF_MARGIN, "binary_cross_entropy"]), st.integers(0, 9))
def test_elementwise_losses(shape, name, seed):
    outputs, targets = numbers(seed, *shape), numbers(seed + 1, *shape)
    if name in OF_ERROR:
        expected = by_loop(lambda o, t: OF_ERROR[name](o - t), outputs, targets)
    elif name in OF_MARGIN:
        targets = np.where(targets > 0, 1.0, -1.0)
        expected = by_loop(lambda o, t: OF_MARGIN[name](o * t), outputs, targets)
    else:
        targets = 1 / (1 + np.exp(-targets))
        expected = by_loop(
            lambda o, t: -t * math.log(1 / (1 + math.exp(-o))) - (1 - t) * math.log(1 / (1 + math.exp(o))),
            outputs,
            targets,
        )
    with jax.enable_x64(True):
        values = jax.jit(getattr(losses, name))(outputs, targets)
    assert values.shape == shape[:1]
    np.testing.assert_allclose(values, np.reshape(expected, shape[:1]), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@given(shapes, st.integers(2, 4), st.sampled_from([0.0, 0.3]), st.integers(0, 9))
def test_class_losses(shape, classes, smoothing, seed):
    outputs = numbers(seed, *shape, classes)
    labels = np.random.default_rng(seed).integers(0, classes, shape)
    entropies, margins, focals = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for place in np.ndindex(*shape):
        scores, true = outputs[place], labels[place]
        p = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
        target = [(1 - smoothing) * (k == true) + smoothing / classes for k in range(classes)]
        entropies[place] = -sum(t * math.log(q) for t, q in zip(target, p, strict=True))
        margins[place] = sum(max(0.0, scores[k] - scores[true] + 1.5) for k in range(classes) if k != true)
        focals[place] = -((1 - p[true]) ** 2) * math.log(p[true])
    one_hot = np.eye(classes)[labels]
    with jax.enable_x64(True):

        @jax.jit
        def ours(outputs, labels, one_hot):
            return (
                losses.cross_entropy(outputs, labels, label_smoothing=smoothing),
                losses.cross_entropy(outputs, one_hot, label_smoothing=smoothing),
                losses.multiclass_hinge(outputs, labels, margin=1.5),
                losses.softmax_focal(outputs, labels),
            )

        for values, loops in zip(ours(outputs, labels, one_hot), (entropies, entropies, margins, focals), strict=True):
            expected = loops.mean(axis=tuple(range(1, len(shape))))
            np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


@jax.jit
def pairs(o, y, scores):
    log_p, p = jax.nn.log_softmax(o), jax.nn.softmax(scores)
    one_hot, entropy = jax.nn.one_hot(y, 3, dtype=o.dtype), -(p * jnp.log(p)).sum(axis=1)
    return [
        (losses.negative_log_likelihood(log_p, y), losses.cross_entropy(o, y)),
        (losses.negative_log_likelihood(log_p, p), losses.cross_entropy(o, p)),
        (losses.kl_divergence(log_p, p), losses.cross_entropy(o, p) - entropy),
        (losses.kl_divergence(log_p, one_hot), losses.cross_entropy(o, y)),
        (losses.focal(o, one_hot, gamma=0.0), losses.binary_cross_entropy(o, one_hot)),
        (losses.focal(o, one_hot, gamma=0.0, alpha=0.5) * 2, losses.binary_cross_entropy(o, one_hot)),
        (losses.softmax_focal(o, y, gamma=0.0), losses.cross_entropy(o, y)),
        (losses.smooth_l1(o, p, beta=0.3) * 0.3, losses.huber(o, p, delta=0.3)),
        (
            losses.binary_cross_entropy(o[:, 0], y > 0),
            losses.cross_entropy(jnp.stack([0 * o[:, 0], o[:, 0]], axis=1), (y > 0).astype(int)),
        ),
        (losses.cosine(3 * o, -2 * p), 2 - losses.cosine(o, p)),
    ]


@given(st.integers(0, 20))
def test_losses_that_are_one_another(seed):
    with jax.enable_x64(True):
        same = pairs(numbers(seed, 4, 3), np.random.default_rng(seed).integers(0, 3, 4), numbers(seed + 1, 4, 3))
    for left, right in same:
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("targets", [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
def test_a_class_ruled_out_by_an_infinite_logit(targets):
    """Logits masked by -∞ give finite losses and gradients where the target rules the class out too."""
    logits, targets = np.array([[1.0, 2.0, -np.inf]]), np.array([targets[::-1] if targets[2] else targets])
    both = jax.jit(jax.value_and_grad(lambda o, t: losses.cross_entropy(o, t).sum()))
    value, gradient = both(logits, targets)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, np.pad(both(logits[:, :2], targets[:, :2])[1], ((0, 0), (0, 1))), atol=1e-6)


def test_a_traced_label_out_of_range_gives_nan():
    outputs = jnp.zeros((4, 3))
    for loss in (losses.cross_entropy, losses.softmax_focal, losses.multiclass_hinge, losses.negative_log_likelihood):
        values = jax.jit(loss)(outputs, jnp.array([0, 3, -1, 2]))
        np.testing.assert_array_equal(jnp.isnan(values), [False, True, True, False])


def test_percentage_of_target_zero_is_finite():
    values = losses.absolute_percentage_error(jnp.array([2.0, 0.0]), jnp.zeros(2), epsilon=0.5)
    np.testing.assert_array_equal(values, [4.0, 0.0])


@pytest.mark.parametrize("name", ["absolute_percentage_error", *OF_ERROR])
def test_the_derivative_at_no_error_is_zero(name):
    gradient = jax.jit(jax.grad(lambda o: getattr(losses, name)(o, jnp.ones(2)).sum()))(np.ones(2))
    np.testing.assert_array_equal(gradient, 0)


def test_a_zero_vector_has_distance_one_and_a_gradient_to_the_target():
    target = np.array([[3.0, 4.0]])
    value, gradient = jax.jit(jax.value_and_grad(lambda o: losses.cosine(o, target).sum()))(np.zeros((1, 2)))
    assert value == 1.0
    np.testing.assert_allclose(gradient, [[-0.6, -0.8]], rtol=1e-6)


def test_perceptron_learns_from_zero():
    assert jax.grad(lambda o: losses.perceptron(o, jnp.array([-1])).sum())(jnp.zeros(1)).item() == 0.5


def test_exponential_overflows_where_documented():
    values = losses.exponential(jnp.array([88.0, 89.0]), jnp.array([-1, -1]))
    np.testing.assert_array_equal(jnp.isfinite(values), [True, False])


def test_kl_divergence_at_target_zero_has_no_gradient_there():
    log_p, t = jnp.array([[0.0, -jnp.inf]]), jnp.array([[1.0, 0.0]])
    for argument in (0, 1):
        gradient = jax.jit(jax.grad(lambda o, t: losses.kl_divergence(o, t).sum(), argument))(log_p, t)
        np.testing.assert_array_equal(gradient, [[-1.0, 0.0]] if argument == 0 else [[1.0, 0.0]])
