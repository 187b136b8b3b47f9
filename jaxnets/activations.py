"""Activations that `jax.nn` lacks; everything else is there: `relu`, `gelu`, `silu`, `leaky_relu`, `mish`, …."""

import jax
import jax.numpy as jnp

from jaxnets.errors import concrete


def scaled_tanh(x: jax.Array) -> jax.Array:
    """Return 1.7159 · tanh(2x/3), LeNet's activation.

    f(1) = 1 and f(-1) = -1, and the curvature is largest there: targets ±1 are met where the unit is most
    nonlinear rather than where it saturates, and the gain between is near 1.

    Args:
        x: floating, any shape.

    Returns:
        The same shape and dtype, in [-1.7159, 1.7159].

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998),
    appendix A.

    >>> import jax.numpy as jnp
    >>> print(scaled_tanh(jnp.array([-1.0, 0.0, 1.0])).round(2))
    [-1.  0.  1.]
    """
    return 1.7159 * jnp.tanh(2 / 3 * x)


def hard_shrink(x: jax.Array, threshold: float | jax.Array = 0.5) -> jax.Array:
    """Return x where |x| > threshold, 0 elsewhere: the proximal map of the number of nonzero values.

    Args:
        x: floating, any shape.
        threshold: ≥ 0; a scalar.

    Returns:
        The same shape and dtype.

    Donoho and Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage" (1994), there hard thresholding.

    >>> import jax.numpy as jnp
    >>> print(hard_shrink(jnp.array([-1.0, 0.5, 2.0])))
    [-1.  0.  2.]
    """
    concrete(threshold, "threshold")
    return jnp.where(jnp.abs(x) <= jnp.asarray(threshold, x.dtype), jnp.zeros((), x.dtype), x)


def soft_shrink(x: jax.Array, threshold: float | jax.Array = 0.5) -> jax.Array:
    """Return sign(x) · max(|x| - threshold, 0): the proximal map of the L1 norm.

    Args:
        x: floating, any shape.
        threshold: ≥ 0; a scalar.

    Returns:
        The same shape and dtype; the gradient is 1 beyond the threshold and 0 up to it.

    Donoho and Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage" (1994), there soft thresholding.

    >>> import jax.numpy as jnp
    >>> print(soft_shrink(jnp.array([-1.0, 0.5, 2.0])))
    [-0.5  0.   1.5]
    """
    concrete(threshold, "threshold")
    limit = jnp.asarray(threshold, x.dtype)
    return jnp.where(jnp.abs(x) <= limit, jnp.zeros((), x.dtype), x - jnp.sign(x) * limit)


def tanh_shrink(x: jax.Array) -> jax.Array:
    """Return x - tanh(x).

    Args:
        x: floating, any shape.

    Returns:
        The same shape and dtype.

    >>> import jax.numpy as jnp
    >>> print(tanh_shrink(jnp.array([-20.0, 0.0, 20.0])))
    [-19.   0.  19.]
    """
    return x - jnp.tanh(x)


def threshold(x: jax.Array, threshold: float | jax.Array = 1.0, value: float | jax.Array = 0.0) -> jax.Array:
    """Return x where x > threshold, `value` elsewhere; with `value` 0 the thresholded rectifier.

    Args:
        x: floating, any shape.
        threshold: the least x let through, a scalar.
        value: what stands for the others, a scalar.

    Returns:
        The same shape and dtype.

    Konda, Memisevic and Krueger, "Zero-bias Autoencoders and the Benefits of Co-adapting Features" (2014).

    >>> import jax.numpy as jnp
    >>> print(threshold(jnp.array([0.5, 1.0, 2.0])))
    [0. 0. 2.]
    """
    concrete(threshold, "threshold")
    concrete(value, "value")
    return jnp.where(x <= jnp.asarray(threshold, x.dtype), jnp.asarray(value, x.dtype), x)
