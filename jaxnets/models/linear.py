"""The linear classifier."""

from jaxnets.combinators.serial import serial
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import dense, flatten


@explained
def linear(num_classes: int = 10) -> Net:
    """Return the linear score function f(x; W, b) = x W + b.

    With `jn.losses.cross_entropy` it is softmax (logistic) regression, with `jn.losses.multiclass_hinge` a linear
    support vector machine, and with `jn.losses.squared_error` linear regression.

    Args:
        num_classes: width of the output, at least 1.

    Returns:
        A network from `(batch, ...)`, including images, to scores `(batch, num_classes)`, with the parameters
        `fc/kernel` `(features, num_classes)` and `fc/bias`. Column k of the kernel, reshaped to an image, is
        the template of class k.

    Raises:
        NetError: for `num_classes` < 1, or integer input.

    Cox, "The Regression Analysis of Binary Sequences" (1958); LeCun, Bottou, Bengio and Haffner, "Gradient-Based
    Learning Applied to Document Recognition" (1998), section III.C.1, has its error on MNIST, 12.0 %.

    >>> import jax, jax.numpy as jnp
    >>> params, state = linear(10).init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    7850
    """
    return serial(flatten=flatten, fc=dense(num_classes))
