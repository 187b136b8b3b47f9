"""The effective receptive field: how much each position of the input contributes to a unit."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net, Params, State


def effective_field(net: Net, params: Params, state: State, x: Any, *unit: int) -> jax.Array:
    """Return the magnitude of a unit's gradient at each position of the input.

    The map is g[i] = Σ_c |∂ Σ_k y[unit, k] / ∂x[i, c]|, averaged over the batch, in evaluation mode. Within the
    receptive field it decays towards the edges, since more paths lead through the middle.

    Args:
        net: the network up to the layer, `net.upto("conv5")`.
        params: its parameters.
        state: its state.
        x: `(batch, *spatial, channels)`, floating-point.
        *unit: the index of the unit along each spatial axis of the output; negative ones count from the end. By
            default the sum of all units is used.

    Returns:
        `(*spatial)`, of the dtype of `x`.

    Raises:
        NetError: if there is no such unit, or `x` has no spatial axes.

    Luo, Li, Urtasun and Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks"
    (2016).

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.serial(jn.conv(1, 3, kernel_init=jax.nn.initializers.ones), jn.avg_pool(2))
    >>> x = jnp.ones((1, 6, 6, 1))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> print(effective_field(net, params, state, x, 0, 0))
    [[0.25 0.5  0.5  0.25 0.   0.  ]
     [0.5  1.   1.   0.5  0.   0.  ]
     [0.5  1.   1.   0.5  0.   0.  ]
     [0.25 0.5  0.5  0.25 0.   0.  ]
     [0.   0.   0.   0.   0.   0.  ]
     [0.   0.   0.   0.   0.   0.  ]]
    """
    x = jnp.asarray(x)
    shape = jax.eval_shape(lambda x: net.apply(params, state, x)[0], x).shape
    places = shape[1 : 1 + len(unit)]
    if x.ndim < 3 or len(unit) > len(shape) - 1 or not all(-n <= each < n for each, n in zip(unit, places)):
        raise NetError(f"expects x (batch, *spatial, channels) and a unit of the output {shape}, got {x.shape}, {unit}")

    @jax.jit
    def gradient(params: Params, state: State, x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: net.apply(params, state, x)[0][:, *unit].sum())(x)

    return jnp.abs(gradient(params, state, x)).sum(-1).mean(0)
