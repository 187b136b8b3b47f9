"""Landmark detection: a network that predicts points in an image."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import Layer, serial
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.net import Net
from jaxnets.layers import conv
from jaxnets.layers.windows import check_spatial
from jaxnets.models.cnn import cnn
from jaxnets.models.images import takes_images
from jaxnets.models.mlp import mlp


@takes_images
def landmarks(
    num_points: int,
    backbone: Layer | None = None,
    *,
    head: Literal["dense", "heatmap"] = "dense",
    hidden: Sequence[int] = (128,),
    dropout: Any = 0.0,
) -> Net:
    """Return a network that predicts the positions of points in an image, such as the corners of a mouth.

    Points are (x, y), x to the right and y downwards; the center of the image is (0, 0), its edges are at -1 and 1.
    Train it as a regression, with `jn.losses.squared_error` or `smooth_l1`.

    Args:
        num_points: the number of points.
        backbone: a network from images to feature maps `(batch, height, width, channels)`. Default:
            `cnn((16, 32, 64), batch_norm=True)["features"]`. Its parameters are under `features`.
        head: "dense" flattens the maps and regresses the coordinates, for the input size passed to `init`. "heatmap"
            predicts one map per point and returns its `soft_argmax`: fewer parameters, images of any size, and points
            inside the image.
        hidden: the widths of the dense layers before the output, for "dense".
        dropout: the rate in [0, 1) after each of these; may be traced.

    Returns:
        A network from `(batch, height, width, channels)` to `(batch, num_points, 2)`. `net.upto("heatmap")` returns the
        maps.

    Raises:
        NetError: for another head or a number below 1, or an input that the backbone does not accept; the message names
            the layer.

    Toshev and Szegedy, "DeepPose: Human Pose Estimation via Deep Neural Networks" (2014), for "dense"; Nibali, He,
    Morgan and Prendergast, "Numerical Coordinate Regression with Convolutional Neural Networks" (2018), for "heatmap".

    >>> import jax, jax.numpy as jnp
    >>> net, x = landmarks(5), jax.ShapeDtypeStruct((3, 64, 64, 1), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (3, 5, 2)
    """
    with labeled_as("landmarks"):
        check_count("num_points", num_points)
        if head not in ("dense", "heatmap"):
            raise NetError(f"expects head 'dense' or 'heatmap', got {head!r}")
    features = cnn((16, 32, 64), batch_norm=True)["features"] if backbone is None else backbone
    if head == "heatmap":
        return serial(features=features, heatmap=conv(num_points, 1), coordinates=soft_argmax)
    regressor = mlp(hidden, 2 * num_points, dropout=dropout)
    return serial(features=features, regressor=regressor, coordinates=partial(as_points, num_points=num_points))


def as_points(x: jax.Array, *, num_points: int) -> jax.Array:
    """Return coordinates `(batch, 2 · num_points)` as points `(batch, num_points, 2)`."""
    return x.reshape(x.shape[0], num_points, 2)


def soft_argmax(heatmaps: Any) -> jax.Array:
    """Return the mean position in each channel under softmax(heatmap) over all pixels, as (x, y).

    c = Σ_p softmax(h)_p · position_p, where pixels are at their centers: column j of n is at x = (2 j + 1) / n - 1. It
    is differentiable, unlike the position of the maximum, which it approaches for a map with one high peak.

    Args:
        heatmaps: `(batch, height, width, points)`, floating. Sums are computed in float32 for narrower input.

    Returns:
        `(batch, points, 2)` in the same dtype, inside (-1, 1).

    Raises:
        NetError: for an input of another rank, or of integers.

    Nibali, He, Morgan and Prendergast, "Numerical Coordinate Regression with Convolutional Neural Networks" (2018).

    >>> import jax.numpy as jnp
    >>> soft_argmax(jnp.zeros((1, 2, 4, 1)).at[0, 1, 3, 0].set(100.0)).tolist()
    [[[0.75, 0.5]]]
    """
    with labeled_as("soft_argmax"):
        check_spatial(heatmaps, 2)
    dtype = param_dtype(heatmaps)
    share = jax.nn.softmax(jnp.asarray(heatmaps).astype(dtype), axis=(1, 2))  # (batch, height, width, points)
    x, y = ((2 * jnp.arange(n, dtype=dtype) + 1) / n - 1 for n in (share.shape[2], share.shape[1]))
    # (batch, points). Sums, because a GPU would round a matrix product.
    mean_x = (share.sum(1) * x[None, :, None]).sum(1)
    mean_y = (share.sum(2) * y[None, :, None]).sum(1)
    return jnp.stack([mean_x, mean_y], axis=-1).astype(heatmaps.dtype)
