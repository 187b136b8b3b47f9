"""The transposed convolution layer."""

from typing import Any

import jax

from jaxnets.core.checks import along_last, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.dense import init_kernel_and_bias
from jaxnets.layers.windows import (
    AXES,
    Grid,
    Ints,
    Padding,
    Windows,
    check_ints,
    check_spatial,
    common_rank,
    spread,
    zero_past_end,
)
from jaxnets.ops.conv import transpose as ops

Initializer = jax.nn.initializers.Initializer


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

    y[i·stride + j·dilation − padding, o] += Σ_c x[i, c] kernel[j, c, o]. It is the transpose of a convolution with the
    same settings, with the values of PyTorch's `ConvTranspose1d`, `2d` and `3d`.

    Args:
        features: channels of the output, at least 1, divisible by `groups`.
        kernel_size: an integer for all spatial axes of the input, or a tuple with one for each.
        stride: the step in the output for one step in the input, an integer or a tuple.
        padding: how many positions of the output are *cut off*, so that the layer reverses the sizes of a `conv` with
            this
            padding: an integer for both sides of every axis, a tuple with an integer or with `(before, after)` for each
            axis, "VALID" for 0, or "SAME" for an output of n · stride positions.
        output_padding: how many positions to add at the end of each axis, fewer than stride or dilation. It selects one
            of the sizes that a strided `conv` maps to n. Must be 0 with "SAME".
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
        NetError: for settings out of range or for different numbers of axes, input of another rank, integer input, more
            padding than output, channels or features not divisible by `groups`, or parameters made for
            another number of channels.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), section 4.

    >>> import jax, jax.numpy as jnp
    >>> net = conv_transpose(3, 4, stride=2, padding=1)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 7, 7, 8)))
    >>> params["kernel"].shape, net.apply(params, state, jnp.ones((2, 7, 7, 8)))[0].shape
    ((4, 4, 8, 3), (2, 14, 14, 3))
    """
    check_count("features", features)
    check_count("groups", groups)
    if features % groups:
        raise NetError(f"expects features divisible by groups, got {features} features in {groups} groups")
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
        more = spread(output_padding, len(grid.kernel_size))
        if padding == "SAME":
            # A stride larger than the kernel leaves positions that it does not reach.
            more = tuple(max(s - d * (k - 1) - 1, 0) for k, s, _, d in zip(*grid))
        for m, s, d in zip(more, grid.stride, grid.dilation):
            if m >= max(s, d):
                raise NetError(f"expects output_padding less than stride or dilation, got {m} for {s} and {d}")
        out = ops.transposed_sizes(x.shape[1:-1], grid.kernel_size, grid.stride, grid.padding, more, grid.dilation)
        for axis, n in enumerate(out):
            if n < 1:
                raise NetError(
                    f"expects an output of at least 1, got {AXES[len(out)][axis]} {n} from {x.shape[1 + axis]} after "
                    f"cutting off {sum(grid.padding[axis])} of padding; use less padding or a larger kernel_size"
                )
        return grid, more

    def shapes(kernel_size: tuple[int, ...], channels: int) -> dict[str, tuple[int, ...]]:
        if channels % groups:
            raise NetError(f"expects channels divisible by groups, got {channels} channels in {groups} groups")
        kernel = (*kernel_size, channels, features // groups)
        return {"kernel": kernel} | ({"bias": (features,)} if use_bias else {})

    def init(key: jax.Array, x: Any) -> Params:
        grid, _ = grid_of(x)
        wanted = shapes(grid.kernel_size, x.shape[-1])
        # Draw the kernel in the layout of `conv`, whose fan-in is that of one group, then move the groups.
        drawn = wanted | {"kernel": (*grid.kernel_size, x.shape[-1] // groups, features)}
        params = init_kernel_and_bias(key, drawn, param_dtype(x), kernel_init, bias_init)
        # (*kernel_size, channels / groups, groups, features / groups)
        kernel = params["kernel"].reshape(*grid.kernel_size, x.shape[-1] // groups, groups, features // groups)
        return params | {"kernel": kernel.swapaxes(-3, -2).reshape(wanted["kernel"])}

    def apply(params: Params, x: Any) -> Any:
        (kernel_size, stride, cut, dilation), more = grid_of(x)
        check_params(params, shapes(kernel_size, x.shape[-1]), x)
        y = ops.conv_transpose(x, params["kernel"], stride, cut, more, dilation, groups)
        return y + along_last(params["bias"], y) if use_bias else y

    return zero_past_end(layer(init, apply))
