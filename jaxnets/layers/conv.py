"""Convolution layers."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnets.core.checks import along_last, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.dense import init_kernel_and_bias
from jaxnets.layers.windows import Ints, Padding, Windows, zero_past_end
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
    """Slide a kernel over one, two or three spatial axes; return a weighted sum plus a bias at each position.

    y[i, o] = Σ_{j, c} x[i·stride + j·dilation − padding, c] kernel[j, c, o] + bias[o]. The kernel is not flipped, as in
    every deep-learning library.

    Args:
        features: channels of the output, at least 1, divisible by `groups`.
        kernel_size: an integer for all spatial axes of the input, or a tuple with one for each.
        stride: the step between positions of the kernel, an integer or a tuple.
        padding: zeros around the input: "VALID" for none; an integer for both sides of every axis; a tuple with an
            integer for each axis, or with `(before, after)` for each axis. "SAME" pads for an output of ⌈n / stride⌉
            positions, by the rule of XLA and TensorFlow: an odd zero goes to the end. For stride 1 and an odd kernel
            this is PyTorch's `padding=kernel_size // 2`. For stride 2 it is not: for a kernel of 3 over an even axis
            "SAME" pads (0, 1), and `padding=1` pads (1, 1).
        dilation: the step between elements of the kernel.
        groups: the number of groups that channels and features are split into; each group of features sees one group
            of channels.
        use_bias: whether to add a bias; not needed before a batch norm.
        kernel_init: initializer of `kernel`. LeCun normal, variance 1/(kernel size · channels / groups), suits linear,
            tanh and SELU outputs; use `jax.nn.initializers.he_normal()` before a ReLU.
        bias_init: initializer of `bias`.

    Returns:
        A network from `(batch, *spatial, channels)`, of any floating dtype, to `(batch, *out, features)` with
        out = ⌊(n + padding − dilation (kernel_size − 1) − 1) / stride⌋ + 1 and parameters `kernel`
        `(*kernel_size, channels / groups, features)` and `bias` `(features,)`. `Padded` sequences count as zero
        after their ends, and must keep their length: `padding="SAME"`, or `((kernel_size - 1, 0),)` for a causal
        kernel.

    Raises:
        NetError: for settings out of range or for different numbers of axes, input of another rank, integer input,
            input smaller than the kernel, channels or features not divisible by `groups`, or parameters made for
            another number of channels.

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
    """Convolve each channel on its own: `conv` with as many groups as the input has channels.

    Args:
        kernel_size: as for `conv`.
        multiplier: the number of features per channel, at least 1; the features of a channel are adjacent.
        stride: as for `conv`.
        padding: as for `conv`.
        dilation: as for `conv`.
        use_bias: whether to add a bias.
        kernel_init: initializer of `kernel`.
        bias_init: initializer of `bias`.

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
    """Make a convolution whose features and groups may depend on the number of channels."""

    def shapes(kernel_size: tuple[int, ...], channels: int) -> dict[str, tuple[int, ...]]:
        features, groups = features_and_groups(channels)
        if channels % groups:
            raise NetError(f"expects channels divisible by groups, got {channels} channels in {groups} groups")
        kernel = (*kernel_size, channels // groups, features)
        return {"kernel": kernel} | ({"bias": (features,)} if use_bias else {})

    def init(key: jax.Array, x: Any) -> Params:
        wanted = shapes(windows.over(x).kernel_size, x.shape[-1])
        return init_kernel_and_bias(key, wanted, param_dtype(x), kernel_init, bias_init)

    def apply(params: Params, x: Any) -> Any:
        kernel_size, stride, padding, dilation = windows.over(x)
        check_params(params, shapes(kernel_size, x.shape[-1]), x)
        # (batch, *out, features)
        y = ops.conv(x, params["kernel"], stride, padding, dilation, features_and_groups(x.shape[-1])[1])
        return y + along_last(params["bias"], y) if use_bias else y

    return zero_past_end(layer(init, apply))
