"""The rectifier with a learned slope."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.inputs import channels_of

Initializer = jax.nn.initializers.Initializer


@labeled
def prelu(*, per_channel: bool = False, slope_init: Initializer = jax.nn.initializers.constant(0.25)) -> Net:
    """Scale negative values by a learned slope a: y = x for x > 0, a · x otherwise.

    Regularizers and weight decay of a pull towards the plain rectifier; exclude a from them.

    Args:
        per_channel: whether each channel, along the last axis, has its own slope.
        slope_init: initializer of the slope; 0.25 as in the paper.

    Returns:
        A network from `(batch, ..., channels)` to the same shape and dtype, with the parameter `negative_slope`,
        `(1,)` or `(channels,)`.

    Raises:
        NetError: for integer input, input without a channel axis, or parameters made for another number of channels.

    He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (2015), equation 1; values as in `torch.nn.PReLU`.

    >>> import jax, jax.numpy as jnp
    >>> net = prelu()
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> print(net.apply(params, state, jnp.array([[-4.0, 4.0]]))[0])
    [[-1.  4.]]
    """

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        channels = channels_of(x)
        return {"negative_slope": channels if per_channel else (1,)}

    def init(key: jax.Array, x: Any) -> Params:
        return {name: slope_init(key, shape, param_dtype(x)) for name, shape in shapes(x).items()}

    def apply(params: Params, x: Any) -> jax.Array:
        check_params(params, shapes(x), x)
        return jnp.where(x > 0, x, along_last(params["negative_slope"], x) * x)

    return layer(init, apply)
