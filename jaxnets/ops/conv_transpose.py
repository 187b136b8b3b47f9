"""Transposed convolution of channels-last arrays: on CPU, one convolution whose features are interleaved."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.ops.conv import conv
from jaxnets.ops.geometry import Pairs, Sizes


@partial(jax.jit, static_argnames=("stride", "padding", "output_padding", "dilation", "groups"))
def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sizes,
    padding: Pairs,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int = 1,
) -> jax.Array:
    """Apply the transpose of a convolution: spread each input over a window of the output, and add.

    It is the linear transpose of `conv` with the same numbers, from the shape of `conv`'s output to that of its input,
    and so the gradient of `conv` by its input. XLA computes it as a convolution over an input with zeros in between,
    which on CPU takes the slow way and multiplies the zeros. There, it is computed by phases instead: see `by_phases`.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        kernel: `(*window, channels, features / groups)`, of the dtype of `x`.
        stride: steps in the output for one step in the input.
        padding: what is cut off before and after each spatial axis of the output.
        output_padding: how many places more the output has after each spatial axis.
        dilation: steps in the output between the elements of one window.
        groups: into how many groups channels and features are split.

    Returns:
        `(batch, *out, features)` with out = (n − 1) stride − padding + dilation (window − 1) + output_padding + 1.

    >>> x, kernel = jnp.array([1.0, 2.0]).reshape(1, 2, 1), jnp.ones((3, 1, 1))
    >>> print(conv_transpose(x, kernel, (2,), ((0, 0),), (0,), (1,)).ravel())
    [1. 1. 3. 2. 2.]
    """
    grid = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    turned = partial(by_transposition, **grid, groups=groups)
    if any(s > 1 and d > 1 for s, d in zip(stride, dilation)):
        return turned(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=partial(by_phases, **grid, groups=groups), default=turned)


def by_transposition(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sizes,
    padding: Pairs,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int = 1,
) -> jax.Array:
    """Compute `conv_transpose` as the linear transpose of `conv`."""
    spatial, window, features = x.shape[1:-1], kernel.shape[:-2], kernel.shape[-1] * groups
    out = transposed_sizes(spatial, window, stride, padding, output_padding, dilation)
    kernel = jnp.swapaxes(kernel, -2, -1)  # as a convolution from the features to the channels has it

    def forward(y: jax.Array) -> jax.Array:
        whole = conv(y, kernel, stride, padding, dilation, groups)
        return lax.slice(whole, (0,) * x.ndim, x.shape)  # output_padding ≥ stride makes room for one window more

    shape = jax.ShapeDtypeStruct((x.shape[0], *out, features), x.dtype)
    return jax.linear_transpose(forward, shape)(x)[0]


def by_phases(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sizes,
    padding: Pairs,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int = 1,
) -> jax.Array:
    """Compute `conv_transpose` as one convolution with stride 1, where stride or dilation is 1 along each axis.

    Places of the output that are `stride` apart see the same elements of the kernel: with o = q·stride + r, the
    sum over o = i·stride + j runs over j = t·stride + r and i = q − t. So each phase r is an ordinary convolution
    of the input with every stride-th element of the kernel, turned round. The phases are computed together, as
    stride^d times as many features of one convolution, zeros filling the kernel up to a multiple of the stride, and
    then interleaved. The sums of products are those of the transpose but for these zeros: 16/9 for 3×3 with stride 2.
    """
    rank, batch, fewer = len(stride), x.shape[0], kernel.shape[-1]
    window = kernel.shape[:-2]
    out = transposed_sizes(x.shape[1:-1], window, stride, padding, output_padding, dilation)
    taps = tuple(-(-w // s) for w, s in zip(window, stride))
    first = [low // s for (low, _), s in zip(padding, stride)]  # of the q that are computed
    last = [(n - 1 + low) // s for n, (low, _), s in zip(out, padding, stride)]

    fill = [(0, t * s - w) for t, s, w in zip(taps, stride, window)]
    kernel = jnp.pad(kernel, (*fill, (0, 0), (0, 0)))
    split = [n for t, s in zip(taps, stride) for n in (t, s)]
    kernel = kernel.reshape(*split, groups, -1, fewer)  # (t, r of each axis, groups, channels, features of a group)
    each, phase = range(0, 2 * rank, 2), range(1, 2 * rank, 2)
    kernel = jnp.flip(kernel, tuple(each)).transpose(*each, 2 * rank + 1, 2 * rank, *phase, 2 * rank + 2)
    kernel = kernel.reshape(*taps, x.shape[-1] // groups, -1)

    ends = [
        ((t - 1) * d - a, b - n + 1) for t, d, a, b, n in zip(taps, dilation, first, last, x.shape[1:-1], strict=True)
    ]  # below zero where what is cut off reaches beyond a window
    x = lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in ((0, 0), *ends, (0, 0))])
    y = conv(x, kernel, (1,) * rank, ((0, 0),) * rank, dilation, groups)

    y = y.reshape(*y.shape[:-1], groups, *stride, fewer)  # (batch, q of each axis, groups, r of each axis, features)
    pairs = [place for axis in range(rank) for place in (1 + axis, 2 + rank + axis)]
    y = y.transpose(0, *pairs, 1 + rank, 2 + 2 * rank)
    whole = [(b - a + 1) * s for a, b, s in zip(first, last, stride)]
    y = y.reshape(batch, *whole, groups * fewer)
    starts = [low - a * s for (low, _), a, s in zip(padding, first, stride)]
    return lax.slice(y, (0, *starts, 0), (batch, *(a + n for a, n in zip(starts, out)), groups * fewer))


def transposed_sizes(
    spatial: Sizes, window: Sizes, stride: Sizes, padding: Pairs, output_padding: Sizes, dilation: Sizes
) -> Sizes:
    """Return the spatial sizes of the output of `conv_transpose`.

    >>> transposed_sizes((14, 14), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (1, 1))
    (28, 28)
    """
    return tuple(
        (n - 1) * s - sum(pair) + d * (w - 1) + more + 1
        for n, w, s, pair, more, d in zip(spatial, window, stride, padding, output_padding, dilation, strict=True)
    )
