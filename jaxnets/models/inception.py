"""Inception v3: convolutions taken apart into smaller and narrower ones, side by side."""

from typing import Any

from jaxnets.combinators import serial
from jaxnets.graphs import side_heads
from jaxnets.layers import avg_pool, dense, global_avg_pool
from jaxnets.layers import dropout as drop
from jaxnets.models.images import takes_images
from jaxnets.models.inception_blocks import HALVED, mixed_5, mixed_6, mixed_6a, mixed_7, mixed_7a, unit
from jaxnets.net import Net


@takes_images
def inception_v3(num_classes: int = 1000, *, auxiliary: bool = False, dropout: Any = 0.5) -> Net:
    """Return Inception v3 as torchvision builds it.

    It takes `(batch, height, width, channels)` of any floating dtype and any size from 75 × 75 on, 299 × 299 in the
    paper, and gives logits `(batch, num_classes)`. At 1000 classes and 3 channels it has 23,834,568 parameters, with
    the auxiliary head 27,161,264, and 5,713,216,096 multiply-adds at 299 × 299. torchvision's `transform_input`,
    which undoes one normalisation of the images for another, is left to the data.

    Args:
        num_classes: width of the output.
        auxiliary: whether there is a head behind `Mixed_6e`, in training only. The output is then
            `{"logits": ..., "AuxLogits": ...}`; train it with `jn.losses.over_heads`. The head asks for 299 × 299
            or more.
        dropout: of the features before the output. May be traced.

    Raises:
        NetError: by the layer, for input that is too small or without four axes.

    Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture for Computer Vision" (2016),
    table 1 and figures 5 to 10; torchvision 0.28.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    >>> params, _ = jax.eval_shape(inception_v3(auxiliary=True).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    27161264
    """
    body = serial(
        Conv2d_1a_3x3=unit(32, (3, 3), stride=2),  # a pair: for images alone; (batch, 149, 149, 32)
        Conv2d_2a_3x3=unit(32, 3),  # (batch, 147, 147, 32)
        Conv2d_2b_3x3=unit(64, 3, padding=1),  # (batch, 147, 147, 64)
        maxpool1=HALVED,  # (batch, 73, 73, 64)
        Conv2d_3b_1x1=unit(80, 1),  # (batch, 73, 73, 80)
        Conv2d_4a_3x3=unit(192, 3),  # (batch, 71, 71, 192)
        maxpool2=HALVED,  # (batch, 35, 35, 192)
        Mixed_5b=mixed_5(32),  # (batch, 35, 35, 256)
        Mixed_5c=mixed_5(64),  # (batch, 35, 35, 288)
        Mixed_5d=mixed_5(64),  # (batch, 35, 35, 288)
        Mixed_6a=mixed_6a(),  # (batch, 17, 17, 768)
        Mixed_6b=mixed_6(128),  # (batch, 17, 17, 768)
        Mixed_6c=mixed_6(160),  # (batch, 17, 17, 768)
        Mixed_6d=mixed_6(160),  # (batch, 17, 17, 768)
        Mixed_6e=mixed_6(192),  # (batch, 17, 17, 768)
        Mixed_7a=mixed_7a(),  # (batch, 8, 8, 1280)
        Mixed_7b=mixed_7(),  # (batch, 8, 8, 2048)
        Mixed_7c=mixed_7(),  # (batch, 8, 8, 2048)
        avgpool=global_avg_pool,  # (batch, 2048)
        dropout=drop(dropout),
        fc=dense(num_classes),
    )
    head = serial(
        pool=avg_pool(5, stride=3),  # (batch, 5, 5, 768)
        conv0=unit(128, 1),
        conv1=unit(768, 5),  # (batch, 1, 1, 768)
        avgpool=global_avg_pool,
        fc=dense(num_classes),
    )
    return side_heads(body, AuxLogits=(head, "Mixed_6e")) if auxiliary else body
