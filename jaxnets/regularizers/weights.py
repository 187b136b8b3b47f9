"""Regularizers of parameters, selected by path."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.dtypes import wide
from jaxnets.core.errors import NetError
from jaxnets.core.paths import Pattern, select
from jaxnets.losses.checks import magnitude
from jaxnets.regularizers.regularizer import Regularizer, axes_within, make_regularizer, norm, scale


def l1(strength: Any, on: Pattern = "**/kernel") -> Regularizer:
    """Penalize λ Σ |w|, which drives weights to exactly 0 under proximal steps and near 0 under gradient descent.

    Args:
        strength: λ ≥ 0; may be traced.
        on: the paths of the parameters, see `jaxnets.core.paths`.

    Returns:
        A regularizer of parameters. The derivative at w = 0 is 0.

    Raises:
        NetError: if λ < 0; when called, if a pattern matches nothing.

    Tibshirani, "Regression Shrinkage and Selection via the Lasso" (1996).

    >>> import jax.numpy as jnp
    >>> l1(0.5)({"fc": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(2)}}).item()
    1.5
    """
    return _of_weights("l1", {"strength": strength}, on, lambda w: scale(strength, magnitude(w).sum()))


def l2(strength: Any, on: Pattern = "**/kernel") -> Regularizer:
    """Penalize the sum of squares, λ Σ w².

    The gradient is 2 λ w, twice that of ½ λ ‖w‖². PyTorch's `weight_decay` and most papers use the latter form: halve
    their λ. In plain gradient descent with rate η a step multiplies w by 1 − 2 η λ, which is a decoupled weight decay
    of 2 λ. In Adam the two differ. With this penalty its gradient is divided, together with the loss's, by the root of
    the second moment, so weights with large gradients shrink less; AdamW multiplies all weights by 1 − η λ,
    independently of the gradient. For that use `optax.adamw(η, weight_decay=λ, mask=jn.paths.mask(on))`.

    Args:
        strength: λ ≥ 0; may be traced.
        on: the paths of the parameters, see `jaxnets.core.paths`.

    Returns:
        A regularizer of parameters.

    Raises:
        NetError: if λ < 0; when called, if a pattern matches nothing.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), for the difference.

    >>> import jax.numpy as jnp
    >>> l2(0.5)({"fc": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(2)}}).item()
    2.5
    """
    return _of_weights("l2", {"strength": strength}, on, lambda w: scale(strength, jnp.square(w).sum()))


def elastic_net(l1: Any, l2: Any, on: Pattern = "**/kernel") -> Regularizer:
    """Penalize λ₁ Σ |w| + λ₂ Σ w², the sum of `l1` and `l2`.

    Args:
        l1: λ₁ ≥ 0; may be traced.
        l2: λ₂ ≥ 0; may be traced.
        on: the paths of the parameters, see `jaxnets.core.paths`.

    Returns:
        A regularizer of parameters.

    Raises:
        NetError: if a strength is negative; when called, if a pattern matches nothing.

    Zou and Hastie, "Regularization and Variable Selection via the Elastic Net" (2005).

    >>> import jax.numpy as jnp
    >>> elastic_net(0.5, 0.5)({"fc": {"kernel": jnp.array([[1.0, -2.0]])}}).item()
    4.0
    """

    def function(w: jax.Array) -> jax.Array:
        return scale(l1, magnitude(w).sum()) + scale(l2, jnp.square(w).sum())

    return _of_weights("elastic_net", {"l1": l1, "l2": l2}, on, function)


def group_lasso(strength: Any, on: Pattern = "**/kernel", axis: int | tuple[int, ...] = -1) -> Regularizer:
    """Penalize λ √n Σ_g ‖w_g‖₂, which drives whole groups of n weights to 0 together.

    The factor √n makes λ mean the same for groups of every size.

    Args:
        strength: λ ≥ 0; may be traced.
        on: the paths of the parameters, see `jaxnets.core.paths`.
        axis: the axis that enumerates the groups. −1, the last axis, groups the weights into each output unit or
            channel; −2 groups those out of each input. Several axes make a group for each combination: `(0, -1)` for
            kernels stacked by `repeat` or `ensemble`.

    Returns:
        A regularizer of parameters. The gradient at w_g = 0 is 0.

    Raises:
        NetError: if λ < 0; when called, if a pattern matches nothing or a parameter lacks the axis.

    Yuan and Lin, "Model Selection and Estimation in Regression with Grouped Variables" (2006), equation 2.1.

    >>> import jax.numpy as jnp
    >>> kernel = jnp.array([[1.0, 0.0], [1.0, 0.0]])  # one unit with weights (1, 1), one with zeros
    >>> f"{group_lasso(1.0)({'fc': {'kernel': kernel}}):.4f}"  # √2 · √2
    '2.0000'
    """

    def function(w: jax.Array) -> jax.Array:
        within = axes_within(w, axis)
        size = math.prod(w.shape[a] for a in within)
        return scale(strength, math.sqrt(size) * norm(w, within).sum())

    return _of_weights("group_lasso", {"strength": strength}, on, function)


def orthogonality(strength: Any, on: Pattern = "**/kernel") -> Regularizer:
    """Penalize λ ‖WᵀW − I‖²_F, which pulls the weights into different units towards orthonormal vectors.

    W is the kernel as a matrix `(fan_in, out)`. Where it has more columns than rows, the columns can't all be
    orthonormal, and the rows are regularized instead: λ ‖WWᵀ − I‖²_F. The two differ by the constant out − fan_in, so
    they have the same gradient; the second has the smaller product and can reach 0.

    Args:
        strength: λ ≥ 0; may be traced.
        on: the paths of the parameters, see `jaxnets.core.paths`; not for kernels stacked by `repeat`.

    Returns:
        A regularizer of parameters.

    Raises:
        NetError: if λ < 0; when called, if a pattern matches nothing or a parameter is a vector.

    Brock and others, "Neural Photo Editing with Introspective Adversarial Networks" (2017), section 3.

    >>> import jax.numpy as jnp
    >>> orthogonality(0.5)({"fc": {"kernel": 2 * jnp.eye(3)}}).item()  # 0.5 · 3 · (4 - 1)²
    13.5
    """

    def function(w: jax.Array) -> jax.Array:
        if w.ndim < 2:
            raise NetError(f"expects kernels (..., in, out), got {w.shape}; choose them by on=")
        w = w.reshape((-1, w.shape[-1]))  # (fan_in, out)
        w = w if w.shape[0] >= w.shape[1] else w.T
        gram = jnp.matmul(w.T, w, precision="highest")
        return scale(strength, jnp.square(gram - jnp.eye(len(gram), dtype=w.dtype)).sum())

    return _of_weights("orthogonality", {"strength": strength}, on, function)


def _of_weights(
    name: str, strengths: Mapping[str, Any], on: Pattern, function: Callable[[jax.Array], jax.Array]
) -> Regularizer:
    """Make a regularizer that sums a function of each selected parameter, in float32 or wider."""

    def total(params: Any) -> jax.Array:
        terms = [function(wide(w)) for w in select(params, on).values()]
        # Parameters may differ in dtype: sum in the widest.
        dtype = max((term.dtype for term in terms), key=lambda dtype: dtype.itemsize)
        return sum((term.astype(dtype) for term in terms), start=jnp.zeros((), dtype))

    return make_regularizer(name, strengths, total, "params", on)
