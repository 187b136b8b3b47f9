"""Losses between scores and classes that ask for a margin. Each returns one value an example, `(batch,)`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnets.errors import check_positive
from jaxnets.losses.checks import integer_targets, named, option, others, over_batch, pick, refuse, same_shape
from jaxnets.losses.labels import takes_labels


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


@named
def exponential(outputs: Any, targets: Any) -> jax.Array:
    """Return the exponential loss e^(−t o), that of AdaBoost.

    It is not clamped: with t o below about −88 it overflows float32 to ∞ (−709 in float64), its gradient too.
    `binary_cross_entropy` has the same minimiser, up to a factor 2, and grows linearly.

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
def multiclass_hinge(outputs: Any, targets: Any, *, margin: Any = 1.0) -> jax.Array:
    """Return the multi-class hinge loss Σ_{j≠y} max(0, o_j − o_y + Δ).

    Every class that comes nearer to the true one than the margin Δ counts (Weston and Watkins); Optax's loss
    of this name counts the worst alone (Crammer and Singer).

    Args:
        outputs: scores `(batch, ..., classes)`, floating.
        targets: integer labels `(batch, ...)`. A traced label out of range gives NaN.
        margin: Δ > 0; may be traced.

    Returns:
        `(batch,)`, float32 or wider.

    Raises:
        NetError: as `cross_entropy`, and for probabilities as targets or Δ ≤ 0.

    Weston and Watkins, "Support Vector Machines for Multi-Class Pattern Recognition" (1999).

    >>> import jax.numpy as jnp
    >>> print(multiclass_hinge(jnp.array([[3.0, 2.5, 0.0], [3.0, 5.0, 3.0]]), jnp.array([0, 0])))
    [0.5 4. ]
    """
    check_positive("margin", margin)
    outputs, labels = integer_targets(outputs, targets)
    rest = others(labels, outputs)
    excess = jnp.maximum(outputs - pick(outputs, labels)[..., None] + option(margin, outputs), 0)
    return over_batch(jnp.where(rest, excess, 0).sum(axis=-1))


def _signed(outputs: Any, targets: Any) -> tuple[jax.Array, jax.Array]:
    outputs, targets = same_shape(outputs, targets)
    mend = "; turn 0 and 1 into these by 2 * targets - 1"
    refuse(targets, lambda t: (t != 1) & (t != -1), f"expects targets -1 or 1, got {{}}{mend}")
    return outputs, targets
