"""Fully convolutional networks: scores of coarse feature maps, upsampled to a class for each pixel."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.graph import graph
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.net import Net
from jaxnets.initializers import bilinear_kernel
from jaxnets.layers import conv, conv_transpose
from jaxnets.layers import dropout as drop
from jaxnets.models.cnn import cnn
from jaxnets.models.images import takes_images

ZEROS = jax.nn.initializers.zeros


@takes_images
def fcn(
    num_classes: int = 21,
    backbone: Net | None = None,
    *,
    skips: Sequence[str] = ("pool4", "pool3"),
    stride: int = 32,
    features: int = 256,
    kernel_size: int = 3,
    dropout: Any = 0.5,
) -> Net:
    """Return a fully convolutional network: scores of the coarsest map, upsampled and added to those of finer maps.

    FCN-8s has two skips, FCN-16s `("pool4",)`, FCN-32s `()`. The scores of a map are a 1×1 convolution. Transposed
    convolutions, initialized as bilinear interpolation, double the size at each skip, and finally upsample by
    stride / 2^skips to the input's size. The paper's FCN-8s is `fcn(21, jn.models.vgg16()["features"],
    skips=("23", "16"), features=4096, kernel_size=7)`, with 134,489,759 parameters.

    Args:
        num_classes: the number of channels of the output.
        backbone: a `serial` of layers that ends in the coarsest map, or such a network cut by `upto`. Default:
            `cnn((16, 32, 64, 128, 128))["features"]`. Its children keep their names at the top level, so the weights of
            a classifier fit: `params | vgg16_params["features"]`.
        skips: the children of the backbone whose maps have 2, 4, … times the size of the last, in this order.
        stride: the stride of the whole backbone.
        features: the channels of the two layers `fc6` and `fc7` after the backbone.
        kernel_size: the kernel size of `fc6`, which keeps the size of the map.
        dropout: the rate after `fc6` and `fc7`. May be traced.

    Returns:
        A network from `(batch, height, width, channels)`, of any floating dtype and any size, to logits
        `(batch, height, width, num_classes)`. Where sizes do not halve evenly, maps are cropped at their end, or their
        edge is repeated. `jn.losses.cross_entropy` takes the logits with labels `(batch, height, width)`.

    Raises:
        NetError: for a backbone that is not a `serial`, a skip that is not one of its children, or a stride that the
            skips do not divide; for maps whose sizes do not match `skips` and `stride`; for an input smaller than
            `stride`.

    Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation" (2015), section 4.

    >>> import jax, jax.numpy as jnp
    >>> net, x = fcn(21), jax.ShapeDtypeStruct((1, 50, 40, 3), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (1, 50, 40, 21)
    """
    backbone = cnn((16, 32, 64, 128, 128))["features"] if backbone is None else backbone
    _check(backbone, skips, stride)
    he = jax.nn.initializers.he_normal()
    nodes: dict[str, Any] = dict(backbone.children) | {
        "fc6": conv(features, kernel_size, padding="SAME", kernel_init=he),
        "relu6": jax.nn.relu,
        "drop6": drop(dropout),
        "fc7": conv(features, 1, kernel_init=he),
        "relu7": jax.nn.relu,
        "drop7": drop(dropout),
        "score": conv(num_classes, 1),
    }
    # The scores of the skips start at zero, so the network starts as FCN-32s.
    for skip in skips:
        nodes[f"upscore_{skip}"] = _upscore(num_classes, 2)
        nodes[f"score_{skip}"] = (conv(num_classes, 1, kernel_init=ZEROS), skip)
        nodes[f"crop_{skip}"] = (partial(fit, within=2), f"upscore_{skip}", f"score_{skip}")
        nodes[f"fuse_{skip}"] = (sum, f"crop_{skip}", f"score_{skip}")
    step = stride // 2 ** len(skips)
    return graph(**nodes, upscore=_upscore(num_classes, step), crop=(partial(fit, within=step), "upscore", "input"))


def fit(pair: tuple[jax.Array, jax.Array], *, within: int) -> jax.Array:
    """Crop or pad the first map to the spatial size of the second, from which it differs by less than `within`."""
    x, like = pair
    for axis in range(1, x.ndim - 1):
        missing = like.shape[axis] - x.shape[axis]
        if abs(missing) >= within:
            raise NetError(
                f"expects maps of nearly one size, got {x.shape[1:-1]} for {like.shape[1:-1]}; skips names maps of "
                f"2, 4, … times the size of the last, and stride is that of the whole backbone"
            )
        x = jnp.pad(x, [(0, max(missing, 0) * (each == axis)) for each in range(x.ndim)], mode="edge")
        x = jax.lax.slice_in_dim(x, 0, like.shape[axis], axis=axis)
    return x


def _upscore(num_classes: int, step: int) -> Net:
    """Return the transposed convolution that upsamples by `step`, initialized as bilinear interpolation."""
    window, cut = 2 * step - step % 2, (step - step % 2) // 2
    return conv_transpose(num_classes, window, stride=step, padding=cut, use_bias=False, kernel_init=bilinear_kernel)


def _check(backbone: Net, skips: Sequence[str], stride: int) -> None:
    in_order = backbone.children and backbone.label in ("serial", f"serial up to {[*backbone.children][-1]}")
    with labeled_as("fcn"):
        check_count("stride", stride)
        if not in_order:
            raise NetError(f"expects a serial as backbone, got {backbone.label}")
        if unknown := [skip for skip in skips if skip not in backbone.children]:
            raise NetError(f"expects skips among {', '.join(backbone.children)}, got {', '.join(unknown)}")
        if stride % 2 ** len(skips):
            raise NetError(f"expects a stride divisible by 2^{len(skips)}, for {len(skips)} skips, got {stride}")
