"""Gated linear units."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxnets.core.checks import check_function
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.dense import dense
from jaxnets.layers.inputs import channels_of

Initializer = jax.nn.initializers.Initializer


@labeled
def gated_dense(
    features: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Multiply an affine map by the activation of another, along the last axis: y = σ(x W + b) · (x V + c).

    With the default σ this is the gated linear unit, GLU; with `jax.nn.silu` it is SwiGLU, with `jax.nn.gelu` GEGLU,
    with `jax.nn.relu` ReGLU. A transformer's feed-forward network often begins with
    `gated_dense(8 * width // 3, activation=jax.nn.silu, use_bias=False)`: with the `dense` layer after it, it has about
    as many parameters as a pair of dense layers with 4 · width between them.

    Args:
        features: width of the output, at least 1.
        activation: σ, a function of arrays that keeps their shape.
        use_bias: whether to add `b` and `c`.
        kernel_init: initializer of `W` and `V`, drawn separately.
        bias_init: initializer of `b` and `c`.

    Returns:
        A network from `(batch, ..., in)` to `(batch, ..., features)`, of any floating dtype, with parameters `gate`,
        which holds W and b as `kernel` `(in, features)` and `bias` `(features,)`, and `up`, which holds V and c alike.

    Raises:
        NetError: for `features` < 1, an activation that is no function or changes the shape, integer input, input
            without a feature axis, or parameters made for another number of features.

    Shazeer, "GLU Variants Improve Transformer" (2020), equations 4 to 6. `torch.nn.functional.glu` takes x V + c and
    x W + b in this order, concatenated.

    >>> import jax, jax.numpy as jnp
    >>> net = gated_dense(3, activation=jax.nn.silu)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> sorted(params), net.apply(params, state, jnp.ones((2, 4)))[0].shape
    (['gate', 'up'], (2, 3))
    """
    check_count("features", features)
    if activation is None:
        raise NetError("expects for activation a function (x) -> y, got None; the identity is jax.nn.identity")
    check_function("activation", activation, "(x) -> y")
    part = dense(features, use_bias=use_bias, kernel_init=kernel_init, bias_init=bias_init)

    def init(key: jax.Array, x: Any) -> Params:
        channels_of(x, "features")
        return {name: part.init(each, x)[0] for name, each in zip(("gate", "up"), jax.random.split(key), strict=True)}

    def apply(params: Params, x: Any) -> jax.Array:
        channels_of(x, "features")
        if set(params) != {"gate", "up"}:
            have = ", ".join(params) or "none"
            raise NetError(f"needs the parameters gate, up, got {have}", names_differ=True)

        def mapped(name: str) -> jax.Array:
            with labeled_as(child=name):
                return part.apply(params[name], {}, x)[0]

        # Both (batch, ..., features)
        gate, up = activation(mapped("gate")), mapped("up")
        if np.shape(gate) != up.shape:
            raise NetError(
                f"expects an activation that keeps the shape {up.shape}, got {np.shape(gate)}; jax.nn.glu is itself a "
                f"gate, here σ is jax.nn.sigmoid"
            )
        return gate * up

    return layer(init, apply)
