"""The multilayer perceptron."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax

from jaxnets.combinators.serial import Layer, serial
from jaxnets.core.errors import NetError, check_counts, concrete, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Net
from jaxnets.layers import batch_norm, dense, flatten, layer_norm
from jaxnets.layers import dropout as drop

Initializer = jax.nn.initializers.Initializer
NORMS: dict[str, Callable[..., Net]] = {"batch": batch_norm, "layer": layer_norm}


@explained
def mlp(
    widths: Sequence[int],
    num_classes: int = 10,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    dropout: float | jax.Array = 0.0,
    norm: Literal["batch", "layer"] | None = None,
    kernel_init: Initializer = jax.nn.initializers.he_normal(),
) -> Net:
    """Return a multilayer perceptron: for each width dense, normalization, activation, dropout; then a dense output.

    Layers are numbered from 1, `fc1`, `norm1`, `act1`, `drop1`, so adding a normalization or dropout does not change
    the names or initial values of the other parameters.

    Args:
        widths: the widths of the hidden layers, from input to output; `()` is `linear`.
        num_classes: the width of the output: classes, or real numbers in regression.
        activation: the function after each hidden layer.
        dropout: the rate in [0, 1) after each activation; may be traced. 0 omits the layers.
        norm: "batch", "layer" or `None`, before each activation.
        kernel_init: the initializer of the hidden kernels. He normal suits ReLU;
            `jax.nn.initializers.lecun_normal()` suits tanh.

    Returns:
        A network from `(batch, ...)`, including images, to logits `(batch, num_classes)`.

    Raises:
        NetError: for widths < 1, a rate outside [0, 1), an unknown norm, or integer input.

    Rumelhart, Hinton and Williams, "Learning Representations by Back-Propagating Errors" (1986).

    >>> import jax, jax.numpy as jnp
    >>> net = mlp((300, 100), dropout=0.5, norm="layer")
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> jax.eval_shape(net.apply, params, state, jnp.ones((2, 28, 28, 1)))[0].shape
    (2, 10)
    """
    if norm is not None and norm not in NORMS:
        raise NetError(f'expects norm "batch", "layer" or None, got {norm!r}', label="mlp")
    with labeled_as("mlp"):
        check_counts("widths", widths)
    layers: dict[str, Layer] = {"flatten": flatten}
    for place, width in enumerate(widths, start=1):
        layers[f"fc{place}"] = dense(width, kernel_init=kernel_init)
        if norm is not None:
            layers[f"norm{place}"] = NORMS[norm]()
        layers[f"act{place}"] = activation
        if concrete(dropout) != 0.0:
            layers[f"drop{place}"] = drop(dropout)
    return serial(**layers, **{f"fc{len(widths) + 1}": dense(num_classes)})
