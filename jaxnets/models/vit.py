"""Vision transformers: an image as a sequence of patches."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.combinators.repeat import repeat
from jaxnets.combinators.serial import serial
from jaxnets.combinators.transformer import encoder_block
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.net import Key, Net, Params
from jaxnets.core.paths import paths
from jaxnets.layers import class_token, dense, layer_norm, learned_positions, patch_embed
from jaxnets.layers import dropout as drop
from jaxnets.models.images import takes_images

NORM: Callable[[], Net] = partial(layer_norm, epsilon=1e-6)
_POSITIONS = "encoder/pos_embedding/embedding"


@takes_images
def vit_b_16(num_classes: int = 1000, *, image_size: int = 224, dropout: Any = 0.0, scan: bool = False) -> Net:
    """Return ViT-B/16, the base model on patches of 16 × 16, with torchvision's structure.

    An image becomes patches, each mapped to 768 features. A learned token is put in front, learned positions are added,
    and 12 blocks with norms first attend to all patches; the class is read from the token. The input is
    `(batch, image_size, image_size, channels)`, the output logits `(batch, num_classes)`. With 224 × 224 × 3 and 1,000
    classes:

    | network | patches | features | blocks | heads | parameters | multiply-adds |
    | --- | --- | --- | --- | --- | --- | --- |
    | `vit_b_16` | 16 × 16 | 768 | 12 | 12 | 86,567,656 | 17,563,828,224 |
    | `vit_b_32` | 32 × 32 | 768 | 12 | 12 | 88,224,232 | 4,409,186,304 |
    | `vit_l_16` | 16 × 16 | 1024 | 24 | 16 | 304,326,632 | 61,554,712,576 |
    | `deit_tiny` | 16 × 16 | 192 | 12 | 3 | 5,717,416 | 1,253,683,200 |

    Deep features are the output of `net.upto("encoder")`, `(batch, 1 + patches, features)`, the token first.

    Args:
        num_classes: the width of the output.
        image_size: height and width of the images, a multiple of those of a patch.
        dropout: the rate after the positions, and three times in each block. May be traced.
        scan: whether the blocks run in one loop over stacked parameters, which compiles faster.

    Raises:
        NetError: for settings out of range, or images of another size.

    Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), table 1; initial values as torchvision's: N(0, 1/fan-in)
    cut off at two standard deviations for patches, N(0, 0.02²) for positions, Glorot's for the blocks, zeros for the
    output. For other sizes positions are interpolated by `resize_positions`.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> params, state = jax.eval_shape(vit_b_16().init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    86567656
    """
    return _vit(16, 768, 12, 12, num_classes, image_size, dropout, scan)


@takes_images
def vit_b_32(num_classes: int = 1000, *, image_size: int = 224, dropout: Any = 0.0, scan: bool = False) -> Net:
    """Return ViT-B/32, on patches of 32 × 32; arguments, shapes and source are those of `vit_b_16`.

    >>> vit_b_32()["conv_proj"]
    patch_embed(768, 32)
    """
    return _vit(32, 768, 12, 12, num_classes, image_size, dropout, scan)


@takes_images
def vit_l_16(num_classes: int = 1000, *, image_size: int = 224, dropout: Any = 0.0, scan: bool = False) -> Net:
    """Return ViT-L/16, the large model; arguments, shapes and source are those of `vit_b_16`.

    >>> len(vit_l_16()["encoder/layers"].children)
    24
    """
    return _vit(16, 1024, 24, 16, num_classes, image_size, dropout, scan)


@takes_images
def deit_tiny(num_classes: int = 1000, *, image_size: int = 224, dropout: Any = 0.0, scan: bool = False) -> Net:
    """Return DeiT-Ti, a vision transformer of 192 features; arguments and shapes are those of `vit_b_16`.

    Touvron et al., "Training data-efficient image transformers & distillation through attention" (2021), table 1,
    without the token for distillation.

    >>> deit_tiny()["heads"]
    dense(1000)
    """
    return _vit(16, 192, 12, 3, num_classes, image_size, dropout, scan)


def _vit(
    size: int, features: int, depth: int, heads: int, num_classes: int, image_size: int, rate: Any, scan: bool
) -> Net:
    check_count("num_classes", num_classes)
    check_count("image_size", image_size)
    if image_size % size:
        raise NetError(f"expects image_size divisible by the patch size {size}, got {image_size}")
    truncated = jax.nn.initializers.truncated_normal(1.0)

    def patch_init(key: Key, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        rows, columns, channels, _ = shape
        return truncated(key, shape, dtype) / (rows * columns * channels) ** 0.5

    gelu = partial(jax.nn.gelu, approximate=False)
    block = encoder_block(features, heads, norm=NORM, activation=gelu, dropout=rate, attention_dropout=0.0)
    encoder = serial(
        pos_embedding=learned_positions(1 + (image_size // size) ** 2),
        dropout=drop(rate),
        layers=repeat(block, depth) if scan else serial(*[block] * depth),
        ln=NORM(),
    )
    return serial(
        conv_proj=patch_embed(features, size, kernel_init=patch_init),
        class_token=class_token(),
        encoder=encoder,
        token=first_step,
        heads=dense(num_classes, kernel_init=jax.nn.initializers.zeros),
    )


def first_step(x: jax.Array) -> jax.Array:
    """Return the first step of each sequence, `(batch, time, features)` to `(batch, features)`."""
    return x[:, 0]


def resize_positions(params: Params, image_size: int) -> Params:
    """Return the parameters of a vision transformer with its positions interpolated for images of another size.

    The vectors of the patches' positions are a map, resized by the cubic kernel of Keys (a = -1/2), whose width grows
    with the patches when there are fewer; that of the class token is unchanged. These are the values of timm's
    `resample_abs_pos_embed`. torchvision's `interpolate_embeddings` lets the centers of the outermost patches stay, and
    has a = -3/4.

    Args:
        params: the parameters of `vit_b_16`, `vit_b_32`, `vit_l_16` or `deit_tiny`, of any `image_size`.
        image_size: height and width of the new images, a multiple of those of a patch.

    Returns:
        Parameters for the same network with this `image_size`; arrays other than
        `encoder/pos_embedding/embedding` are those given.

    Raises:
        NetError: for parameters of another network, or a size that is no multiple.

    Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> small, large = deit_tiny(10, image_size=32), deit_tiny(10, image_size=64)
    >>> params, state = small.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    >>> params["encoder"]["pos_embedding"]["embedding"].shape
    (5, 192)
    >>> params = resize_positions(params, 64)
    >>> params["encoder"]["pos_embedding"]["embedding"].shape
    (17, 192)
    >>> large.apply(params, state, jnp.ones((1, 64, 64, 3)))[0].shape
    (1, 10)
    """
    with labeled_as("resize_positions"):
        check_count("image_size", image_size)
        found = paths(params)
        size = _shape(found, "conv_proj/kernel", 4)[0]
        tokens, features = _shape(found, _POSITIONS, 2)
        side = math.isqrt(tokens - 1)
        if image_size % size:
            raise NetError(f"expects image_size divisible by the patch size {size}, got {image_size}")
        if side**2 != tokens - 1:
            raise NetError(f"expects positions of a class token and a square of patches, got {tokens}")
    given, new = jnp.asarray(found[_POSITIONS]), image_size // size
    if new == side:
        return params
    # (side, side, features)
    places = given[1:].reshape(side, side, features).astype(jnp.float32)
    resized = jax.image.resize(places, (new, new, features), "cubic").reshape(new**2, features)
    encoder = params["encoder"]
    positions = {"embedding": jnp.concatenate([given[:1], resized.astype(given.dtype)])}
    return {**params, "encoder": {**encoder, "pos_embedding": positions}}


def _shape(found: Mapping[str, Any], path: str, rank: int) -> tuple[int, ...]:
    """Return the shape of an array of a vision transformer."""
    shape = np.shape(found[path]) if path in found else None
    if shape is None or len(shape) != rank:
        raise NetError(f"expects the parameters of a vision transformer, with {path}, got {', '.join(found) or 'none'}")
    return shape
