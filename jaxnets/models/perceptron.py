"""Rosenblatt's perceptron."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import serial
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import dense, flatten


def fires(x: jax.Array) -> jax.Array:
    """Return 1 where x > 0 and -1 elsewhere, in the dtype of `x`; the derivative is 0."""
    return jnp.where(x > 0, jnp.ones((), x.dtype), -jnp.ones((), x.dtype))


@explained
def perceptron(num_classes: int = 1, *, activation: Callable[[jax.Array], jax.Array] = fires) -> Net:
    """Return a layer of threshold units, y = 1 where x · w + b > 0 and -1 elsewhere.

    A single unit separates two classes; of several, unit k separates class k from the others. The derivative of the
    threshold is 0, so the *score* before it is trained, with the perceptron criterion max(0, -t · score) and targets
    t = ±1. Its gradient is -t x where the unit is wrong and 0 where it is right: gradient descent on one example at a
    time is Rosenblatt's rule, w ← w + η t x after each mistake, which converges if the classes are linearly separable
    (Novikoff). `net.upto("fc")` returns the scores, with the same parameters.

    Args:
        num_classes: the number of units, at least 1.
        activation: the threshold; `lambda x: jnp.heaviside(x, 0)` for outputs of 0 and 1.

    Returns:
        A network from `(batch, ...)` to `(batch, num_classes)`, with the parameters `fc/kernel`
        `(features, num_classes)` and `fc/bias`, initially zero.

    Raises:
        NetError: for `num_classes` < 1, or integer input.

    Rosenblatt, "The Perceptron: A Probabilistic Model for Information Storage and Organization in the Brain" (1958);
    Novikoff, "On Convergence Proofs for Perceptrons" (1962).

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> t = jnp.array([[-1.0], [1.0], [1.0], [1.0]])  # the logical or
    >>> net = perceptron()
    >>> params, state = net.init(jax.random.key(0), x)
    >>> def loss(params):
    ...     scores, _ = net.upto("fc").apply(params, state, x)
    ...     return jn.losses.perceptron(scores, t).sum()
    >>> step = jax.jit(lambda params: jax.tree.map(jnp.subtract, params, jax.grad(loss)(params)))
    >>> for _ in range(10):
    ...     params = step(params)
    >>> print(net.apply(params, state, x)[0].ravel())
    [-1.  1.  1.  1.]
    """
    return serial(flatten=flatten, fc=dense(num_classes, kernel_init=jax.nn.initializers.zeros), threshold=activation)
