"""The transposed convolution layer."""

from typing import Any

import jax

from jaxnets.core.checks import along_last, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net, Params
from jaxnets.layers.conv import Initializer, draw
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
    zero_behind,
)
from jaxnets.ops.conv import transpose as ops


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
    """Spread each place of the input over a window of the output, add up, and add a bias: upsampling that is learned.

    y[i·stride + j·dilation − padding, o] += Σ_c x[i, c] kernel[j, c, o], the transpose of a convolution with the same
    settings and the values of PyTorch's `ConvTranspose1d`, `2d` and `3d`.

    Args:
        features: channels of the output, at least 1, divisible by `groups`.
        kernel_size: size of the window: an integer for every spatial axis of the input, or a tuple with one for each.
        stride: steps in the output for one step in the input, likewise.
        padding: how many places of the output are *cut off*, so that the layer undoes the sizes of a `conv` with this
            padding: an integer for both sides of every axis, a tuple with an integer or with `(before, after)` for each
            axis, "VALID" for 0, or "SAME" for an output of n · stride places.
        output_padding: how many places more the output has after each axis, less than stride or dilation: it settles
            which of the sizes that a strided `conv` maps to n is meant. 0 with "SAME".
        dilation: steps in the output between the elements of one window.
        groups: into how many groups the channels and features are split.
        use_bias: whether there is a bias.
        kernel_init: how `kernel` is drawn; the fan-in is that of its group.
        bias_init: how `bias` is drawn.

    Returns:
        A network from `(batch, *spatial, channels)`, of any floating dtype, to `(batch, *out, features)` with
        out = (n − 1) stride − padding before and after + dilation (kernel_size − 1) + output_padding + 1 and parameters
        `kernel` `(*kernel_size, channels, features / groups)` and `bias` `(features,)`. PyTorch's weight
        `(channels, features / groups, *kernel_size)` becomes `kernel` by moving its first two axes behind the others;
        nothing is flipped.

    Raises:
        NetError: for settings out of range or for unequal numbers of axes, input of another rank, integer input, more
            padding than there is output, channels or features not divisible by `groups`, or parameters made for
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
        raise NetError(f'expects output_padding 0 with padding="SAME", whose sizes are settled, got {output_padding!r}')
    settings = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    rank = common_rank(**settings, output_padding=output_padding)

    def place(x: Any) -> tuple[Grid, tuple[int, ...]]:
        check_spatial(x, rank)
        grid = windows.over(x, transposed=True)
        more = spread(output_padding, len(grid.size))
        if padding == "SAME":  # a stride longer than the window leaves places that nothing reaches
            more = tuple(max(s - d * (w - 1) - 1, 0) for w, s, _, d in zip(*grid))
        for m, s, d in zip(more, grid.stride, grid.dilation):
            if m >= max(s, d):
                raise NetError(f"expects output_padding less than stride or dilation, got {m} for {s} and {d}")
        out = ops.transposed_sizes(x.shape[1:-1], grid.size, grid.stride, grid.padding, more, grid.dilation)
        for axis, n in enumerate(out):
            if n < 1:
                raise NetError(
                    f"expects an output of at least 1, got {AXES[len(out)][axis]} {n} from {x.shape[1 + axis]} after "
                    f"{sum(grid.padding[axis])} of padding are cut off; give it less padding or a larger window"
                )
        return grid, more

    def shapes(size: tuple[int, ...], channels: int) -> dict[str, tuple[int, ...]]:
        if channels % groups:
            raise NetError(f"expects channels divisible by groups, got {channels} channels in {groups} groups")
        kernel = (*size, channels, features // groups)
        return {"kernel": kernel} | ({"bias": (features,)} if use_bias else {})

    def init(key: jax.Array, x: Any) -> Params:
        grid, _ = place(x)
        wanted = shapes(grid.size, x.shape[-1])
        drawn = wanted | {"kernel": (*grid.size, x.shape[-1] // groups, features)}  # where fan-in is a group's
        params = draw(key, drawn, param_dtype(x), kernel_init, bias_init)
        kernel = params["kernel"].reshape(*grid.size, x.shape[-1] // groups, groups, features // groups)
        return params | {"kernel": kernel.swapaxes(-3, -2).reshape(wanted["kernel"])}

    def apply(params: Params, x: Any) -> Any:
        (size, stride, pairs, spreads), more = place(x)
        check_params(params, shapes(size, x.shape[-1]), x)
        y = ops.conv_transpose(x, params["kernel"], stride, pairs, more, spreads, groups)
        return y + along_last(params["bias"], y) if use_bias else y

    return zero_behind(layer(init, apply))
