"""A configurable small convolutional network."""

from collections.abc import Callable, Sequence

import jax

from jaxnets.combinators.serial import Layer, serial
from jaxnets.core.errors import check_count, check_counts, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import batch_norm as normalize
from jaxnets.layers import conv, max_pool
from jaxnets.models.images import of_images
from jaxnets.models.mlp import mlp


@explained
def cnn(
    widths: Sequence[int] = (32, 64),
    num_classes: int = 10,
    *,
    kernel_size: int = 3,
    convs: int = 1,
    pool: int = 2,
    batch_norm: bool = False,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    hidden: Sequence[int] = (128,),
    dropout: float | jax.Array = 0.0,
    spatial_axes: int = 2,
) -> Net:
    """Return stages of convolution, activation and pooling, `features`, followed by a dense `classifier`.

    Each stage has `convs` convolutions of one width, padded to keep the size, and a max pool over `pool` × `pool`
    positions, which divides the size. Convolutions are numbered from 1 through all stages, `conv1`, `bn1`, `act1`;
    pools by stage, `pool1`.

    Args:
        widths: the number of channels of each stage.
        num_classes: the width of the output.
        kernel_size: the size of the convolutions' kernels, usually 3 or 5.
        convs: the number of convolutions in each stage, at least 1.
        pool: the size and stride of the pooling window; 1 for no pooling.
        batch_norm: whether a batch norm follows each convolution, which then has no bias.
        activation: the function after each convolution and each hidden dense layer.
        hidden: the widths of the dense layers before the output; `()` for a linear classifier on the features.
        dropout: the rate in [0, 1) after each of these; may be traced.
        spatial_axes: 2 for images, 1 for sequences `(batch, length, channels)`, 3 for volumes.

    Returns:
        A network from `(batch, height, width, channels)` to logits `(batch, num_classes)`. The input size passed to
        `init` determines the shape of the dense layers.

    Raises:
        NetError: for settings out of range, an input that is integer or has another number of axes, or a pool that is
            larger than its input: each spatial axis needs at least `pool ** len(widths)` positions.

    LeCun et al., "Handwritten Digit Recognition with a Back-Propagation Network" (1989), for the idea; Simonyan and
    Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014), for the pattern.

    >>> import jax, jax.numpy as jnp
    >>> net = cnn((8, 16), batch_norm=True, hidden=(32,))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 12, 12, 1)))
    >>> jax.eval_shape(net.upto("features").apply, params, state, jnp.ones((2, 12, 12, 1)))[0].shape
    (2, 3, 3, 16)
    """
    with labeled_as("cnn"):
        check_count("convs", convs)
        check_counts("widths", widths)
    he = jax.nn.initializers.he_normal()
    features: dict[str, Layer] = {}
    number = 0
    for stage, width in enumerate(widths, start=1):
        for _ in range(convs):
            number += 1
            features[f"conv{number}"] = conv(
                width, kernel_size, padding="SAME", use_bias=not batch_norm, kernel_init=he
            )
            if batch_norm:
                features[f"bn{number}"] = normalize()
            features[f"act{number}"] = activation
        if pool != 1:
            features[f"pool{stage}"] = max_pool(pool)
    classifier = mlp(hidden, num_classes, activation=activation, dropout=dropout)
    return of_images(serial(features=serial(**features), classifier=classifier), "cnn", spatial_axes)
