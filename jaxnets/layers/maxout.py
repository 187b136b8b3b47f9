"""Maxout."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.inputs import channels_of

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
    """Take the maximum of several affine maps, along the last axis: y_f = max_k (x W_k + b_k)_f.

    Maxout is a layer and an activation in one: it can learn any convex piecewise linear activation with `pieces`
    pieces. Pieces that tie share the gradient.

    Args:
        features: width of the output, at least 1.
        pieces: number of affine maps, at least 1.
        use_bias: whether to add `b`.
        kernel_init: initializer of each `W_k` on its own.
        bias_init: initializer of each `b_k` on its own.

    Returns:
        A network from `(batch, ..., in)` to `(batch, ..., features)`, of any floating dtype, with parameters `kernel`
        `(in, pieces, features)` and `bias` `(pieces, features)`. Piece k is `dense` with `kernel[:, k]` and `bias[k]`.

    Raises:
        NetError: for `features` or `pieces` < 1, integer input, input without a feature axis, or parameters made for
            another number of features.

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
        kernel = (*channels_of(x, "features"), pieces, features)
        return {"kernel": kernel} | ({"bias": (pieces, features)} if use_bias else {})

    def init(key: jax.Array, x: Any) -> Params:
        # The axis of the pieces.
        axis, inits = {"kernel": 1, "bias": 0}, {"kernel": kernel_init, "bias": bias_init}
        keys = dict(zip(inits, jax.random.split(key), strict=True))

        def draw(name: str, shape: tuple[int, ...]) -> jax.Array:
            # Each piece is drawn on its own, so that its fan-in is `in`.
            one = shape[: axis[name]] + shape[axis[name] + 1 :]
            drawn = [inits[name](each, one, param_dtype(x)) for each in jax.random.split(keys[name], pieces)]
            return jnp.stack(drawn, axis[name])

        return {name: draw(name, shape) for name, shape in shapes(x).items()}

    def apply(params: Params, x: Any) -> jax.Array:
        check_params(params, shapes(x), x)
        y = jnp.matmul(x, params["kernel"].reshape(-1, pieces * features))  # (batch, ..., pieces · features)
        y = y + along_last(params["bias"].reshape(-1), y) if use_bias else y
        return jnp.max(y.reshape(*y.shape[:-1], pieces, features), axis=-2)

    return layer(init, apply)
