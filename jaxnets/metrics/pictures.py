"""How alike two pictures are: structural similarity, and the ratio of peak signal to noise."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, check_count, check_positive, labeled_as
from jaxnets.losses.checks import named, same_shape
from jaxnets.metrics.metric import Metric, mean


def structural_similarity(data_range: float = 1.0, *, window: int = 7, gaussian: bool = False) -> Metric:
    """Return the metric SSIM, the mean structural similarity of pictures: 1 for equal ones, about 0 for unrelated ones.

    In each window, with means μ, variances σ² and the covariance σ_ot of outputs and targets,
    SSIM = (2 μ_o μ_t + C₁) (2 σ_ot + C₂) / ((μ_o² + μ_t² + C₁) (σ_o² + σ_t² + C₂)), C₁ = (0.01 L)², C₂ = (0.03 L)² for
    pixels of a range of L. It is averaged over all windows inside the picture, over channels, and over pictures.

    Args:
        data_range: L, the largest possible pixel less the least, greater than 0.
        window: the side of a window, odd, at least 3; variances in it divide by window² − 1. Only without `gaussian`.
        gaussian: whether to weigh a window of 11 × 11 by a Gaussian of σ = 1.5, as in the paper, with variances that
            divide by the sum of weights.

    Returns:
        The metric of outputs and targets `(batch, ..., height, width, channels)` of the same shape, such as films, and
        weights `(batch,)`.

    Raises:
        NetError: for options out of range, and when measured for shapes that differ, or pictures smaller than a window.

    Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity"
    (2004). The values are those of scikit-image with `channel_axis=-1`, and for `gaussian` with `gaussian_weights=True,
    use_sample_covariance=False`.

    >>> x = jnp.linspace(0, 1, 64).reshape(1, 8, 8, 1)
    >>> metric = structural_similarity()
    >>> metric(x, x).item(), bool(metric(1 - x, x) < 0)
    (1.0, True)
    """
    with labeled_as("structural_similarity"):
        check_positive("data_range", data_range)
        check_count("window", window)
        if window < 3 or window % 2 == 0:
            raise NetError(f"expects window odd and at least 3, got {window}")
    side = 11 if gaussian else window
    weights = np.exp(-0.5 * np.square((np.arange(side) - side // 2) / 1.5)) if gaussian else np.ones(side)
    weights /= weights.sum()
    correction = 1.0 if gaussian else side**2 / (side**2 - 1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def average(x: jax.Array, axis: int) -> jax.Array:
        """Return the weighted mean of each window along an axis."""
        count = x.shape[axis] - side + 1
        parts = [float(w) * jax.lax.slice_in_dim(x, k, k + count, axis=axis) for k, w in enumerate(weights)]
        return jnp.stack(parts).sum(0)

    @named
    def structural_similarity(outputs: Any, targets: Any) -> jax.Array:
        o, t = same_shape(outputs, targets)
        if o.ndim < 4 or min(o.shape[-3:-1]) < side:
            raise NetError(f"expects (batch, ..., height, width, channels) of {side} × {side} and more, got {o.shape}")
        o_mean, t_mean, oo, tt, ot = (average(average(x, -3), -2) for x in (o, t, o * o, t * t, o * t))
        o_var, t_var = (correction * (square - m * m) for square, m in ((oo, o_mean), (tt, t_mean)))
        both = correction * (ot - o_mean * t_mean)
        above = (2 * o_mean * t_mean + c1) * (2 * both + c2)
        below = (o_mean * o_mean + t_mean * t_mean + c1) * (o_var + t_var + c2)
        return (above / below).reshape(len(o), -1).mean(1)

    return replace(mean(structural_similarity, higher_is_better=True), range=(-1.0, 1.0))


def peak_signal_to_noise(data_range: float = 1.0) -> Metric:
    """Return the metric PSNR in decibels, 10 log₁₀(L² / mean (o − t)²), averaged over examples.

    Args:
        data_range: L, the largest possible pixel less the least, greater than 0.

    Returns:
        The metric of outputs and targets `(batch, ...)` of the same shape and weights `(batch,)`. It is infinite if an
        example has no error.

    Raises:
        NetError: for `data_range` ≤ 0, and when measured for shapes that differ.

    The value of one picture is that of scikit-image.

    >>> x = jnp.zeros((1, 4, 4, 1))
    >>> round(peak_signal_to_noise()(x + 0.1, x).item(), 4)
    20.0
    """
    with labeled_as("peak_signal_to_noise"):
        check_positive("data_range", data_range)

    @named
    def peak_signal_to_noise(outputs: Any, targets: Any) -> jax.Array:
        o, t = same_shape(outputs, targets)
        error = jnp.square(o - t).reshape(len(o), -1).mean(1)
        return 20 * np.log10(data_range).item() - 10 * jnp.log10(error)

    return mean(peak_signal_to_noise, higher_is_better=True)
