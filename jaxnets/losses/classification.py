"""Losses between logits and classes. Each returns one value an example: the mean over axes between batch and class."""

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
    hint = "; turn -1 and 1 into 0 and 1 by (targets + 1) / 2"
    refuse(targets, lambda t: (t < 0) | (t > 1), f"expects targets from 0 to 1, got {{}}{hint}")


@takes_targets(check_probabilities)
@takes_labels
@named
def cross_entropy(outputs: Any, targets: Any, *, label_smoothing: Any = 0.0) -> jax.Array:
    """Return the cross entropy −Σ_k t_k log softmax(o)_k of logits.

    With smoothing α the target becomes (1 − α) t + α / classes.

    Args:
        outputs: logits `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`, or probabilities (one-hot or soft labels) `(batch, ..., classes)`.
            A traced label out of range gives NaN.
        label_smoothing: α in [0, 1); may be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: for targets of another shape, labels that are no integers or out of range, probabilities that
            don't add up to 1, α outside [0, 1).

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
        uniform = jax.nn.logsumexp(outputs, axis=-1) - outputs.mean(axis=-1)
        uniform = jnp.where(jnp.isinf(uniform) & (alpha == 0), 0, uniform)  # logits of -inf
        values = (1 - alpha) * values + alpha * uniform
    return over_batch(values)


@takes_targets(check_probabilities)
@takes_labels
@named
def negative_log_likelihood(outputs: Any, targets: Any) -> jax.Array:
    """Return −Σ_k t_k o_k of log-probabilities, such as a network that ends in `jax.nn.log_softmax` gives.

    Args:
        outputs: log-probabilities `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`, or probabilities `(batch, ..., classes)`. A traced label out of
            range gives NaN.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: as `cross_entropy`, and where a known log-probability is positive.

    >>> import jax.numpy as jnp
    >>> print(negative_log_likelihood(jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]])), jnp.array([0, 1])).round(4))
    [0.6931 2.3026]
    """
    outputs, targets = class_targets(outputs, targets)
    check_log_probabilities(outputs)
    if targets.ndim == outputs.ndim:
        return over_batch(-jnp.where(targets == 0, 0, targets * outputs).sum(axis=-1))
    return over_batch(-pick(outputs, targets))


@takes_labels
@named
def maximum_a_posteriori(outputs: Any, targets: Any, *, rubbish: Any = 1.0) -> jax.Array:
    """Return LeNet's loss log(e^(−j) + Σ_k e^(o_k)) − o_y: cross entropy with one more class, of rubbish, at logit −j.

    The paper writes it with penalties y_k = −o_k, squared distances from codes. Wrong classes much further off than j
    are pushed no further. As j grows it becomes `cross_entropy`; where all o_k lie far below −j it is −o_y − j, a
    squared error.

    Args:
        outputs: logits `(batch, ..., classes)`, floating; for `jn.models.lenet5_1998` its own.
        targets: integer labels `(batch, ...)`. A traced label out of range gives NaN.
        rubbish: j > 0, the penalty of the class of rubbish, which the paper leaves open; may be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: as `cross_entropy`, and for probabilities as targets or j ≤ 0.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), equation 9.

    >>> import jax.numpy as jnp
    >>> values = maximum_a_posteriori(jnp.array([[0.0, 0.0], [-9.0, -30.0]]), jnp.array([0, 0]))
    >>> [f"{value:.4f}" for value in values]
    ['0.8620', '8.0003']
    """
    check_positive("rubbish", rubbish)
    outputs, labels = integer_targets(outputs, targets)
    total = jnp.logaddexp(jax.nn.logsumexp(outputs, axis=-1), -option(rubbish, outputs))
    return over_batch(total - pick(outputs, labels))


@takes_targets(_check_zero_one)
@named
def binary_cross_entropy(outputs: Any, targets: Any, *, from_logits: bool = True) -> jax.Array:
    """Return the logistic loss of logits, −t log σ(o) − (1 − t) log σ(−o), or −t log p − (1 − t) log(1 − p) of p.

    Logits are the better choice: probabilities lose what a sigmoid rounds to 0 or 1. Of these a logarithm counts as
    −100 at least, as in PyTorch's `BCELoss`, so that the loss is finite, and its derivative is that of a probability of
    10⁻¹² at least, so that it never vanishes. (Keras clips p to [10⁻⁷, 1 − 10⁻⁷] instead, at a loss of 16.1, and there
    the derivative is 0.)

    Args:
        outputs: logits `(batch, ...)`, floating; one for each independent yes-or-no question.
        targets: probabilities of yes of the same shape, 0 and 1 as a rule; booleans and integers are taken.
        from_logits: whether the outputs are logits rather than probabilities in [0, 1].

    Returns:
        `(batch,)`, float32 or wider. Traced probabilities outside [0, 1] give NaN.

    Raises:
        NetError: if the shapes differ or a known target or probability lies outside [0, 1].

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
    hint = "; outputs without a sigmoid are logits, from_logits=True"
    refuse(outputs, lambda p: (p < 0) | (p > 1), f"expects probabilities from 0 to 1, got {{}}{hint}")
    return over_batch(-targets * _log(outputs) - (1 - targets) * _log(1 - outputs))


