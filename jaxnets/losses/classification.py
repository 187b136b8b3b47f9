"""Losses of logits or probabilities of classes, one value per example: the mean over the axes before the classes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.checks import refuse
from jaxnets.core.errors import check_fraction, check_positive
from jaxnets.losses.checks import (
    at_least_zero,
    binary_entropies,
    check_log_probabilities,
    check_probabilities,
    class_targets,
    integer_targets,
    named,
    option,
    others,
    over_batch,
    pick,
    same_shape,
    warn_of_probabilities,
)
from jaxnets.losses.labels import takes_labels, takes_targets


def _check_zero_one(targets: Any) -> None:
    hint = "; convert -1 and 1 to 0 and 1 by (targets + 1) / 2"
    refuse(targets, lambda t: (t < 0) | (t > 1), f"expects targets from 0 to 1, got {{}}{hint}")


@takes_targets(check_probabilities)
@takes_labels
@named
def cross_entropy(outputs: Any, targets: Any, *, label_smoothing: Any = 0.0) -> jax.Array:
    """Return the cross entropy −Σ_k t_k log softmax(o)_k of logits.

    Label smoothing α replaces the target t by (1 − α) t + α / classes.

    Args:
        outputs: logits `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`, or probabilities (one-hot or soft labels) `(batch, ..., classes)`.
            A traced label out of range returns NaN.
        label_smoothing: α in [0, 1); may be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: for targets of another shape, labels that are not integers or out of range, probabilities that do not
            sum to 1, or α outside [0, 1).

    Szegedy and others, "Rethinking the Inception Architecture" (2016), section 7, for the smoothing.

    >>> import jax.numpy as jnp
    >>> print(cross_entropy(jnp.array([[0.0, 0.0], [9.0, 0.0]]), jnp.array([0, 1])).round(4))
    [0.6931 9.0001]
    """
    check_fraction("label_smoothing", label_smoothing)
    outputs, targets = class_targets(outputs, targets)
    warn_of_probabilities(outputs)
    alpha = option(label_smoothing, outputs)
    if targets.ndim == outputs.ndim:
        return over_batch(optax.losses.safe_softmax_cross_entropy(outputs, optax.losses.smooth_labels(targets, alpha)))
    values = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
    if not isinstance(label_smoothing, float | int) or label_smoothing:
        # The cross entropy of uniform targets, −mean_k log softmax(o)_k.
        uniform = jax.nn.logsumexp(outputs, axis=-1) - outputs.mean(axis=-1)
        # Logits of −∞ make it ∞, and 0 · ∞ would be NaN.
        uniform = jnp.where(jnp.isinf(uniform) & (alpha == 0), 0, uniform)
        values = (1 - alpha) * values + alpha * uniform
    return over_batch(values)


@takes_targets(check_probabilities)
@takes_labels
@named
def negative_log_likelihood(outputs: Any, targets: Any) -> jax.Array:
    """Return −Σ_k t_k o_k of log-probabilities o, such as the outputs of a network that ends in `jax.nn.log_softmax`.

    Args:
        outputs: log-probabilities `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`, or probabilities `(batch, ..., classes)`. A traced label out of
            range returns NaN.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: as in `cross_entropy`, and if a known log-probability is positive.

    >>> import jax.numpy as jnp
    >>> print(negative_log_likelihood(jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]])), jnp.array([0, 1])).round(4))
    [0.6931 2.3026]
    """
    outputs, targets = class_targets(outputs, targets)
    check_log_probabilities(outputs)
    if targets.ndim == outputs.ndim:
        # 0 · log 0 counts as 0.
        return over_batch(-jnp.where(targets == 0, 0, targets * outputs).sum(axis=-1))
    return over_batch(-pick(outputs, targets))


@takes_labels
@named
def maximum_a_posteriori(outputs: Any, targets: Any, *, rubbish: Any = 1.0) -> jax.Array:
    """Return LeNet's loss log(e^(−j) + Σ_k e^(o_k)) − o_y, cross entropy with a "rubbish" class of logit −j added.

    The paper writes it with penalties y_k = −o_k, squared distances from codes. Wrong classes much farther away than j
    are not pushed any farther. For large j it becomes `cross_entropy`; where all o_k are far below −j it is −o_y − j, a
    squared error.

    Args:
        outputs: logits `(batch, ..., classes)`, floating, such as those of `jn.models.lenet5_1998`.
        targets: integer labels `(batch, ...)`. A traced label out of range returns NaN.
        rubbish: j > 0, the penalty of the rubbish class, which the paper does not specify; may be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: as in `cross_entropy`, and for probabilities as targets or j ≤ 0.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), equation 9.

    >>> import jax.numpy as jnp
    >>> values = maximum_a_posteriori(jnp.array([[0.0, 0.0], [-9.0, -30.0]]), jnp.array([0, 0]))
    >>> [f"{value:.4f}" for value in values]
    ['0.8620', '8.0003']
    """
    check_positive("rubbish", rubbish)
    outputs, labels = integer_targets(outputs, targets)
    # log(e^(−j) + Σ_k e^(o_k))
    total = jnp.logaddexp(jax.nn.logsumexp(outputs, axis=-1), -option(rubbish, outputs))
    return over_batch(total - pick(outputs, labels))


@takes_targets(_check_zero_one)
@named
def binary_cross_entropy(outputs: Any, targets: Any, *, from_logits: bool = True) -> jax.Array:
    """Return −t log σ(o) − (1 − t) log σ(−o) for logits o, or −t log p − (1 − t) log(1 − p) for probabilities p.

    Prefer logits: a sigmoid may round probabilities to 0 or 1. For probabilities the logarithm is at least −100, as in
    PyTorch's `BCELoss`, so the loss is finite; its derivative is that of a probability of at least 10⁻¹², so it never
    vanishes. (Keras clips p to [10⁻⁷, 1 − 10⁻⁷] instead, a loss of 16.1, where the derivative is 0.)

    Args:
        outputs: logits `(batch, ...)`, floating, one for each independent binary label.
        targets: probabilities of the positive class, of the same shape, usually 0 and 1; booleans and integers are
            accepted.
        from_logits: whether outputs are logits or probabilities in [0, 1].

    Returns:
        `(batch,)`, float32 or wider. Traced probabilities outside [0, 1] return NaN.

    Raises:
        NetError: if the shapes differ or a known target or probability is outside [0, 1].

    >>> import jax.numpy as jnp
    >>> print(binary_cross_entropy(jnp.array([0.0, 9.0]), jnp.array([1, 0])).round(4))
    [0.6931 9.0001]
    >>> print(binary_cross_entropy(jnp.array([0.5, 0.0]), jnp.array([1, 1]), from_logits=False).round(4))
    [  0.6931 100.    ]
    """
    outputs, targets = same_shape(outputs, targets)
    _check_zero_one(targets)
    if from_logits:
        return over_batch(binary_entropies(outputs, targets))
    hint = "; for outputs without a sigmoid use from_logits=True"
    refuse(outputs, lambda p: (p < 0) | (p > 1), f"expects probabilities from 0 to 1, got {{}}{hint}")
    return over_batch(-targets * _log(outputs) - (1 - targets) * _log(1 - outputs))


@jax.custom_jvp
def _log(p: jax.Array) -> jax.Array:
    """Return max(log p, −100), with the derivative 1 / max(p, 10⁻¹²)."""
    return jnp.maximum(jnp.log(p), -100)


@_log.defjvp
def _log_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _log(*primals), tangents[0] / jnp.maximum(primals[0], 1e-12)


@takes_targets(_check_zero_one)
@named
def focal(outputs: Any, targets: Any, *, gamma: Any = 2.0, alpha: Any = None) -> jax.Array:
    """Return the focal loss of logits, −α_t (1 − p_t)^γ log p_t: cross entropy that down-weights easy examples.

    p_t = σ(±o) is the probability of the true class; α_t is α for t = 1 and 1 − α for t = 0.

    Args:
        outputs: logits `(batch, ...)`, floating.
        targets: 0 or 1, of the same shape.
        gamma: γ ≥ 0, how strongly easy examples are down-weighted; 0 is `binary_cross_entropy`. May be traced.
        alpha: the weight of the positive class in [0, 1], or `None` for no weights; may be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: if the shapes differ, a known target is outside [0, 1], γ < 0 or α outside [0, 1].

    Lin and others, "Focal Loss for Dense Object Detection" (2017), equation 5.

    >>> import jax.numpy as jnp
    >>> print(focal(jnp.array([0.0, 9.0]), jnp.array([1, 0])).round(2))
    [0.17 9.  ]
    """
    check_positive("gamma", gamma, zero=True)
    outputs, targets = same_shape(outputs, targets)
    _check_zero_one(targets)
    if alpha is not None:
        refuse(alpha, lambda a: (a < 0) | (a > 1), "expects alpha in [0, 1], got {}")
        alpha = option(alpha, outputs)
    # Finite logits, so that the factor (1 − p_t)^γ has finite derivatives even for logits of ±∞.
    finite = jax.lax.clamp(option(-1e30, outputs), outputs, option(1e30, outputs))
    # log(1 − p_t) without cancellation: t weights σ(−o), 1 − t weights σ(o).
    log_rest = jax.nn.logsumexp(
        jnp.stack([jax.nn.log_sigmoid(finite), jax.nn.log_sigmoid(-finite)], axis=-1),
        axis=-1,
        b=jnp.stack([1 - targets, targets], axis=-1),
    )
    entropies = binary_entropies(outputs, targets)
    # At p_t = 0 the factor is 1, and the limit of its derivative 0.
    factor = jnp.where(jnp.isinf(entropies), 1, jnp.exp(option(gamma, outputs) * log_rest))
    values = factor * entropies
    return over_batch(values if alpha is None else (alpha * targets + (1 - alpha) * (1 - targets)) * values)


@takes_labels
@named
def softmax_focal(outputs: Any, targets: Any, *, gamma: Any = 2.0) -> jax.Array:
    """Return the focal loss over classes, −(1 − p_y)^γ log p_y with p = softmax(o).

    Args:
        outputs: logits `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`. A traced label out of range returns NaN.
        gamma: γ ≥ 0; 0 is `cross_entropy`. May be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: as in `cross_entropy`, and for probabilities as targets or γ < 0.

    >>> import jax, jax.numpy as jnp
    >>> print(jax.jit(softmax_focal)(jnp.array([[0.0, 0.0], [9.0, 0.0]]), jnp.array([0, 1])).round(2))
    [0.17 9.  ]
    """
    check_positive("gamma", gamma, zero=True)
    outputs, labels = integer_targets(outputs, targets)
    warn_of_probabilities(outputs)
    log_p = jax.nn.log_softmax(outputs)
    log_true = pick(log_p, labels)
    rest = others(labels, outputs) & ~jnp.isneginf(log_p)
    # Without other classes p_y is 1, and log(1 − p_y) = −∞ has no derivative: use a finite value, and set its factor to
    # 0 below.
    some = rest.any(axis=-1)
    finite = jnp.where(rest | some[..., None], log_p, 0)
    # log(1 − p_y) without cancellation.
    log_rest = jax.nn.logsumexp(finite, axis=-1, where=rest | ~some[..., None])
    factor = jnp.where(some, jnp.exp(option(gamma, outputs) * log_rest), 0)
    # At p_y = 0 the factor is 1, and the limit of its derivative 0.
    factor = jnp.where(jnp.isneginf(log_true), 1, factor)
    return over_batch(-factor * log_true)


@takes_targets(check_probabilities)
@named
def kl_divergence(outputs: Any, targets: Any) -> jax.Array:
    """Return the Kullback–Leibler divergence Σ_k t_k (log t_k − o_k) of log-probabilities o from probabilities t.

    This is the cross entropy minus the entropy of the targets; 0 log 0 counts as 0.

    Args:
        outputs: log-probabilities `(batch, ..., classes)`, floating, as in `torch.nn.functional.kl_div`.
        targets: probabilities of the same shape.

    Returns:
        `(batch,)`, float32 or wider: the sum over classes, averaged over the axes in between.

    Raises:
        NetError: if the shapes differ, known targets are not probabilities, or a known output is positive.

    >>> import jax, jax.numpy as jnp
    >>> print(jax.jit(kl_divergence)(jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[1.0, 0.0]])).round(4))
    [0.6931]
    """
    outputs, targets = same_shape(outputs, targets)
    check_probabilities(targets)
    check_log_probabilities(outputs)
    # Where t = 0 both logarithms are replaced, so that no ∞ or NaN reaches the gradient.
    positive = targets > 0
    values = targets * (jnp.log(jnp.where(positive, targets, 1)) - jnp.where(positive, outputs, 0))
    divergence = jnp.where(positive, values, 0).sum(axis=-1)
    # Rounding may make it slightly negative. A clearly negative value shows that the inputs are not probabilities.
    return over_batch(jnp.where(divergence > -1e-5, at_least_zero(divergence), divergence))
