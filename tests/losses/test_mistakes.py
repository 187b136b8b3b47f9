"""What losses, objectives and metrics say when they are used wrongly: what was expected, what came, the hint."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

import jaxnets as jn
from jaxnets import losses

V, M, I = jnp.ones(4), jnp.ones((4, 3)), jnp.array([0, 1, 2, 0])
LOG = jax.nn.log_softmax(M)

MISTAKES = {
    "column against vector": (
        losses.squared_error,
        jnp.ones((4, 1)),
        V,
        r"squared_error expects .*the same shape.*outputs\[",
    ),
    "vector against column": (losses.huber, V, jnp.ones((4, 1)), r"huber expects .*\(4,\) and \(4, 1\).*targets\["),
    "indices in a regression": (losses.squared_error, M, I, r"cross_entropy, or jax.nn.one_hot\(targets, 3\)"),
    "another batch": (losses.absolute_error, M, jnp.ones((5, 3)), r"\(4, 3\) and \(5, 3\)"),
    "integer outputs": (losses.squared_error, I, V, "expects floating outputs, got int32.*targets swapped"),
    "a scalar": (losses.squared_error, jnp.float32(1), jnp.float32(1), r"expects outputs \(batch, ...\), got a scalar"),
    "a dict of outputs": (losses.squared_error, {"a": V}, V, "expects an array, got dict; choose one"),
    "no targets": (losses.squared_error, V, None, "expects an array of targets, got NoneType"),
    "padded outputs": (losses.cross_entropy, jn.Padded(M, I), I, "got Padded; wrap the loss, jn.losses.sequence"),
    "padded targets": (losses.hinge, V, jn.Padded(M, I), "got Padded; wrap the loss, jn.losses.sequence"),
    "one logit": (losses.cross_entropy, jnp.ones((4, 1)), I, "at least 2 classes.*binary_cross_entropy"),
    "no class axis": (losses.cross_entropy, V, I, r"expects outputs \(batch, ..., classes\).*got \(4,\)"),
    "labels as a column": (losses.cross_entropy, M, I[:, None], r"expects labels \(4,\).*got \(4, 1\); drop"),
    "labels of another batch": (losses.cross_entropy, M, I[:2], r"expects labels \(4,\) or probabilities \(4, 3\)"),
    "no flatten": (
        losses.cross_entropy,
        jnp.ones((4, 8, 7, 10)),
        I,
        r"expects labels \(4, 8, 7\).* got \(4,\); .* for 8 × 7 positions: put jn.flatten or jn.global_avg_pool",
    ),
    "no flatten in a regression": (
        losses.squared_error,
        jnp.ones((4, 8, 8, 1)),
        V[:, None],
        r"got \(4, 8, 8, 1\) and \(4, 1\); .* for 8 × 8 positions: put jn.flatten or jn.global_avg_pool",
    ),
    "all steps": (
        losses.cross_entropy,
        jnp.ones((4, 6, 3)),
        I,
        r"6 positions: put jn.flatten .*return_sequences=False",
    ),
    "float labels": (losses.cross_entropy, M, V, "expects integer labels, got float32.*astype"),
    "label too large": (losses.cross_entropy, M, jnp.array([0, 1, 3, 0]), "expects labels from 0 to 2, got 3"),
    "label negative": (losses.negative_log_likelihood, LOG, jnp.array([0, -1, 0, 0]), "labels from 0 to 2, got -1"),
    "several yes": (losses.cross_entropy, M, M, "sum to 1, got a sum of 3; .*binary_cross_entropy"),
    "negative probability": (losses.kl_divergence, LOG, M - 1.5, "expects probabilities as targets, got -0.5"),
    "logits for log-probabilities": (losses.negative_log_likelihood, M, I, "at most 0, got 1; pass jax.nn.log_softmax"),
    "logits in kl": (losses.kl_divergence, M, M / 3, "kl_divergence expects log-probabilities, at most 0, got 1"),
    "one-hot in a hinge": (losses.multiclass_hinge, M, M / 3, r"expects integer labels \(4,\).*argmax"),
    "one-hot in focal": (losses.softmax_focal, M, M / 3, r"expects integer labels \(4,\).*argmax"),
    "0 and 1 in hinge": (losses.hinge, V, I[:4] % 2, r"expects targets -1 or 1, got 0; .*2 \* targets - 1"),
    "0 and 1 in exponential": (losses.exponential, V, V * 0, "exponential expects targets -1 or 1, got 0"),
    "-1 and 1 in binary": (
        losses.binary_cross_entropy,
        V,
        -V,
        r"expects targets from 0 to 1, got -1; .*\(targets \+ 1",
    ),
    "-1 and 1 in focal": (losses.focal, V, -V, "focal expects targets from 0 to 1, got -1"),
    "smoothing in per cent": (partial(losses.cross_entropy, label_smoothing=10), M, I, "10 % is 0.1"),
    "delta 0": (partial(losses.huber, delta=0.0), V, V, "huber expects delta > 0, got 0"),
    "beta negative": (partial(losses.smooth_l1, beta=-1), V, V, "smooth_l1 expects beta > 0, got -1"),
    "gamma negative": (partial(losses.focal, gamma=-1.0), V, V, "focal expects gamma ≥ 0, got -1"),
    "alpha above 1": (partial(losses.focal, alpha=25.0), V, V, r"focal expects alpha in \[0, 1\], got 25"),
    "rubbish 0": (partial(losses.maximum_a_posteriori, rubbish=0), M, I, "posteriori expects rubbish > 0, got 0"),
    "rubbish and one-hot": (losses.maximum_a_posteriori, M, M / 3, r"expects integer labels \(4,\).*argmax"),
    "power 3": (partial(losses.multiclass_hinge, power=3), M, I, "multiclass_hinge expects power 1 or 2, got 3"),
    "logits for probabilities": (
        partial(losses.binary_cross_entropy, from_logits=False),
        2 * V,
        V,
        "binary_cross_entropy expects probabilities from 0 to 1, got 2; .*from_logits=True",
    ),
    "weights of another shape": (losses.weighted(losses.huber), M, (M, V[:3]), r"weighted\(huber\) .*first axes, got"),
    "negative weights": (losses.weighted(losses.huber), M, (M, -M), r"weighted\(huber\) expects weights ≥ 0, got -1"),
    "no weights": (losses.weighted(losses.huber), M, M, r"weighted\(huber\) expects targets as a pair"),
    "epsilon 0": (partial(losses.absolute_percentage_error, epsilon=0), V, V, "expects epsilon > 0"),
    "logarithm of -1": (losses.squared_log_error, V, -V, "expects targets > -1, got -1.*softplus"),
    "direction of a number": (losses.cosine, V, V, r"expects \(batch, ..., features\), got \(4,\)"),
    "no steps": (losses.sequence(losses.hinge), V, V, r"sequence\(hinge\) expects .*\(batch, time, ...\)"),
    "times differ": (losses.sequence(losses.hinge), M, jnp.ones((4, 2)), r"\(4, 3\) and \(4, 2\)"),
    "lengths differ": (
        losses.sequence(losses.hinge),
        jn.Padded(M, I),
        jn.Padded(M, I + 1),
        r"same lengths, got \[0 1 2 0\]",
    ),
    "length too large": (
        losses.sequence(losses.hinge),
        jn.Padded.tree_unflatten(None, (M, I + 2)),
        M,
        "lengths from 0 to 3, got 4",
    ),
    "step labels": (
        losses.sequence(losses.cross_entropy),
        jnp.ones((4, 2, 3)),
        9 + jnp.zeros((4, 2), int),
        "0 to 2, got 9",
    ),
    "loss of a batch": (
        losses.sequence(lambda o, t: (o - t).mean()),
        M,
        M,
        r"one value per step, got \(\) for 12 steps",
    ),
    "ctc with the blank": (
        losses.ctc,
        jnp.ones((4, 5, 3)),
        I[:, None],
        r"labels from 1 to 2 \(0 is the blank\), got 0",
    ),
    "ctc without batch": (losses.ctc, M, I, r"ctc expects logits \(batch, time, classes\)"),
    "ctc float labels": (losses.ctc, jnp.ones((4, 5, 3)), V[:, None], "ctc expects integer labels, got float32"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str):
    loss, outputs, targets, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        loss(outputs, targets)


def test_an_unknown_reduction_raises():
    with pytest.raises(jn.NetError, match="sequence expects reduction 'mean' or 'sum', got 'total'"):
        losses.sequence(losses.hinge, reduction="total")  # type: ignore[arg-type]


def test_values_are_checked_inside_jit_where_they_are_known():
    labels = jnp.array([0, 1, 3, 0])
    with pytest.raises(jn.NetError, match="got 3"):
        jax.jit(lambda o: losses.cross_entropy(o, labels))(M)