@jax.custom_jvp
def _log(p: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.log(p), -100)


@_log.defjvp
def _log_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _log(*primals), tangents[0] / jnp.maximum(primals[0], 1e-12)


@takes_targets(_check_zero_one)
@named
def focal(outputs: Any, targets: Any, *, gamma: Any = 2.0, alpha: Any = None) -> jax.Array:
    """Return the focal loss of logits, −α_t (1 − p_t)^γ log p_t: cross entropy with easy examples turned down.

    p_t is the probability σ(±o) given to the truth, α_t is α for t = 1 and 1 − α for t = 0.

    Args:
        outputs: logits `(batch, ...)`, floating.
        targets: 0 or 1, of the same shape.
        gamma: γ ≥ 0, how much easy examples lose; 0 gives `binary_cross_entropy`. May be traced.
        alpha: the weight of the positive class in [0, 1], or none; may be traced.

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
    finite = jnp.clip(outputs, -1e30, 1e30)  # so that the factor of a logit of ±∞ has derivatives
    log_rest = jax.nn.logsumexp(  # log(1 - p_t) without cancellation
        jnp.stack([jax.nn.log_sigmoid(finite), jax.nn.log_sigmoid(-finite)], axis=-1),
        axis=-1,
        b=jnp.stack([1 - targets, targets], axis=-1),
    )
    entropies = binary_entropies(outputs, targets)
    factor = jnp.where(jnp.isinf(entropies), 1, jnp.exp(option(gamma, outputs) * log_rest))  # as below
    values = factor * entropies
    return over_batch(values if alpha is None else (alpha * targets + (1 - alpha) * (1 - targets)) * values)


@takes_labels
@named
def softmax_focal(outputs: Any, targets: Any, *, gamma: Any = 2.0) -> jax.Array:
    """Return the focal loss over classes, −(1 − p_y)^γ log p_y with p = softmax(o).

    Args:
        outputs: logits `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`. A traced label out of range gives NaN.
        gamma: γ ≥ 0; 0 gives `cross_entropy`. May be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: as `cross_entropy`, and for probabilities as targets or γ < 0.

    >>> import jax.numpy as jnp
    >>> print(softmax_focal(jnp.array([[0.0, 0.0], [9.0, 0.0]]), jnp.array([0, 1])).round(2))
    [0.17 9.  ]
    """
    check_positive("gamma", gamma, zero=True)
    outputs, labels = integer_targets(outputs, targets)
    warn_of_probabilities(outputs)
    log_p = jax.nn.log_softmax(outputs)
    log_true = pick(log_p, labels)
    rest = others(labels, outputs) & ~jnp.isneginf(log_p)
    some = rest.any(axis=-1)  # if not, p_y is 1, and what stands in for a logarithm of 0 has a derivative
    stand_in = jnp.where(rest | some[..., None], log_p, 0)
    log_rest = jax.nn.logsumexp(stand_in, axis=-1, where=rest | ~some[..., None])  # log(1 - p_y) without cancellation
    factor = jnp.where(some, jnp.exp(option(gamma, outputs) * log_rest), 0)
    factor = jnp.where(jnp.isneginf(log_true), 1, factor)  # (1 - 0)^γ, whose derivative's limit is 0
    return over_batch(-factor * log_true)


@takes_targets(check_probabilities)
@named
def kl_divergence(outputs: Any, targets: Any) -> jax.Array:
    """Return the Kullback–Leibler divergence Σ_k t_k (log t_k − o_k) of log-probabilities o from probabilities t.

    It is the cross entropy less the entropy of the targets; 0 log 0 counts as 0.

    Args:
        outputs: log-probabilities `(batch, ..., classes)`, floating, as in `torch.nn.functional.kl_div`.
        targets: probabilities of the same shape.

    Returns:
        `(batch,)`, float32 or wider: the sum over classes, the mean over axes between.

    Raises:
        NetError: if the shapes differ, known targets are no probabilities or a known output is positive.

    >>> import jax.numpy as jnp
    >>> print(kl_divergence(jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[1.0, 0.0]])).round(4))
    [0.6931]
    """
    outputs, targets = same_shape(outputs, targets)
    check_probabilities(targets)
    check_log_probabilities(outputs)
    positive = targets > 0
    values = targets * (jnp.log(jnp.where(positive, targets, 1)) - jnp.where(positive, outputs, 0))
    return over_batch(_rounded_up(jnp.where(positive, values, 0).sum(axis=-1)))


def _rounded_up(divergence: jax.Array) -> jax.Array:
    """Return a divergence with 0 for what rounding takes below it; what is well below is of no probabilities."""
    return jnp.where(divergence > -1e-5, at_least_zero(divergence), divergence)
