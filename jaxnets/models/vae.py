"""The variational autoencoder, fully connected and convolutional."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxnets.combinators import branches
from jaxnets.keywords import explained
from jaxnets.layers import dense
from jaxnets.models.halves import conv_halves, dense_halves
from jaxnets.models.images import of_images
from jaxnets.models.variational import variational
from jaxnets.net import Net


@explained
def vae(
    shape: Sequence[int], widths: Sequence[int] = (500,), code: int = 20, *, activation: Callable = jnp.tanh
) -> Net:
    """Return a fully connected variational autoencoder, a `variational` network.

    Args:
        shape: that of one example, `(28, 28, 1)`, without the batch axis.
        widths: of the hidden layers from input to code, and in reverse from code to output.
        code: width of the code.
        activation: after each hidden layer.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C and section 5, one of whose networks for
    MNIST this is.

    >>> import jax, jax.numpy as jnp
    >>> net, x = vae((28, 28, 1)), jnp.ones((1, 28, 28, 1))
    >>> params, _ = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    815824
    """
    return variational(*dense_halves(shape, widths, _heads(code), activation))


@explained
def conv_vae(
    shape: Sequence[int], features: Sequence[int] = (32, 64), code: int = 20, *, activation: Callable = jax.nn.relu
) -> Net:
    """Return a convolutional variational autoencoder: the halves of `conv_autoencoder` in a `variational` network.

    Args:
        shape: that of one example, `(height, width, channels)` of any size, or with one or three spatial axes.
        features: channels of the convolutions from input to code.
        code: width of the code.
        activation: after each layer but code and output.

    >>> import jax, jax.numpy as jnp
    >>> net, x = conv_vae((9, 6, 1), (8, 16), 2), jnp.ones((2, 9, 6, 1))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> {name: leaf.shape for name, leaf in jax.eval_shape(net.apply, params, state, x)[0].items()}
    {'log_variance': (2, 2), 'mean': (2, 2), 'reconstruction': (2, 9, 6, 1)}
    """
    return of_images(variational(*conv_halves(shape, features, _heads(code), activation)), "conv_vae", len(shape) - 1)


def _heads(code: int) -> Net:
    return branches(dict, mean=dense(code), log_variance=dense(code))
