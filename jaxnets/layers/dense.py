"""Fully connected layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import along_last, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.inputs import channels_of
from jaxnets.ops.extrema import max_along

Initializer = jax.nn.initializers.Initializer


@labeled
def dense(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Multiply by a matrix and add a bias, along the last axis: y = x W + b.

    Args:
        features: width of the output, at least 1.
        use_bias: whether to add `b`.
        kernel_init: initializer of `kernel`. LeCun normal, variance 1/in, suits linear, tanh and SELU outputs; use
            `jax.nn.initializers.he_normal()`, variance 2/in, before a ReLU, and `glorot_uniform()` before a sigmoid.
        bias_init: initializer of `bias`.

    Returns:
        A network from `(batch, ..., in)` to `(batch, ..., features)`, of any floating dtype, with parameters
        `kernel` `(in, features)` and `bias` `(features,)`.

    Raises:
        NetError: for `features` < 1, integer input, input without a feature axis, or parameters made for another
            number of features.

    LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), section 4.6, for the default scale.

    >>> import jax, jax.numpy as jnp
    >>> net = dense(3)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> net.apply(params, state, jnp.ones((2, 4)))[0].shape
    (2, 3)
    """
    check_count("features", features)

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        return {"kernel": (*channels_of(x, "features"), features)} | ({"bias": (features,)} if use_bias else {})

    return affine(shapes, jnp.matmul, kernel_init, bias_init)


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

    Maxout is both a layer and an activation: it can learn any convex piecewise linear activation with `pieces` pieces.
    If pieces are equal, the first gets the gradient.

    Args:
        features: width of the output, at least 1.
        pieces: number of affine maps, at least 1.
        use_bias: whether to add `b`.
        kernel_init: initializer of each `W_k`.
        bias_init: initializer of each `b_k`.

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

    def each_piece(init: Initializer, axis: int) -> Initializer:
        # Each piece is drawn separately, so that its fan-in is `in`.
        def draw(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
            one = shape[:axis] + shape[axis + 1 :]
            return jnp.stack([init(each, one, dtype) for each in jax.random.split(key, pieces)], axis)

        return draw

    def product(x: Any, kernel: jax.Array) -> jax.Array:
        # (batch, ..., pieces · features)
        y = jnp.matmul(x, kernel.reshape(-1, pieces * features))
        return y.reshape(*y.shape[:-1], pieces, features)

    inits = each_piece(kernel_init, 1), each_piece(bias_init, 0)
    return affine(shapes, product, *inits, finish=lambda y: max_along(y, -2))


def affine(
    shapes: Callable[[Any], dict[str, tuple[int, ...]]],
    product: Callable[[Any, jax.Array], jax.Array],
    kernel_init: Initializer,
    bias_init: Initializer,
    finish: Callable[[jax.Array], jax.Array] = lambda y: y,
) -> Net:
    """Make a layer that multiplies its input with a kernel and adds a bias, if it has one.

    Args:
        shapes: the shapes of `kernel`, and of `bias` if there is one, for an input, which it checks.
        product: `(x, kernel) -> y`, linear in both.
        kernel_init: initializer of `kernel`.
        bias_init: initializer of `bias`.
        finish: a function applied last, without parameters.
    """
    inits = {"kernel": kernel_init, "bias": bias_init}

    def init(key: jax.Array, x: Any) -> Params:
        # The kernel's key does not depend on whether there is a bias.
        keys = dict(zip(inits, jax.random.split(key), strict=True))
        return {name: inits[name](keys[name], shape, param_dtype(x)) for name, shape in shapes(x).items()}

    def apply(params: Params, x: Any) -> jax.Array:
        check_params(params, shapes(x), x)
        y = product(x, params["kernel"])
        return finish(y + along_last(params["bias"], y) if "bias" in params else y)

    return layer(init, apply)
