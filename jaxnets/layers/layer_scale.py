"""A learned factor for each channel, with which a deep residual network starts near the identity."""

from typing import Any

import jax

from jaxnets.core.checks import along_last, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.inputs import channels_of

Initializer = jax.nn.initializers.Initializer


@labeled
def layer_scale(*, scale_init: Initializer = jax.nn.initializers.constant(1e-6)) -> Net:
    """Multiply each channel by a learned factor that starts small: y = scale · x.

    At the end of a residual block's body, as in `residual(serial(..., layer_scale()))`, it makes the block start near
    the identity.

    Args:
        scale_init: initializer of `scale`. The paper starts at 0.1 up to 18 blocks, 1e-5 up to 24, and 1e-6 for more.

    Returns:
        A network from `(batch, ..., channels)` to the same shape and floating dtype, with the parameter `scale`
        `(channels,)`. `Padded` sequences pass through.

    Raises:
        NetError: for integer input, input without a channel axis, or parameters made for another number of channels.

    Touvron, Cord, Sablayrolles, Synnaeve and Jégou, "Going deeper with Image Transformers" (2021), equation 4.

    >>> import jax, jax.numpy as jnp
    >>> net = layer_scale(scale_init=jax.nn.initializers.constant(0.5))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> print(net.apply(params, state, jnp.array([[-4.0, 4.0]]))[0])
    [[-2.  2.]]
    """

    def init(key: jax.Array, x: Any) -> Params:
        return {"scale": scale_init(key, channels_of(x), param_dtype(x))}

    def apply(params: Params, x: Any) -> jax.Array:
        check_params(params, {"scale": channels_of(x)}, x)
        return along_last(params["scale"], x) * x

    return layer(init, apply)
