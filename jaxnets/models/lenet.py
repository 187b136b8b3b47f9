"""LeNet-5, the network that read cheques."""

from collections.abc import Callable

import jax

from jaxnets.combinators import serial
from jaxnets.layers import conv, dense, flatten, max_pool
from jaxnets.net import Net


def lenet5(num_classes: int = 10, *, activation: Callable = jax.nn.relu, pool: Callable[..., Net] = max_pool) -> Net:
    """Return LeNet-5 as it is built today: full second convolution, plain pooling, a linear output.

    It takes `(batch, 28, 28, 1)` and gives logits `(batch, num_classes)`; with ten classes it has 61,706
    parameters and 416,520 multiply-adds.

    Args:
        num_classes: width of the output.
        activation: after each layer but the last; the paper's is `jn.scaled_tanh`.
        pool: `jn.max_pool`, or `jn.avg_pool`, which is nearer to the paper's.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), figure 2.

    >>> import jax, jax.numpy as jnp
    >>> params, state = lenet5().init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """
    he = jax.nn.initializers.he_normal()
    return serial(
        conv1=conv(6, 5, padding=2, kernel_init=he),  # (batch, 28, 28, 6)
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
