"""Maxout."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last, check_floating, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params

Initializer = jax.nn.initializers.Initializer


@labeled
def maxout(
    features: int,
    pieces: int = 2,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Take the largest of several affine maps: y_f = max_k (x W_k + b_k)_f, along the last axis.

    It is layer and activation in one, and can learn any convex piecewise linear activation of `pieces` pieces.
    Where pieces tie, the gradient is shared among them.

    Args:
        features: width of the output, at least 1.
        pieces: number of affine maps k, at least 1.
        use_bias: whether there is a `b`.
        kernel_init: how each `W_k` is drawn, by itself.
        bias_init: how each `b_k` is drawn, by itself.

    Returns:
        A network from `(batch, ..., in)` to `(batch, ..., features)`, of any floating dtype, with parameters
        `kernel` `(in, pieces, features)` and `bias` `(pieces, features)`: piece k is `dense` with
        `kernel[:, k]` and `bias[k]`.

    Raises:
        NetError: for `features` or `pieces` < 1, integer input, input without a feature axis, or parameters
            made for another number of features.

    Goodfellow, Warde-Farley, Mirza, Courville and Bengio, "Maxout Networks" (2013), section 3.

    >>> import jax, jax.numpy as jnp
    >>> net = maxout(3, pieces=4)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> net.apply(params, state, jnp.ones((2, 5)))[0].shape
    (2, 3)
    """
    check_count("features", features)
    check_count("pieces", pieces)

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        check_floating(x)
        if len(x.shape) < 2:
            raise NetError(f"expects (batch, ..., features), got {x.shape}; add a batch axis with x[None]")
        return {"kernel": (x.shape[-1], pieces, features)} | ({"bias": (pieces, features)} if use_bias else {})

    def init(key: jax.Array, x: Any) -> Params:
        axis, inits = {"kernel": 1, "bias": 0}, {"kernel": kernel_init, "bias": bias_init}
        keys = dict(zip(inits, jax.random.split(key), strict=True))

        def draw(name: str, shape: tuple[int, ...]) -> jax.Array:
            one = shape[: axis[name]] + shape[axis[name] + 1 :]
            drawn = [inits[name](each, one, param_dtype(x)) for each in jax.random.split(keys[name], pieces)]
            return jnp.stack(drawn, axis[name])

        return {name: draw(name, shape) for name, shape in shapes(x).items()}

    def apply(params: Params, x: Any) -> jax.Array:
        check_params(params, shapes(x), x)
        y = jnp.matmul(x, params["kernel"].reshape(-1, pieces * features))
        y = y + along_last(params["bias"].reshape(-1), y) if use_bias else y
        return jnp.max(y.reshape(*y.shape[:-1], pieces, features), axis=-2)

    return layer(init, apply)
