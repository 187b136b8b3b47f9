"""Activations that `jax.nn` lacks or has without parameters. `jax.nn` has the others: `relu`, `gelu`, `silu`, …."""

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, concrete, is_traced


def scaled_tanh(x: jax.Array) -> jax.Array:
    """Return 1.7159 · tanh(2x/3), LeNet's activation.

    f(1) = 1 and f(-1) = -1, and the magnitude of the second derivative is largest there: units reach the targets ±1
    where they are most nonlinear, not where they saturate. The gain in between is near 1.

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


def hard_tanh(x: jax.Array, low: float | jax.Array = -1.0, high: float | jax.Array = 1.0) -> jax.Array:
    """Return x clipped to [low, high].

    `jax.nn.hard_tanh` clips to [-1, 1].

    Args:
        x: floating, any shape.
        low: the smallest output, a scalar; may be traced.
        high: the largest output, a scalar > low; may be traced.

    Returns:
        The same shape and dtype, in [low, high]. The gradient is 1 inside (low, high), 0 elsewhere.

    Raises:
        NetError: if low ≥ high.

    Collobert, "Large Scale Machine Learning" (2004); PyTorch's `Hardtanh(min_val, max_val)`.

    >>> import jax.numpy as jnp
    >>> print(hard_tanh(jnp.array([-3.0, 0.5, 9.0]), 0.0, 6.0))
    [0.  0.5 6. ]
    """
    if not (is_traced(low) or is_traced(high)) and not low < high:
        raise NetError(f"expects low < high, got {low} and {high}", label="hard_tanh")
    least, most = jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype)
    return jnp.where(x <= least, least, jnp.where(x >= most, most, x))


def hard_sigmoid(x: jax.Array, slope: float | jax.Array = 1 / 6, offset: float | jax.Array = 0.5) -> jax.Array:
    """Return slope · x + offset clipped to [0, 1], a piecewise linear sigmoid.

    The defaults are those of `jax.nn.hard_sigmoid`, PyTorch and Keras 3; Keras 2 and ONNX use a slope of 0.2.

    Args:
        x: floating, any shape.
        slope: a scalar; may be traced.
        offset: the output at x = 0, a scalar; may be traced.

    Returns:
        The same shape and dtype, in [0, 1]. The gradient is 0 where the output is clipped.

    Courbariaux, Bengio and David, "BinaryConnect" (2015), with a slope of 1/2.

    >>> import jax.numpy as jnp
    >>> print(hard_sigmoid(jnp.array([-3.0, 0.0, 1.0, 3.0]), slope=0.2))
    [0.  0.5 0.7 1. ]
    """
    return hard_tanh(jnp.asarray(slope, x.dtype) * x + jnp.asarray(offset, x.dtype), 0.0, 1.0)


def selu(
    x: jax.Array, alpha: float | jax.Array = 1.6732632423543772, scale: float | jax.Array = 1.0507009873554805
) -> jax.Array:
    """Return scale · x where x > 0, scale · alpha · (e^x - 1) elsewhere.

    With the defaults, those of `jax.nn.selu`, mean 0 and variance 1 are a fixed point from layer to layer. Klambauer
    et al., equation 14, derive the constants for another mean and variance.

    Args:
        x: floating, any shape.
        alpha: -alpha · scale is the limit at −∞; a scalar, may be traced.
        scale: the slope for x > 0; a scalar, may be traced.

    Returns:
        The same shape and dtype.

    Klambauer, Unterthiner, Mayr and Hochreiter, "Self-Normalizing Neural Networks" (2017), equation 2.

    >>> import jax.numpy as jnp
    >>> print(selu(jnp.array([-100.0, 0.0, 2.0]), alpha=1.0, scale=0.5))
    [-0.5  0.   1. ]
    """
    return jnp.asarray(scale, x.dtype) * jax.nn.elu(x, jnp.asarray(alpha, x.dtype))


def hard_shrink(x: jax.Array, threshold: float | jax.Array = 0.5) -> jax.Array:
    """Return x where |x| > threshold, 0 elsewhere: the proximal map of the number of nonzero values.

    Args:
        x: floating, any shape.
        threshold: ≥ 0; a scalar.

    Returns:
        The same shape and dtype.

    Donoho and Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage" (1994): hard thresholding.

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
        The same shape and dtype; the gradient is 1 where |x| > threshold, 0 elsewhere.

    Donoho and Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage" (1994): soft thresholding.

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
    """Return x where x > threshold, `value` elsewhere; with `value` 0, the thresholded rectifier.

    Args:
        x: floating, any shape.
        threshold: a scalar.
        value: the output for x ≤ threshold, a scalar.

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
