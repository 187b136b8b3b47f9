"""LeNet-5, the network that read cheques: as it is built today, and as it was published."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.activations import scaled_tanh
from jaxnets.combinators import serial
from jaxnets.errors import NetError
from jaxnets.layers import conv, dense, flatten, max_pool
from jaxnets.models.images import takes_images
from jaxnets.models.lenet_parts import codes_for, connected_conv, fan_in_uniform, rbf, subsample
from jaxnets.net import Net

# Table I of the paper: the maps of S2 that each map of C3 sees.
C3_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


@takes_images
def lenet5(num_classes: int = 10, *, activation: Callable = jax.nn.relu, pool: Callable[..., Net] = max_pool) -> Net:
    """Return LeNet-5 as it is built today: full second convolution, plain pooling, a linear output.

    It takes `(batch, 28, 28, 1)` and gives logits `(batch, num_classes)`; with ten classes it has 61,706
    parameters and 416,520 multiply-adds.

    Args:
        num_classes: width of the output.
        activation: after each layer but the last; the paper's is `jn.scaled_tanh`.
        pool: `jn.max_pool`, or `jn.avg_pool`, which is nearer to the paper's.

    Raises:
        NetError: by the layer, for input that is too small or no batch of images.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), figure 2.

    >>> import jax, jax.numpy as jnp
    >>> params, state = lenet5().init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """
    he = jax.nn.initializers.he_normal()
    return serial(
        conv1=conv(6, (5, 5), padding=2, kernel_init=he),  # a pair: for images alone; (batch, 28, 28, 6)
        relu1=activation,
        pool1=pool(2),  # (batch, 14, 14, 6)
        conv2=conv(16, 5, kernel_init=he),  # (batch, 10, 10, 16)
        relu2=activation,
        pool2=pool(2),  # (batch, 5, 5, 16)
        flatten=flatten,  # (batch, 400)
        fc1=dense(120, kernel_init=he),
        relu3=activation,
        fc2=dense(84, kernel_init=he),
        relu4=activation,
        fc3=dense(num_classes),
    )


@takes_images
def lenet5_1998(num_classes: int = 10, *, codes: Any = None, trainable_codes: bool = False, padding: int = 0) -> Net:
    """Return LeNet-5 as published: learned subsampling, a table of connections, scaled tanh, RBF units at the end.

    It takes `(batch, 32, 32, channels)`, digits of 28 × 28 with a margin, or larger images. The paper has -0.1 for
    white and 1.175 for ink, so that inputs have a mean near 0 and a variance near 1. Parameters, with one channel: `c1`
    156, `s2` 12, `c3` 1,516, `s4` 32, `c5` 48,120, `f6` 10,164, 60,000 in all; the codes are none. Initial values are
    the paper's, U(-2.4 / F, 2.4 / F) with the fan-in F, and 0 for biases.

    Output unit i is the squared distance y_i = Σ_j (x_j - codes_ij)² of F6 from the code of its class; the network
    `net.upto("output")` gives these. The whole gives *logits* -y `(batch, num_classes)`, so that the nearest code is
    the `argmax`. Train it by `jn.losses.maximum_a_posteriori`, the paper's loss, or by `jn.losses.cross_entropy`.

    Args:
        num_classes: width of the output.
        codes: an array `(num_classes, width of F6)` of -1 and 1. If not given: for classes 0 to 9 pictures of the
            digits on 7 × 12, after figure 3 of the paper but not copied from it; for more classes 84 bits at random.
        trainable_codes: whether the codes are a parameter, `output/codes`, rather than fixed.
        padding: zeros around the input; 2 for images of 28 × 28.

    Raises:
        NetError: for codes of another shape, or an input that is too small or no batch of images, naming the layer.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), section II.B,
    table I and appendix A.

    >>> import jax, jax.numpy as jnp
    >>> net, x = lenet5_1998(), jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> {name: sum(leaf.size for leaf in jax.tree.leaves(params[name])) for name in net.children if name in params}
    {'c1': 156, 's2': 12, 'c3': 1516, 's4': 32, 'c5': 48120, 'f6': 10164}
    """
    codes = codes_for(num_classes) if codes is None else jnp.asarray(codes, float)
    if jnp.ndim(codes) != 2 or len(codes) != num_classes:
        raise NetError(f"expects codes ({num_classes}, bits), got {jnp.shape(codes)}", label="lenet5_1998")
    return serial(
        c1=conv(6, (5, 5), padding=padding, kernel_init=fan_in_uniform),  # for images alone; (batch, 28, 28, 6)
        squash1=scaled_tanh,
        s2=subsample(2),  # (batch, 14, 14, 6)
        squash2=scaled_tanh,
        c3=connected_conv(C3_TABLE, 5),  # (batch, 10, 10, 16)
        squash3=scaled_tanh,
        s4=subsample(2),  # (batch, 5, 5, 16)
        squash4=scaled_tanh,
        c5=conv(120, 5, kernel_init=fan_in_uniform),  # (batch, 1, 1, 120)
        squash5=scaled_tanh,
        flatten=flatten,
        f6=dense(codes.shape[1], kernel_init=fan_in_uniform),
        squash6=scaled_tanh,
        output=rbf(codes, trainable=trainable_codes),
        logits=jnp.negative,
    )
