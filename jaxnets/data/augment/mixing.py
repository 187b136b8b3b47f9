"""Mixing of the examples of a batch in pairs, by pure functions `(key, x, y, weights) -> (x, y, weights)`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import refuse
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, check_fraction, check_positive
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key
from jaxnets.data.augment.transforms import box, happens

Mix = Callable[[Key, Any, Any, Any], tuple[Any, Any, jax.Array]]


@labeled
def mixup(alpha: float | jax.Array, *, num_classes: int | None = None, probability: float | jax.Array = 1.0) -> Mix:
    """Return a function that blends each example of a batch with another one, and their targets in the same proportion.

    x̃ᵢ = λ xᵢ + (1 - λ) xⱼ, with λ ~ Beta(α, α) drawn once per batch and j a random permutation of the examples of
    weight > 0. Weights and targets become w̃ᵢ = λ wᵢ + (1 - λ) wⱼ and ỹᵢ = (λ wᵢ yᵢ + (1 - λ) wⱼ yⱼ) / w̃ᵢ. So for the
    cross entropy, which is linear in the target, w̃ᵢ l(o, ỹᵢ) = λ wᵢ l(o, yᵢ) + (1 - λ) wⱼ l(o, yⱼ), and Σ w̃ = Σ w.

    Args:
        alpha: α > 0; near 0 mixes little, 1 makes λ uniform. May be traced.
        num_classes: the number of classes of integer labels, which become one-hot; `None` for floating targets.
        probability: the probability that a batch is mixed, in [0, 1]; may be traced.

    Returns:
        A function of a key, inputs (a pytree of floating arrays, the batch axis first), targets (integer labels
        `(batch, ...)`, or a pytree of floating arrays: soft labels, real numbers), and weights `(batch,)`. It returns
        the mixed inputs, targets and weights, with soft labels `(batch, ..., classes)`. An example of weight 0 is
        unchanged, and is not mixed into others. A traced label out of range gives NaN.

    Raises:
        NetError: for α ≤ 0 or a probability outside [0, 1]; when called, for inputs that are not floating, labels
            without `num_classes` or out of range.

    Zhang, Cissé, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization" (2018), section 2.

    >>> import jax, jax.numpy as jnp
    >>> x, y, weights = jnp.array([[0.0], [1.0], [9.0]]), jnp.array([0, 1, 0]), jnp.array([1.0, 1.0, 0.0])
    >>> x, y, weights = mixup(1.0, num_classes=2)(jax.random.key(3), x, y, weights)
    >>> bool(jnp.allclose(y[:2, 1], x[:2, 0])), x[2].item()
    (True, 9.0)
    """

    def blend(key: Key, x: Any, share: jax.Array, partner: jax.Array) -> tuple[Any, jax.Array]:
        def one(leaf: Any) -> jax.Array:
            leaf = jnp.asarray(leaf)
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise NetError(f"expects floating inputs, got {leaf.dtype}; convert them first")
            return leaf + (1 - share).astype(leaf.dtype) * (leaf[partner] - leaf)

        return jax.tree.map(one, x), share

    return _mix(alpha, num_classes, probability, blend)


@labeled
def cutmix(
    alpha: float | jax.Array = 1.0, *, num_classes: int | None = None, probability: float | jax.Array = 1.0
) -> Mix:
    """Return a function that pastes a box of another example into each image of a batch, and mixes their targets.

    With λ ~ Beta(α, α) drawn once per batch, the box has √(1 - λ) of the image's height and width, rounded down to even
    numbers of pixels, and its center is any pixel with equal probability. The box is clipped at the edge, and λ becomes
    the fraction of the image outside it. Partners, targets and weights are as in `mixup`.

    Args:
        alpha: α > 0; 1 makes λ uniform. May be traced.
        num_classes: the number of classes of integer labels, which become one-hot; `None` for floating targets.
        probability: the probability that a batch is mixed, in [0, 1]; may be traced.

    Returns:
        A function as in `mixup`, of images `(batch, height, width, channels)` of any dtype.

    Raises:
        NetError: as in `mixup`, and for inputs that are not a batch of images.

    Yun and others, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (2019),
    section 3.1 and algorithm A1.

    >>> import jax, jax.numpy as jnp
    >>> images, labels = jnp.stack([jnp.zeros((8, 8, 1)), jnp.ones((8, 8, 1))]), jnp.array([0, 1])
    >>> x, y, weights = jax.jit(cutmix(num_classes=2))(jax.random.key(1), images, labels, jnp.ones(2))
    >>> bool(jnp.allclose(y[:, 1], x.mean((1, 2, 3))))
    True
    """

    def paste(key: Key, x: Any, share: jax.Array, partner: jax.Array) -> tuple[Any, jax.Array]:
        x = jnp.asarray(x)
        if x.ndim != 4:
            raise NetError(f"expects images (batch, height, width, channels), got {x.shape}")
        lengths = x.shape[1:3]
        limit = jnp.array(lengths)
        half = jnp.floor(jnp.sqrt(1 - share) * limit.astype(share.dtype)).astype(jnp.int32) // 2
        center = jax.random.randint(key, (2,), 0, limit)
        pasted = box(lengths, center - half, center + half)
        mixed = jnp.where(pasted[None, ..., None], x[partner], x)
        return mixed, 1 - pasted.mean(dtype=share.dtype)

    return _mix(alpha, num_classes, probability, paste)


def _mix(alpha: Any, num_classes: int | None, probability: Any, change: Callable[..., Any]) -> Mix:
    """Return the function that mixes inputs by `change`, `(key, x, λ, partners) -> (x, λ)`, and targets accordingly."""
    check_positive("alpha", alpha)
    check_fraction("probability", probability, one=True)
    if num_classes is not None:
        check_count("num_classes", num_classes)

    def mix_fn(key: Key, x: Any, y: Any, weights: Any) -> tuple[Any, Any, jax.Array]:
        pairs, often, size, place = jax.random.split(key, 4)
        weights = wide(weights)
        for rows in map(np.shape, jax.tree.leaves((x, y))):
            if rows[:1] != weights.shape:
                raise NetError(f"expects rows for {len(weights)} weights, got {rows}")
        y = jax.tree.map(lambda leaf: _soft(jnp.asarray(leaf), num_classes), y)
        partner = _partners(pairs, weights > 0)
        # Both parameters of the Beta distribution.
        shape = jnp.asarray(alpha, jnp.float32)
        share = jax.random.beta(size, shape, shape)
        # λ = 1 leaves the batch unmixed.
        x, share = change(place, x, jnp.where(happens(often, probability), share, 1.0), partner)
        share = share.astype(weights.dtype)
        own, other = share * weights, (1 - share) * weights[partner]
        total = own + other
        # (batch,), the weight of a row's own target in the mixed one.
        own_share = jnp.where(total > 0, own / jnp.where(total > 0, total, 1), 1)

        def mix_targets(leaf: jax.Array) -> jax.Array:
            part = own_share.astype(leaf.dtype).reshape(own_share.shape + (1,) * (leaf.ndim - 1))
            return part * leaf + (1 - part) * leaf[partner]

        return x, jax.tree.map(mix_targets, y), total

    return mix_fn


def _partners(key: Key, real: jax.Array) -> jax.Array:
    """Return a random permutation of the real rows, `(batch,)`; the others keep their places."""
    # Real rows first, in random order; the n-th real row gets the n-th of them.
    drawn = jnp.argsort(jnp.where(real, jax.random.uniform(key, real.shape), 2.0))
    return jnp.where(real, drawn[jnp.cumsum(real) - 1], jnp.arange(len(real)))


def _soft(y: jax.Array, num_classes: int | None) -> jax.Array:
    """Return floating targets unchanged, and integer labels one-hot."""
    if jnp.issubdtype(y.dtype, jnp.floating):
        return y
    if not jnp.issubdtype(y.dtype, jnp.integer) or num_classes is None:
        raise NetError(f"expects floating targets, or integer labels and num_classes=, got {y.dtype} {y.shape}")
    refuse(y, lambda labels: (labels < 0) | (labels >= num_classes), f"expects labels below {num_classes}, got {{}}")
    # The one-hot vector of a traced label out of range has no 1.
    hot = jax.nn.one_hot(y, num_classes)
    return jnp.where(hot.any(-1, keepdims=True), hot, jnp.nan)
