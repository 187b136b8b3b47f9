"""Batches whose examples are mixed in pairs: pure functions `(key, x, y, weights) -> (x, y, weights)`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import refuse
from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError, check_count, check_positive
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key
from jaxnets.data.augment.transforms import box, check_probability, happens

Mix = Callable[[Key, Any, Any, Any], tuple[Any, Any, jax.Array]]


@labeled
def mixup(alpha: float | jax.Array, *, num_classes: int | None = None, probability: float | jax.Array = 1.0) -> Mix:
    """Return a function that blends each example of a batch with another one, and their targets alike.

    x̃ᵢ = λ xᵢ + (1 - λ) xⱼ, with λ ~ Beta(α, α) drawn once a batch and j a random permutation of the examples of
    weight > 0. Of weight and target, w̃ᵢ = λ wᵢ + (1 - λ) wⱼ and ỹᵢ = (λ wᵢ yᵢ + (1 - λ) wⱼ yⱼ) / w̃ᵢ, so that for the
    cross entropy, which is linear in the target, w̃ᵢ l(o, ỹᵢ) = λ wᵢ l(o, yᵢ) + (1 - λ) wⱼ l(o, yⱼ), and Σ w̃ = Σ w.

    Args:
        alpha: α > 0; near 0 little is mixed, 1 makes λ uniform. May be traced.
        num_classes: of integer labels, which become one-hot; `None` for targets that are floating already.
        probability: how often a batch is mixed at all, in [0, 1]; may be traced.

    Returns:
        A function of a key, inputs (a pytree of floating arrays, the batch axis first), targets (integer labels
        `(batch, ...)`, or a pytree of floating arrays: soft labels, real numbers), and weights `(batch,)`, to the
        same three with soft labels `(batch, ..., classes)`. An example of weight 0 stays as it is, and nothing of
        it gets into another. A traced label out of range gives NaN.

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

    With λ ~ Beta(α, α) drawn once a batch, the box has √(1 - λ) of the image's height and width, rounded down to even
    numbers of pixels, and any pixel for its center with equal probability. What reaches over the edge is cut off, and
    λ becomes the share of the image that is left. Partners, targets and weights are those of `mixup`.

    Args:
        alpha: α > 0; 1 makes λ uniform. May be traced.
        num_classes: of integer labels, which become one-hot; `None` for targets that are floating already.
        probability: how often a batch is mixed at all, in [0, 1]; may be traced.

    Returns:
        A function of a key, images `(batch, height, width, channels)` of any dtype, targets and weights, as that of
        `mixup`.

    Raises:
        NetError: as `mixup`, and for inputs that are no batch of images.

    Yun and others, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (2019),
    section 3.1 and algorithm A1.

    >>> import jax, jax.numpy as jnp
    >>> images, labels = jnp.stack([jnp.zeros((8, 8, 1)), jnp.ones((8, 8, 1))]), jnp.array([0, 1])
    >>> x, y, weights = cutmix(num_classes=2)(jax.random.key(1), images, labels, jnp.ones(2))
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
    """Return the mixing by `change`, `(key, x, λ, partners) -> (x, λ)`."""
    check_positive("alpha", alpha)
    check_probability(probability)
    if num_classes is not None:
        check_count("num_classes", num_classes)

    def mix_fn(key: Key, x: Any, y: Any, weights: Any) -> tuple[Any, Any, jax.Array]:
        pairs, often, size, place = jax.random.split(key, 4)
        weights = wide(weights)
        for rows in map(jnp.shape, jax.tree.leaves((x, y))):
            if rows[:1] != weights.shape:
                raise NetError(f"expects rows for {len(weights)} weights, got {rows}")
        y = jax.tree.map(lambda leaf: _soft(jnp.asarray(leaf), num_classes), y)
        partner = _partners(pairs, weights > 0)
        shape = jnp.asarray(alpha, jnp.float32)  # both parameters of Beta
        share = jax.random.beta(size, shape, shape)
        x, share = change(place, x, jnp.where(happens(often, probability), share, 1.0), partner)
        share = share.astype(weights.dtype)
        own, other = share * weights, (1 - share) * weights[partner]
        total = own + other
        left = jnp.where(total > 0, own / jnp.where(total > 0, total, 1), 1)  # (batch,), the part of a row's own target

        def together(leaf: jax.Array) -> jax.Array:
            part = left.astype(leaf.dtype).reshape(left.shape + (1,) * (leaf.ndim - 1))
            return part * leaf + (1 - part) * leaf[partner]

        return x, jax.tree.map(together, y), total

    return mix_fn


def _partners(key: Key, real: jax.Array) -> jax.Array:
    """Return a random permutation of the rows that are real, `(batch,)`; the others stay in their places."""
    drawn = jnp.argsort(jnp.where(real, jax.random.uniform(key, real.shape), 2.0))  # real rows first, in random order
    return jnp.where(real, drawn[jnp.cumsum(real) - 1], jnp.arange(len(real)))


def _soft(y: jax.Array, num_classes: int | None) -> jax.Array:
    if jnp.issubdtype(y.dtype, jnp.floating):
        return y
    if not jnp.issubdtype(y.dtype, jnp.integer) or num_classes is None:
        raise NetError(f"expects floating targets, or integer labels and num_classes=, got {y.dtype} {y.shape}")
    refuse(y, lambda labels: (labels < 0) | (labels >= num_classes), f"expects labels below {num_classes}, got {{}}")
    hot = jax.nn.one_hot(y, num_classes)
    return jnp.where(hot.any(-1, keepdims=True), hot, jnp.nan)
