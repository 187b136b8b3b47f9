"""Tokens of a transformer: patches of images, and a learned one for the class."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.core.checks import check_params
from jaxnets.core.contract import check_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.layers.dense import affine
from jaxnets.layers.inputs import refuse_packed, sequence_width, values_of
from jaxnets.layers.windows import check_spatial, refuse_padded
from jaxnets.ops.conv import forward

Initializer = jax.nn.initializers.Initializer


@labeled
def patch_embed(
    features: int,
    size: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Cut images into square patches and map each to a vector, in row-major order: y_p = x_p W + b.

    This is `conv(features, size, stride=size)` with height and width flattened into one axis.

    Args:
        features: width of the output, at least 1.
        size: height and width of a patch, at least 1, a divisor of those of the image.
        use_bias: whether to add `b`.
        kernel_init: initializer of `kernel`; its fan-in is that of a patch, size · size · channels.
        bias_init: initializer of `bias`.

    Returns:
        A network from `(batch, height, width, channels)` to `(batch, patches, features)`, of any floating dtype, with
        patches = height / size · width / size, and parameters `kernel` `(size, size, channels, features)` and `bias`
        `(features,)`.

    Raises:
        NetError: for `features` or `size` < 1, input of another rank, integer input, height or width that `size` does
            not divide, or parameters made for another number of channels.

    Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale" (2021), section
    3.1 and equation 1.

    >>> import jax, jax.numpy as jnp
    >>> net, x = patch_embed(8, 4), jnp.ones((2, 12, 20, 3))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> params["kernel"].shape, net.apply(params, state, x)[0].shape
    ((4, 4, 3, 8), (2, 15, 8))
    """
    check_count("features", features)
    check_count("size", size)

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        check_spatial(x, 2)
        _, height, width, channels = x.shape
        if height % size or width % size:
            raise NetError(
                f"expects height and width divisible by the size {size}, got height {height} and width {width}; "
                f"resize, crop or pad the images, or use another size"
            )
        return {"kernel": (size, size, channels, features)} | ({"bias": (features,)} if use_bias else {})

    def product(x: Any, kernel: jax.Array) -> jax.Array:
        # (batch, height / size, width / size, features)
        y = forward.conv(x, kernel, (size, size), ((0, 0), (0, 0)), (1, 1), 1)
        return y.reshape(y.shape[0], y.shape[1] * y.shape[2], features)

    return refuse_padded(affine(shapes, product, kernel_init, bias_init))


@labeled
def class_token(*, token_init: Initializer = jax.nn.initializers.zeros) -> Net:
    """Put a learned vector in front of each sequence, whose output can stand for the sequence as a whole.

    Args:
        token_init: initializer of `token`.

    Returns:
        A network from `(batch, time, features)` to `(batch, 1 + time, features)`, of the same floating dtype, with the
        parameter `token` `(1, features)`. In `Padded` sequences all lengths grow by 1.

    Raises:
        NetError: for integer input, input of another rank, or parameters made for another number of features.

    Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers" (2019), section 3, there
    [CLS]; Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), equation 1.

    >>> import jax, jax.numpy as jnp
    >>> net, x = class_token(token_init=jax.nn.initializers.constant(5.0)), jnp.ones((1, 2, 3))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> print(net.apply(params, state, x)[0])
    [[[5. 5. 5.]
      [1. 1. 1.]
      [1. 1. 1.]]]
    """

    def init(key: Key, x: Any) -> tuple[Params, State]:
        check_key(key)
        refuse_packed(x, "there is one token for each row")
        return {"token": token_init(key, (1, sequence_width(x)), param_dtype(values_of(x)))}, {}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        refuse_packed(x, "there is one token for each row")
        width, values = sequence_width(x), jnp.asarray(values_of(x))
        check_params(params, {"token": (1, width)}, values)
        token = jnp.asarray(params["token"], values.dtype)
        # (batch, 1 + time, features)
        y = jnp.concatenate([jnp.broadcast_to(token, (values.shape[0], 1, width)), values], 1)
        # int32, as a length of 8 bits might overflow.
        return Padded(y, jnp.asarray(x.lengths, jnp.int32) + 1) if isinstance(x, Padded) else y, state

    return Net(init, apply)
