"""Losses of scores and classes with a margin, one value per example."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import refuse
from jaxnets.core.errors import NetError, concrete, is_traced
from jaxnets.losses.checks import integer_targets, named, option, others, over_batch, pick, same_shape
from jaxnets.losses.labels import takes_labels, takes_targets
from jaxnets.ops.extrema import max_along, positive_part


def _check_signs(targets: Any) -> None:
    hint = "; convert 0 and 1 by 2 * targets - 1"
    refuse(targets, lambda t: (t != 1) & (t != -1), f"expects targets -1 or 1, got {{}}{hint}")


@takes_targets(_check_signs)
@named
def hinge(outputs: Any, targets: Any) -> jax.Array:
    """Return the hinge loss max(0, 1 − t o) of support vector machines.

    Args:
        outputs: scores `(batch, ...)`, floating.
        targets: −1 or 1, of the same shape.

    Returns:
        `(batch,)`, float32 or wider. At the kink, t o = 1, the derivative is the mean of both sides.

    Raises:
        NetError: if the shapes differ or a known target is neither −1 nor 1.

    >>> import jax.numpy as jnp
    >>> print(hinge(jnp.array([0.5, 2.0, 2.0]), jnp.array([1, 1, -1])))
    [0.5 0.  3. ]
    """
    return over_batch(_excess(outputs, targets))


@takes_targets(_check_signs)
@named
def squared_hinge(outputs: Any, targets: Any) -> jax.Array:
    """Return the squared hinge loss max(0, 1 − t o)², whose derivative is continuous.

    Args:
        outputs: scores `(batch, ...)`, floating.
        targets: −1 or 1, of the same shape.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: if the shapes differ or a known target is neither −1 nor 1.

    >>> import jax.numpy as jnp
    >>> print(squared_hinge(jnp.array([0.5, 2.0, 2.0]), jnp.array([1, 1, -1])))
    [0.25 0.   9.  ]
    """
    return over_batch(jnp.square(_excess(outputs, targets)))


@takes_targets(_check_signs)
@named
def perceptron(outputs: Any, targets: Any) -> jax.Array:
    """Return the perceptron's loss max(0, −t o), which is 0 where the sign is correct.

    Args:
        outputs: scores `(batch, ...)`, floating.
        targets: −1 or 1, of the same shape.

    Returns:
        `(batch,)`, float32 or wider. At o = 0 the derivative is −t / 2, so training can start from zero.

    Raises:
        NetError: if the shapes differ or a known target is neither −1 nor 1.

    Rosenblatt, "The Perceptron" (1958), for the learning rule, which is its gradient.

    >>> import jax.numpy as jnp
    >>> print(perceptron(jnp.array([0.5, -2.0]), jnp.array([1, 1])))
    [0. 2.]
    """
    return over_batch(_excess(outputs, targets, 0))


@takes_targets(_check_signs)
@named
def exponential(outputs: Any, targets: Any) -> jax.Array:
    """Return the exponential loss e^(−t o) of AdaBoost.

    It is not clamped: for t o below about −88 (−709 in float64) the loss and its gradient overflow to ∞.
    `binary_cross_entropy` has the same minimizer, up to a factor of 2, and grows linearly.

    Args:
        outputs: scores `(batch, ...)`, floating.
        targets: −1 or 1, of the same shape.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: if the shapes differ or a known target is neither −1 nor 1.

    Friedman, Hastie and Tibshirani, "Additive Logistic Regression" (2000), section 4.

    >>> import jax.numpy as jnp
    >>> print(exponential(jnp.array([0.0, -1.0]), jnp.array([1, 1])).round(2))
    [1.   2.72]
    """
    outputs, targets = _signed(outputs, targets)
    return over_batch(jnp.exp(-targets * outputs))


@takes_labels
@named
def multiclass_hinge(outputs: Any, targets: Any, *, margin: Any = 1.0, power: Any = 1) -> jax.Array:
    """Return the multi-class hinge loss Σ_{j≠y} max(0, o_j − o_y + Δ)^p.

    Every class with a score above that of the true class minus the margin Δ counts (Weston and Watkins). PyTorch's
    `MultiMarginLoss` divides by the number of classes; Optax's `multiclass_hinge_loss` is `crammer_singer_hinge` here.
    With Δ = 0 equal scores have no loss, and with Δ < 0 the true class may even score lower than others.

    Args:
        outputs: scores `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`. A traced label out of range returns NaN.
        margin: Δ, any real number; may be traced.
        power: p, 1 or 2. With 2 the derivative is continuous.

    Returns:
        `(batch,)`, float32 or wider. A class with score −∞ does not count.

    Raises:
        NetError: as in `cross_entropy`, and for probabilities as targets, a margin that is not a real number, or
            another p.

    Weston and Watkins, "Support Vector Machines for Multi-Class Pattern Recognition" (1999).

    >>> import jax.numpy as jnp
    >>> print(multiclass_hinge(jnp.array([[3.0, 2.5, 0.0], [3.0, 5.0, 3.0]]), jnp.array([0, 0])))
    [0.5 4. ]
    """
    concrete(margin)
    if is_traced(power) or power not in (1, 2):
        raise NetError(f"expects power 1 or 2, got {power!r}")
    outputs, labels = integer_targets(outputs, targets)
    rest = others(labels, outputs) & ~jnp.isneginf(outputs)
    # The true class and scores of −∞ are replaced before max(0, ·), so that no NaN reaches the gradient.
    excess = jnp.where(rest, outputs - pick(outputs, labels)[..., None] + option(margin, outputs), 0)
    excess = jnp.where(rest, positive_part(excess), 0)
    return over_batch((excess if power == 1 else jnp.square(excess)).sum(axis=-1))


@named
def crammer_singer_hinge(outputs: Any, targets: Any, *, margin: Any = 1.0) -> jax.Array:
    """Return the multi-class hinge loss max(0, max_{j≠y} o_j − o_y + Δ), in which only the best wrong class counts.

    This is scikit-learn's `hinge_loss` for several classes and Optax's `multiclass_hinge_loss`.

    Args:
        outputs: scores `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`. A traced label out of range returns NaN.
        margin: Δ, any real number; may be traced.

    Returns:
        `(batch,)`, float32 or wider. A class with score −∞ does not count.

    Raises:
        NetError: as in `cross_entropy`, and for probabilities as targets or a margin that is not a real number.

    Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines" (2001).

    >>> import jax.numpy as jnp
    >>> print(crammer_singer_hinge(jnp.array([[3.0, 2.5, 0.0], [3.0, 5.0, 3.0]]), jnp.array([0, 0])))
    [0.5 3. ]
    """
    concrete(margin)
    outputs, labels = integer_targets(outputs, targets)
    # The best wrong score; −∞ if all wrong classes score −∞.
    worst = max_along(jnp.where(others(labels, outputs), outputs, -jnp.inf), -1)
    some = ~jnp.isneginf(worst)
    excess = jnp.where(some, worst, 0) - pick(outputs, labels) + option(margin, outputs)
    return over_batch(jnp.where(some, positive_part(excess), 0))


def _excess(outputs: Any, targets: Any, margin: int = 1) -> jax.Array:
    """Return max(0, margin − t o)."""
    outputs, targets = _signed(outputs, targets)
    return positive_part(margin - targets * outputs)


def _signed(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    """Return outputs and targets of the same shape, with targets of −1 and 1."""
    outputs, targets = same_shape(outputs, targets)
    _check_signs(targets)
    return outputs, targets
