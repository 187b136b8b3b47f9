"""Convolution layers."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnets.core.checks import along_last, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.windows import Ints, Padding, Windows, zero_behind
from jaxnets.ops.conv import forward as ops

Initializer = jax.nn.initializers.Initializer


@labeled
def conv(
    features: int,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    groups: int = 1,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Slide a window over one, two or three spatial axes, and give a weighted sum and a bias for each place.

    y[i, o] = Σ_{j, c} x[i·stride + j·dilation − padding, c] kernel[j, c, o] + bias[o]; the kernel is not turned
    round, as in every deep-learning library.

    Args:
        features: channels of the output, at least 1, divisible by `groups`.
        kernel_size: size of the window: an integer for every spatial axis of the input, or a tuple with one for each.
        stride: steps between windows, likewise.
        padding: zeros around the input: "VALID" for none; an integer for both sides of every axis; a tuple with an
            integer for each axis, or with `(before, after)` for each axis. "SAME" gives ⌈n / stride⌉ places, by
            XLA's and TensorFlow's rule: as much padding as that takes, an odd place at the end. For stride 1 and an
            odd window it is PyTorch's `padding=kernel_size // 2`; not for stride 2: a window of 3 over an even axis
            gets (0, 1) from "SAME", (1, 1) from `padding=1`.
        dilation: steps between the elements of one window.
        groups: into how many groups the channels are split; each group of features sees one group of channels.
        use_bias: whether there is a bias; none is needed before a batch norm.
        kernel_init: how `kernel` is drawn. LeCun normal, variance 1/(window · channels / groups), suits linear, tanh
            and SELU outputs; take `jax.nn.initializers.he_normal()` before a ReLU.
        bias_init: how `bias` is drawn.

    Returns:
        A network from `(batch, *spatial, channels)`, of any floating dtype, to `(batch, *out, features)` with
        out = ⌊(n + padding − dilation (kernel_size − 1) − 1) / stride⌋ + 1 and parameters `kernel`
        `(*kernel_size, channels / groups, features)` and `bias` `(features,)`. `Padded` sequences are zero behind their
        ends, and must keep their time axis: `padding="SAME"`, or `((kernel_size - 1, 0),)` to look back only.

    Raises:
        NetError: for settings out of range or for unequal numbers of axes, input of another rank, integer input, input
            smaller than the window, channels or features not divisible by `groups`, or parameters made for another
            number of channels.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998); Dumoulin and
    Visin, "A guide to convolution arithmetic for deep learning" (2016), for the sizes.

    >>> import jax, jax.numpy as jnp
    >>> net = conv(6, 5, padding=2)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> params["kernel"].shape, net.apply(params, state, jnp.ones((2, 28, 28, 1)))[0].shape
    ((5, 5, 1, 6), (2, 28, 28, 6))
    """
    check_count("features", features)
    check_count("groups", groups)
    if features % groups:
        raise NetError(f"expects features divisible by groups, got {features} features in {groups} groups")
    windows = Windows(kernel_size, stride, padding, dilation)
    return _convolution(lambda _: (features, groups), windows, use_bias, kernel_init, bias_init)


@labeled
def depthwise_conv(
    kernel_size: Ints,
    multiplier: int = 1,
    *,
    stride: Ints = 1,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Convolve each channel by itself: a `conv` with as many groups as the input has channels.

    Args:
        kernel_size: size of the window, as for `conv`.
        multiplier: how many features each channel gives, at least 1; those of one channel stand together.
        stride: as for `conv`.
        padding: as for `conv`.
        dilation: as for `conv`.
        use_bias: whether there is a bias.
        kernel_init: how `kernel` is drawn.
        bias_init: how `bias` is drawn.

    Returns:
        A network from `(batch, *spatial, channels)` to `(batch, *out, channels · multiplier)`, with parameters
        `kernel` `(*kernel_size, 1, channels · multiplier)` and `bias` `(channels · multiplier,)`.

    Raises:
        NetError: as `conv`.

    Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications" (2017).

    >>> import jax, jax.numpy as jnp
    >>> net = depthwise_conv(3, padding="SAME")
    >>> net.init(jax.random.key(0), jnp.ones((1, 8, 8, 16)))[0]["kernel"].shape
    (3, 3, 1, 16)
    """
    check_count("multiplier", multiplier)
    windows = Windows(kernel_size, stride, padding, dilation)
    return _convolution(lambda channels: (channels * multiplier, channels), windows, use_bias, kernel_init, bias_init)


def _convolution(
    features_and_groups: Callable[[int], tuple[int, int]],
    windows: Windows,
    use_bias: bool,
    kernel_init: Initializer,
    bias_init: Initializer,
) -> Net:
    def shapes(size: tuple[int, ...], channels: int) -> dict[str, tuple[int, ...]]:
        features, groups = features_and_groups(channels)
        if channels % groups:
            raise NetError(f"expects channels divisible by groups, got {channels} channels in {groups} groups")
        kernel = (*size, channels // groups, features)
        return {"kernel": kernel} | ({"bias": (features,)} if use_bias else {})

    def init(key: jax.Array, x: Any) -> Params:
        return draw(key, shapes(windows.over(x).size, x.shape[-1]), param_dtype(x), kernel_init, bias_init)

    def apply(params: Params, x: Any) -> Any:
        size, stride, padding, dilation = windows.over(x)
        check_params(params, shapes(size, x.shape[-1]), x)
        y = ops.conv(x, params["kernel"], stride, padding, dilation, features_and_groups(x.shape[-1])[1])
        return y + along_last(params["bias"], y) if use_bias else y

    return zero_behind(layer(init, apply))


def draw(
    key: jax.Array, shapes: dict[str, tuple[int, ...]], dtype: Any, kernel_init: Initializer, bias_init: Initializer
) -> Params:
    """Draw a kernel, and a bias where there is one."""
    inits = {"kernel": kernel_init, "bias": bias_init}
    keys = dict(zip(inits, jax.random.split(key), strict=True))
    return {name: inits[name](keys[name], shape, dtype) for name, shape in shapes.items()}
