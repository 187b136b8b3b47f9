"""How well drawn examples are distributed like real ones, judged by features of both."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import refuse
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.foreign import arrays


class PrecisionRecall(NamedTuple):
    """Result of `manifold_precision_recall`.

    Attributes:
        precision: the fraction of drawn examples near real ones.
        recall: the fraction of real examples near drawn ones.
    """

    precision: jax.Array
    recall: jax.Array


def frechet_distance(real: Any, drawn: Any) -> jax.Array:
    """Return the Fréchet distance of normal distributions fitted to features: of Inception v3's, this is FID.

    d² = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½), with unbiased covariances. tr (Σ₁ Σ₂)^½ is the sum of the square roots
    of the eigenvalues of the symmetric matrix Σ₁^½ Σ₂ Σ₁^½. It falls as examples grow
    in number: compare equal numbers.

    Args:
        real: features of real examples `(examples, features)`.
        drawn: features of drawn ones, of the same width; the number may differ.

    Returns:
        d² ≥ 0, a scalar of float32 or wider.

    Raises:
        NetError: for fewer than two examples, other shapes, or values that are not finite.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (2017),
    equation 6.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.0], [2.0]])
    >>> print(frechet_distance(x, 3 * x + 1).round(4))
    17.0
    """
    with labeled_as("frechet_distance"):
        first, second = _features(real, drawn, 2)
    means, covariances = zip(*((x.mean(0), _covariance(x)) for x in (first, second)))
    values, vectors = jnp.linalg.eigh(covariances[0])
    root = (vectors * jnp.sqrt(jnp.maximum(values, 0))[None]) @ vectors.T
    middle = jnp.linalg.eigvalsh(root @ covariances[1] @ root)
    both = jnp.sqrt(jnp.maximum(middle, 0)).sum()
    traces = sum(jnp.trace(each) for each in covariances)
    return jnp.maximum(jnp.square(means[0] - means[1]).sum() + traces - 2 * both, 0)


def manifold_precision_recall(real: Any, drawn: Any, neighbors: int = 3) -> PrecisionRecall:
    """Return the improved precision and recall of drawn examples.

    An example is near a set if for one of the set's members it is at most as far as that member's k-th nearest neighbor
    in the set, itself not counted. Precision is the fraction of drawn examples near the real ones (are they good?),
    recall that of real examples near the drawn ones (is everything drawn?).

    Args:
        real: features of real examples `(examples, features)`.
        drawn: features of drawn ones, of the same width; the number may differ.
        neighbors: k, below both numbers of examples.

    Returns:
        Two scalars of float32 or wider, from 0 to 1.

    Raises:
        NetError: for too few examples, other shapes, or values that are not finite.

    Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models" (2019), equations 1
    and 2.

    >>> import jax.numpy as jnp
    >>> real, drawn = jnp.arange(5.0)[:, None], jnp.array([[0.5], [1.5], [2.2]])
    >>> [round(each.item(), 2) for each in manifold_precision_recall(real, drawn, 1)]
    [1.0, 0.6]
    """
    with labeled_as("manifold_precision_recall"):
        check_count("neighbors", neighbors)
        first, second = _features(real, drawn, neighbors + 1)
    across = _squared_distances(first, second)

    def radii(x: jax.Array) -> jax.Array:
        # The nearest of all is the example itself.
        return jnp.sort(_squared_distances(x, x), axis=1)[:, neighbors]

    precision = (across <= radii(first)[:, None]).any(0).mean(dtype=first.dtype)
    recall = (across <= radii(second)[None]).any(1).mean(dtype=first.dtype)
    return PrecisionRecall(precision, recall)


def _features(real: Any, drawn: Any, least: int) -> tuple[jax.Array, jax.Array]:
    """Return features of both as floats of one dtype, checked."""
    first, second = (wide(jnp.asarray(arrays(name, x))) for name, x in (("real", real), ("drawn", drawn)))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise NetError(f"expects features (examples, features) of one width, got {first.shape} and {second.shape}")
    if min(len(first), len(second)) < least:
        raise NetError(f"expects at least {least} examples of each, got {len(first)} and {len(second)}")
    for x in (first, second):
        refuse(x, lambda x: ~np.isfinite(x), "expects finite features, got {}")
    dtype = jnp.promote_types(first.dtype, second.dtype)
    return first.astype(dtype), second.astype(dtype)


def _covariance(x: jax.Array) -> jax.Array:
    centered = x - x.mean(0, keepdims=True)
    return centered.T @ centered / (len(x) - 1)


def _squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return ‖x_i − y_j‖², row by row: sums of squared differences, exact where rows are equal."""
    return jax.lax.map(lambda row: jnp.square(row[None] - y).sum(-1), x)
