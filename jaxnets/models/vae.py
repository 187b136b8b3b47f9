"""Variational autoencoders: from any encoder and decoder, fully connected, convolutional."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.combinators.serial import Layer, branches, build_child
from jaxnets.core.checks import check_train_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.layer import as_net
from jaxnets.core.net import Apply, Key, Net, Params, State, apply_child, compose, fold
from jaxnets.core.value import recorded
from jaxnets.layers import dense
from jaxnets.models.autoencoder import conv_halves, dense_halves
from jaxnets.models.images import of_images


@recorded
def variational(encoder: Layer, decoder: Layer) -> Net:
    """Return the variational autoencoder of an encoder q(z|x) = N(mean, e^log_variance) and a decoder p(x|z).

    In training the decoder gets z = mean + e^(log_variance / 2) · ε with ε ~ N(0, 1), in evaluation the mean. The loss
    is `jn.losses.negative_elbo` with the input as target. New examples are drawn from the prior by
    `net["decoder"].apply(params["decoder"], {}, jax.random.normal(key, (n, code)))`; `net.upto("encoder")` returns the
    codes.

    Args:
        encoder: a network that returns a dict of `mean` and `log_variance`, of one shape.
        decoder: a network from a code to a reconstruction: logits for the Bernoulli likelihood, means for the Gaussian.

    Returns:
        A network that returns a dict of `reconstruction`, `mean` and `log_variance`, and requires a key in training.

    Raises:
        NetError: if the encoder returns anything else, or for training without a key.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = variational(jn.branches(dict, mean=jn.dense(2), log_variance=jn.dense(2)), jn.dense(5))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> y, _ = net.apply(params, state, jnp.ones((3, 5)), key=jax.random.key(1), train=True)
    >>> jn.losses.negative_elbo(y, jnp.ones((3, 5))).shape
    (3,)
    """
    whole = {"encoder": as_net(encoder), "decoder": as_net(decoder)}

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state = {}, {}
        # The decoder is initialized on the mean, which has the shape of a code.
        code = _posterior(build_child(whole["encoder"], "encoder", key, x, params, state))
        y = build_child(whole["decoder"], "decoder", key, code["mean"], params, state)
        return params, state, {"reconstruction": y, **code}

    def run(parts: Mapping[str, Net], params: Params, state: State, x: Any, key: Key | None, train: bool) -> Any:
        y, new_state = x, dict(state)
        code: dict[str, Any] = {}
        for name, part in parts.items():
            y, inner = apply_child(part, name, params, state, y, key=key, train=train)
            new_state |= {name: inner} if inner else {}
            # `upto` may stop inside the encoder, where there is no distribution to draw from yet.
            if name == "encoder" and "decoder" in parts:
                code = _posterior(y)
                y = _sample(fold(key, "code"), **code) if train else code["mean"]
        return y, code, new_state

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        y, code, state = run(whole, params, state, x, key, train)
        return {"reconstruction": y, **code}, state

    def cut(path: tuple[str, ...]) -> Apply:
        last, *inside = path
        parts = dict(whole) if last == "decoder" else {"encoder": whole["encoder"]}
        parts[last] = parts[last].upto("/".join(inside)) if inside else parts[last]

        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            y, _, state = run(parts, params, state, x, key, train)
            return y, state

        return apply

    return compose(build, apply, label="variational", children=whole, cut=cut)


def _posterior(code: Any) -> dict[str, Any]:
    """Check the output of an encoder, and return its mean and log variance."""
    names = sorted(code) if isinstance(code, Mapping) else type(code).__name__
    if names != ["log_variance", "mean"] or np.shape(code["mean"]) != np.shape(code["log_variance"]):
        raise NetError(
            f"expects an encoder that returns a dict of mean and log_variance of one shape, got {names}; end it in "
            f"jn.branches(dict, mean=jn.dense(n), log_variance=jn.dense(n))",
            label="variational",
        )
    return {name: code[name] for name in ("mean", "log_variance")}


def _sample(key: Key | None, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Draw z = mean + e^(log_variance / 2) · ε, so that gradients flow through the mean and the variance."""
    with labeled_as("variational"):
        check_train_key(key)
    noise = jax.random.normal(key, mean.shape, param_dtype(mean)).astype(mean.dtype)  # type: ignore[arg-type]  # checked
    return mean + jnp.exp(log_variance / 2) * noise


@explained
def vae(
    shape: Sequence[int], widths: Sequence[int] = (500,), code: int = 20, *, activation: Callable = jnp.tanh
) -> Net:
    """Return a fully connected variational autoencoder, a `variational` network.

    Args:
        shape: the shape of one example, such as `(28, 28, 1)`, without the batch axis.
        widths: the widths of the hidden layers, from input to code, and in reverse from code to output.
        code: the width of the code.
        activation: the function after each hidden layer.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C and section 5; the defaults are one of its
    networks for MNIST.

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
        shape: the shape of one example, `(height, width, channels)` of any size, or with one or three spatial axes.
        features: the channels of the convolutions, from input to code.
        code: the width of the code.
        activation: the function after each layer except the code and the output.

    >>> import jax, jax.numpy as jnp
    >>> net, x = conv_vae((9, 6, 1), (8, 16), 2), jnp.ones((2, 9, 6, 1))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> {name: leaf.shape for name, leaf in jax.eval_shape(net.apply, params, state, x)[0].items()}
    {'log_variance': (2, 2), 'mean': (2, 2), 'reconstruction': (2, 9, 6, 1)}
    """
    return of_images(variational(*conv_halves(shape, features, _heads(code), activation)), "conv_vae", len(shape) - 1)


def _heads(code: int) -> Net:
    return branches(dict, mean=dense(code), log_variance=dense(code))
