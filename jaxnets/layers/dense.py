"""The fully connected layer."""

from collections.abc import Mapping
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

    def init(key: jax.Array, x: Any) -> Params:
        return init_kernel_and_bias(key, shapes(x), param_dtype(x), kernel_init, bias_init)

    def apply(params: Params, x: Any) -> Any:
        check_params(params, shapes(x), x)
        y = jnp.matmul(x, params["kernel"])
        return y + along_last(params["bias"], y) if use_bias else y

    return layer(init, apply)


def init_kernel_and_bias(
    key: jax.Array,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: Any,
    kernel_init: Initializer,
    bias_init: Initializer,
) -> Params:
    """Draw a `kernel`, and a `bias` if it has a shape, each with its own key."""
    inits = {"kernel": kernel_init, "bias": bias_init}
    keys = dict(zip(inits, jax.random.split(key), strict=True))
    return {name: inits[name](keys[name], shape, dtype) for name, shape in shapes.items()}
