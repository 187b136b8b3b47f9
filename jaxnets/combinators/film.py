"""Feature-wise linear modulation: a condition scales and shifts the channels of a network."""

from typing import Any

import jax

from jaxnets.combinators.graph import graph
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net
from jaxnets.layers.dense import dense

Initializer = jax.nn.initializers.Initializer


@labeled
def film(features: int, *, kernel_init: Initializer = jax.nn.initializers.lecun_normal()) -> Net:
    """Scale and shift each channel by affine maps of a condition: y = γ(z) · x + β(z), γ(z) = z W + b, β(z) = z V + c.

    Args:
        features: the number of channels of x.
        kernel_init: initializer of `W` and `V`; b starts at 1, c at 0, so that with small kernels y starts near x.

    Returns:
        A network from `(x, z)`, `(batch, ..., features)` and `(batch, in)` of any floating dtype, to the shape of x,
        with the children `gamma` and `beta`, each a `dense`.

    Raises:
        NetError: for `features` < 1, an input that is not a pair, x with another number of channels or another batch
            than z, or a condition that is not `(batch, in)`.

    Perez, Strub, de Vries, Dumoulin and Courville, "FiLM: Visual Reasoning with a General Conditioning Layer" (2018),
    equations 1 and 2, with 1 + Δγ for γ as in its section 3.

    >>> import jax, jax.numpy as jnp
    >>> net, x = film(3), (jnp.ones((2, 8, 8, 3)), jnp.zeros((2, 5)))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> y, _ = net.apply(params, state, x)
    >>> y.shape, bool((y == x[0]).all())
    ((2, 8, 8, 3), True)
    """
    check_count("features", features)
    ones = jax.nn.initializers.ones

    def checked(pair: Any) -> Any:
        if not isinstance(pair, tuple) or len(pair) != 2:
            came = f"{len(pair)} inputs" if isinstance(pair, tuple) else "one input"
            raise NetError(f"expects a pair (x, condition), got {came}")
        x, condition = (tuple(each.shape) for each in pair)
        if len(x) < 2 or x[-1] != features:
            raise NetError(f"expects x (batch, ..., {features}), got {x}")
        if len(condition) != 2 or condition[0] != x[0]:
            raise NetError(f"expects a condition ({x[0]}, features) for x {x}, got {condition}")
        return pair

    def modulated(parts: Any) -> jax.Array:
        (x, _), gamma, beta = parts
        shape = (x.shape[0], *[1] * (x.ndim - 2), features)
        return gamma.reshape(shape) * x + beta.reshape(shape)

    return graph(
        pair=layer(None, lambda _, pair: checked(pair), label="film"),
        condition=lambda pair: pair[1],
        gamma=dense(features, kernel_init=kernel_init, bias_init=ones),
        beta=(dense(features, kernel_init=kernel_init), "condition"),
        y=(modulated, "pair", "gamma", "beta"),
    )
