"""A U-Net of residual blocks that reads a time and, optionally, a class: the network of diffusion and flow models."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.graph import graph
from jaxnets.combinators.serial import serial
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_counts, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.layer import labeled, layer
from jaxnets.core.net import Net
from jaxnets.layers import conv, dense, embed, group_norm

_ZEROS = jax.nn.initializers.zeros


@explained
def conditional_unet(
    channels: int,
    widths: Sequence[int] = (64, 128),
    *,
    num_classes: int | None = None,
    embedding: int | None = None,
    groups: int = 4,
) -> Net:
    """Return a U-Net from a noisy picture, a time and, optionally, a class to a picture: a velocity or a noise.

    Each level has a residual block before and after those below: group norm, SiLU and a 3×3 convolution, twice, with a
    learned function of time and class added in between, for each channel. Convolutions of stride 2 halve the size, n to
    ⌈n / 2⌉, and nearest neighbors double it. The last convolution of each block and of the network starts at 0, so that
    the network starts as the zero function.

    Args:
        channels: of the pictures.
        widths: the features at each level, the coarsest last, at least two, multiples of `groups`.
        num_classes: the number of classes, to which one for "no class" is added; `None` for no classes.
        embedding: the width of the embedding of time and class, even; default: twice the first width.
        groups: of each group norm.

    Returns:
        A network from `(x, t)` or `(x, t, classes)`, with x `(batch, height, width, channels)` floating, t `(batch,)`
        floating, from 0 to 1, and classes `(batch,)`, integers from 0 to num_classes, to the shape of x.

    Raises:
        NetError: for fewer than two widths, widths that groups do not divide, an odd embedding, or other inputs.

    Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (2020), appendix B, without attention.

    >>> import jax, jax.numpy as jnp
    >>> net = conditional_unet(1, (8, 16), num_classes=10)
    >>> x = jnp.ones((2, 7, 9, 1)), jnp.array([0.0, 1.0]), jnp.array([3, 10])
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0].shape
    (2, 7, 9, 1)
    """
    with labeled_as("conditional_unet"):
        check_count("channels", channels)
        check_counts("widths", widths)
        check_count("groups", groups)
        if len(widths) < 2 or any(width % groups for width in widths):
            raise NetError(f"expects at least two widths, multiples of groups={groups}, got {tuple(widths)}")
        embedding = 2 * widths[0] if embedding is None else embedding
        check_count("embedding", embedding)
    time = serial(time_features(embedding), dense(embedding), jax.nn.silu, dense(embedding))
    nodes: dict[str, Any] = {"t": (_Part(1, num_classes), "input"), "time": time}
    if num_classes is not None:
        check_count("num_classes", num_classes)
        nodes["c"] = (_Part(2, num_classes), "input")
        nodes["class"] = embed(num_classes + 1, embedding)
        nodes["both"] = (_together, "time", "class")
    nodes["condition"] = jax.nn.silu
    nodes["x"] = (_Part(0, num_classes), "input")
    nodes["stem"] = conv(widths[0], 3, padding=1)
    for level, width in enumerate(widths, start=1):
        before = widths[max(level - 2, 0)]
        if level > 1:
            nodes[f"down{level}"] = conv(before, 3, stride=2, padding=1)
        nodes[f"encoder{level}"] = (_block(width, groups, width != before), [*nodes][-1], "condition")
    for level, width in reversed([*enumerate(widths[:-1], start=1)]):
        nodes[f"up{level}"] = (_doubled, [*nodes][-1], f"encoder{level}")
        nodes[f"decoder{level}"] = (_block(width, groups, True), f"up{level}", "condition")
    last = conv(channels, 3, padding=1, kernel_init=_ZEROS)
    return graph(**nodes, norm=group_norm(groups), silu=jax.nn.silu, conv=last)


@labeled
def time_features(width: int) -> Net:
    """Represent a time by cosines and sines: y = [cos 1000 t f_i, sin 1000 t f_i], f_i = 10000^(−i / (width / 2)).

    Args:
        width: the number of features, even.

    Returns:
        A network from `(batch,)` floating to `(batch, width)` of the same dtype.

    Raises:
        NetError: for an odd width, or inputs of another shape.

    Ho, Jain and Abbeel (2020), appendix B, whose 1,000 steps are t from 0 to 1 here.

    >>> import jax.numpy as jnp
    >>> print(time_features(4).apply({}, {}, jnp.zeros(1))[0])
    [[1. 1. 0. 0.]]
    """
    check_count("width", width)
    if width % 2:
        raise NetError(f"expects an even width, got {width}")

    def apply(_: Any, t: jax.Array) -> jax.Array:
        if t.ndim != 1 or not jnp.issubdtype(t.dtype, jnp.floating):
            raise NetError(f"expects times (batch,), floating, got {t.dtype} {t.shape}")
        half, wide = width // 2, param_dtype(t)
        frequencies = 1000 * jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=wide) / half)
        angles = t.astype(wide)[:, None] * frequencies[None]
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1).astype(t.dtype)

    return layer(None, apply)


def _block(width: int, groups: int, project: bool) -> Net:
    """Return a residual block of a pair, the features and the condition."""
    return graph(
        condition=(_second, "input"),
        shift=dense(width),
        x=(_first, "input"),
        norm1=group_norm(groups),
        silu1=jax.nn.silu,
        conv1=conv(width, 3, padding=1),
        shifted=(_shifted, "conv1", "shift"),
        norm2=group_norm(groups),
        silu2=jax.nn.silu,
        conv2=conv(width, 3, padding=1, kernel_init=_ZEROS),
        **({"skip": (conv(width, 1), "x")} if project else {}),
        sum=(sum, "conv2", "skip" if project else "x"),
    )


class _Part:
    """Selects one of the inputs; equal to another that does the same."""

    def __init__(self, place: int, num_classes: int | None) -> None:
        self.place, self.names = place, ("x", "t") if num_classes is None else ("x", "t", "classes")
        self.__name__ = self.names[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Part) and (self.place, self.names) == (other.place, other.names)

    def __hash__(self) -> int:
        return hash((self.place, self.names))

    def __call__(self, x: Any) -> Any:
        if not isinstance(x, tuple | list) or len(x) != len(self.names):
            raise NetError(f"expects a tuple ({', '.join(self.names)}), got {type(x).__name__}")
        if len(x[0].shape) != 4:
            raise NetError(f"expects x (batch, height, width, channels), got {x[0].shape}")
        for name, each in zip(self.names[1:], x[1:]):
            if each.shape != x[0].shape[:1]:
                raise NetError(f"expects {name} {x[0].shape[:1]}, one for each picture, got {each.shape}")
        return x[self.place]


def _first(pair: Any) -> Any:
    return pair[0]


def _second(pair: Any) -> Any:
    return pair[1]


def _together(pair: Any) -> jax.Array:
    # The embedding of integers is float32, whatever the pictures are.
    time, own = pair
    return time + own.astype(time.dtype)


def _shifted(pair: Any) -> jax.Array:
    x, shift = pair
    return x + shift[:, None, None]


def _doubled(pair: Any) -> jax.Array:
    """Double the size of features by nearest neighbors, cropped to that of an encoder, and join its features."""
    below, encoder = pair
    for axis in (1, 2):
        below = jax.lax.slice_in_dim(jnp.repeat(below, 2, axis=axis), 0, encoder.shape[axis], axis=axis)
    return jnp.concatenate([below, encoder], axis=-1)
