"""Losses between scores and classes that ask for a margin. Each returns one value an example, `(batch,)`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.checks import refuse
from jaxnets.core.errors import NetError, concrete, is_traced
from jaxnets.losses.checks import integer_targets, named, option, others, over_batch, pick, same_shape
from jaxnets.losses.labels import takes_labels, takes_targets


def _check_signs(targets: Any) -> None:
    hint = "; turn 0 and 1 into these by 2 * targets - 1"
    refuse(targets, lambda t: (t != 1) & (t != -1), f"expects targets -1 or 1, got {{}}{hint}")


@takes_targets(_check_signs)
@named
def hinge(outputs: Any, targets: Any) -> jax.Array:
    """Return the hinge loss max(0, 1 − t o) of a score, that of support vector machines.

    Args:
        outputs: scores `(batch, ...)`, floating.
        targets: −1 or 1, of the same shape.

    Returns:
        `(batch,)`, float32 or wider. At the kink, t o = 1, the derivative is the middle of both sides.

    Raises:
        NetError: if the shapes differ or a known target is neither −1 nor 1.

    >>> import jax.numpy as jnp
    >>> print(hinge(jnp.array([0.5, 2.0, 2.0]), jnp.array([1, 1, -1])))
    [0.5 0.  3. ]
    """
    return over_batch(optax.losses.hinge_loss(*_signed(outputs, targets)))


@takes_targets(_check_signs)
@named
def squared_hinge(outputs: Any, targets: Any) -> jax.Array:
    """Return the squared hinge loss max(0, 1 − t o)², which has no kink.

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
    return over_batch(jnp.square(optax.losses.hinge_loss(*_signed(outputs, targets))))


@takes_targets(_check_signs)
@named
def perceptron(outputs: Any, targets: Any) -> jax.Array:
    """Return the perceptron's loss max(0, −t o), zero wherever the sign is right.

    Args:
        outputs: scores `(batch, ...)`, floating.
        targets: −1 or 1, of the same shape.

    Returns:
        `(batch,)`, float32 or wider. At o = 0 the derivative is −t / 2, so that learning starts from zero.

    Raises:
        NetError: if the shapes differ or a known target is neither −1 nor 1.

    Rosenblatt, "The Perceptron" (1958), for the rule that its gradient gives.

    >>> import jax.numpy as jnp
    >>> print(perceptron(jnp.array([0.5, -2.0]), jnp.array([1, 1])))
    [0. 2.]
    """
    return over_batch(optax.losses.perceptron_loss(*_signed(outputs, targets)))


@takes_targets(_check_signs)
@named
def exponential(outputs: Any, targets: Any) -> jax.Array:
    """Return the exponential loss e^(−t o), that of AdaBoost.

    It is not clamped: with t o below about −88 it overflows float32 to ∞ (−709 in float64), its gradient too.
    `binary_cross_entropy` has the same minimizer, up to a factor 2, and grows linearly.

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

    Every class that comes nearer to the true one than the margin Δ counts (Weston and Watkins). PyTorch's
    `MultiMarginLoss` divides it by the number of classes; Optax's loss of this name is `crammer_singer_hinge`. With
    Δ = 0 equal scores for all cost nothing, and with Δ < 0 the true class may even lie behind.

    Args:
        outputs: scores `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`. A traced label out of range gives NaN.
        margin: Δ, any real number; may be traced.
        power: p, 1 or 2. 2 has no kink.

    Returns:
        `(batch,)`, float32 or wider. A class with score −∞ counts for nothing.

    Raises:
        NetError: as `cross_entropy`, and for probabilities as targets, a margin that is no real number, or another p.

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
    excess = jnp.where(rest, outputs - pick(outputs, labels)[..., None] + option(margin, outputs), 0)
    excess = jnp.where(rest, jnp.maximum(excess, 0), 0)
    return over_batch((excess if power == 1 else jnp.square(excess)).sum(axis=-1))


@named
def crammer_singer_hinge(outputs: Any, targets: Any, *, margin: Any = 1.0) -> jax.Array:
    """Return the multi-class hinge loss max(0, max_{j≠y} o_j − o_y + Δ), in which the worst class alone counts.

    It is scikit-learn's `hinge_loss` of several classes and Optax's `multiclass_hinge_loss`.

    Args:
        outputs: scores `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`. A traced label out of range gives NaN.
        margin: Δ, any real number; may be traced.

    Returns:
        `(batch,)`, float32 or wider. A class with score −∞ counts for nothing.

    Raises:
        NetError: as `cross_entropy`, and for probabilities as targets or a margin that is no real number.

    Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines" (2001).

    >>> import jax.numpy as jnp
    >>> print(crammer_singer_hinge(jnp.array([[3.0, 2.5, 0.0], [3.0, 5.0, 3.0]]), jnp.array([0, 0])))
    [0.5 3. ]
    """
    concrete(margin)
    outputs, labels = integer_targets(outputs, targets)
    worst = jnp.where(others(labels, outputs), outputs, -jnp.inf).max(axis=-1)
    some = ~jnp.isneginf(worst)
    excess = jnp.where(some, worst, 0) - pick(outputs, labels) + option(margin, outputs)
    return over_batch(jnp.where(some, jnp.maximum(excess, 0), 0))


def _signed(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    outputs, targets = same_shape(outputs, targets)
    _check_signs(targets)
    return outputs, targets
