"""Convolution layers."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled
from jaxnets.core.net import Net
from jaxnets.layers.dense import affine
from jaxnets.layers.inputs import check_divides
from jaxnets.layers.windows import (
    AXES,
    Grid,
    Ints,
    Padding,
    Windows,
    check_ints,
    check_spatial,
    common_rank,
    keep_documents_apart,
    spread,
)
from jaxnets.ops.conv import forward, transpose

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
        groups: the number of groups that channels and features are split into; each group of features reads one group
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
        NetError: for settings out of range or with different numbers of axes, input of another rank, integer input,
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
    check_divides("features", features, groups)
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
    """Convolve each channel separately: `conv` with as many groups as the input has channels.

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
        NetError: as in `conv`.

    Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications" (2017).

    >>> import jax, jax.numpy as jnp
    >>> net = depthwise_conv(3, padding="SAME")
    >>> net.init(jax.random.key(0), jnp.ones((1, 8, 8, 16)))[0]["kernel"].shape
    (3, 3, 1, 16)
    """
    check_count("multiplier", multiplier)
    windows = Windows(kernel_size, stride, padding, dilation)
    return _convolution(lambda channels: (channels * multiplier, channels), windows, use_bias, kernel_init, bias_init)


@labeled
def conv_transpose(
    features: int,
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Net:
    """Add the kernel, scaled by each position of the input, to the output, and add a bias: learned upsampling.

    y[i·stride + j·dilation − padding, o] += Σ_c x[i, c] kernel[j, c, o]. This is the transpose of a convolution with
    the same settings, with the values of PyTorch's `ConvTranspose1d`, `2d` and `3d`.

    Args:
        features: channels of the output, at least 1, divisible by `groups`.
        kernel_size: an integer for all spatial axes of the input, or a tuple with one for each.
        stride: the step in the output for one step in the input, an integer or a tuple.
        padding: how many positions of the output are *cut off*, so that the layer reverses the sizes of a `conv` with
            this padding: an integer for both sides of every axis, a tuple with an integer or with `(before, after)`
            for each axis, "VALID" for 0, or "SAME" for an output of n · stride positions.
        output_padding: how many positions to add at the end of each axis, fewer than stride or dilation. It selects one
            of the sizes that a strided `conv` maps to n. It must be 0 with "SAME".
        dilation: the step in the output between elements of the kernel.
        groups: the number of groups that channels and features are split into.
        use_bias: whether to add a bias.
        kernel_init: initializer of `kernel`; the fan-in is that of one group.
        bias_init: initializer of `bias`.

    Returns:
        A network from `(batch, *spatial, channels)`, of any floating dtype, to `(batch, *out, features)` with
        out = (n − 1) stride − padding before and after + dilation (kernel_size − 1) + output_padding + 1 and parameters
        `kernel` `(*kernel_size, channels, features / groups)` and `bias` `(features,)`. PyTorch's weight
        `(channels, features / groups, *kernel_size)` becomes `kernel` by moving its first two axes to the end;
        nothing is flipped.

    Raises:
        NetError: for settings out of range or with different numbers of axes, input of another rank, integer input,
            more padding than output, channels or features not divisible by `groups`, or parameters made for another
            number of channels.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), section 4.

    >>> import jax, jax.numpy as jnp
    >>> net = conv_transpose(3, 4, stride=2, padding=1)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 7, 7, 8)))
    >>> params["kernel"].shape, net.apply(params, state, jnp.ones((2, 7, 7, 8)))[0].shape
    ((4, 4, 8, 3), (2, 14, 14, 3))
    """
    check_count("features", features)
    check_count("groups", groups)
    check_divides("features", features, groups)
    windows = Windows(kernel_size, stride, padding, dilation)
    check_ints("output_padding", output_padding, least=0)
    if padding == "SAME" and any(spread(output_padding, 1)):
        raise NetError(
            f'expects output_padding 0 with padding="SAME", which determines the sizes, got {output_padding!r}'
        )
    settings = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    rank = common_rank(**settings, output_padding=output_padding)

    def grid_of(x: Any) -> tuple[Grid, tuple[int, ...]]:
        """Return the grid over an input and the output padding for each axis, checked."""
        check_spatial(x, rank)
        grid = windows.over(x, transposed=True)
        more = spread(output_padding, len(grid.size))
        if padding == "SAME":
            # A stride larger than the kernel leaves positions that it does not reach.
            more = tuple(max(s - d * (k - 1) - 1, 0) for k, s, _, d in zip(*grid))
        for m, s, d in zip(more, grid.stride, grid.dilation):
            if m >= max(s, d):
                raise NetError(f"expects output_padding less than stride or dilation, got {m} for {s} and {d}")
        out = transpose.transposed_sizes(x.shape[1:-1], grid.size, grid.stride, grid.padding, more, grid.dilation)
        for axis, n in enumerate(out):
            if n < 1:
                raise NetError(
                    f"expects an output of at least 1, got {AXES[len(out)][axis]} {n} from {x.shape[1 + axis]} after "
                    f"cutting off {sum(grid.padding[axis])} of padding; use less padding or a larger kernel_size"
                )
        return grid, more

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        check_divides("channels", x.shape[-1], groups)
        kernel = (*grid_of(x)[0].size, x.shape[-1], features // groups)
        return {"kernel": kernel} | ({"bias": (features,)} if use_bias else {})

    def draw(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        # Draw the kernel in the layout of `conv`, whose fan-in is that of one group, then move the groups.
        *window, channels, _ = shape
        kernel = kernel_init(key, (*window, channels // groups, features), dtype)
        # (*kernel_size, channels / groups, groups, features / groups)
        kernel = kernel.reshape(*window, channels // groups, groups, features // groups)
        return kernel.swapaxes(-3, -2).reshape(shape)

    def product(x: Any, kernel: jax.Array) -> jax.Array:
        (_, stride, cut, dilation), more = grid_of(x)
        return transpose.conv_transpose(x, kernel, stride, cut, more, dilation, groups)

    return keep_documents_apart(affine(shapes, product, draw, bias_init))


def _convolution(
    features_and_groups: Callable[[int], tuple[int, int]],
    windows: Windows,
    use_bias: bool,
    kernel_init: Initializer,
    bias_init: Initializer,
) -> Net:
    """Make a convolution whose features and groups may depend on the number of channels."""

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        features, groups = features_and_groups(x.shape[-1])
        kernel_size = windows.over(x).size
        check_divides("channels", x.shape[-1], groups)
        return {"kernel": (*kernel_size, x.shape[-1] // groups, features)} | ({"bias": (features,)} if use_bias else {})

    def product(x: Any, kernel: jax.Array) -> jax.Array:
        _, stride, padding, dilation = windows.over(x)
        # (batch, *out, features)
        return forward.conv(x, kernel, stride, padding, dilation, features_and_groups(x.shape[-1])[1])

    return keep_documents_apart(affine(shapes, product, kernel_init, bias_init))
