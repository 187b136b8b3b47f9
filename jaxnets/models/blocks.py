"""Building blocks of residual networks: convolutions, residual functions, shortcuts, stages."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import relu

from jaxnets.combinators.graph import graph
from jaxnets.combinators.repeat import repeat
from jaxnets.combinators.serial import serial
from jaxnets.core.net import Key, Net, Params, State, Wiring, compose
from jaxnets.core.value import recorded
from jaxnets.layers import batch_norm, conv

HE = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
ZEROS, ONES = jax.nn.initializers.zeros, jax.nn.initializers.ones


def same_conv(features: int, window: int, stride: int = 1, *, groups: int = 1, zero: bool = False) -> Net:
    """Return a convolution without bias, padded so that stride 1 keeps the size; `zero` initializes it to zero."""
    init = ZEROS if zero else HE
    return conv(features, window, stride=stride, padding=window // 2, groups=groups, use_bias=False, kernel_init=init)


def stem(features: int, window: int, stride: int = 1) -> Net:
    """Return the first convolution; its pair of sizes restricts the input to images."""
    pair = (window, window)
    return conv(features, pair, stride=stride, padding=window // 2, use_bias=False, kernel_init=HE)


def basic(features: int, stride: int = 1, *, zero: bool = False) -> Net:
    """Return two 3×3 convolutions; `zero` initializes the last scale to zero."""
    return serial(
        conv1=same_conv(features, 3, stride),
        bn1=batch_norm(),
        relu1=relu,
        conv2=same_conv(features, 3),
        bn2=batch_norm(scale_init=ZEROS if zero else ONES),
    )


def bottleneck(
    features: int, stride: int = 1, *, width: int, groups: int = 1, early: bool = False, zero: bool = False
) -> Net:
    """Return 1×1, 3×3 and 1×1 convolutions of `width`, `width`, `features`; `early` puts the stride on the first."""
    return serial(
        conv1=same_conv(width, 1, stride if early else 1),
        bn1=batch_norm(),
        relu1=relu,
        conv2=same_conv(width, 3, 1 if early else stride, groups=groups),
        bn2=batch_norm(),
        relu2=relu,
        conv3=same_conv(features, 1),
        bn3=batch_norm(scale_init=ZEROS if zero else ONES),
    )


def projection(features: int, stride: int = 1) -> Net:
    """Return the shortcut that changes the shape: a 1×1 convolution and a batch norm."""
    return serial(same_conv(features, 1, stride), batch_norm())


def stages(counts: Sequence[int], width: int, block: Callable[[int, int, bool], Net], *, scan: bool) -> dict[str, Net]:
    """Return the stages `layer1`, `layer2`, …, each with twice the features at half the size of the previous one.

    Args:
        counts: the number of blocks in each stage.
        width: the features of the first stage.
        block: returns a block, from its features, its stride, and whether it is the first of its stage.
        scan: whether the equal blocks after the first are one scan over stacked parameters.
    """
    named = {}
    for stage, n in enumerate(counts):
        features = width * 2**stage
        # All stages but the first halve the size in their first block.
        first, rest = block(features, 2 if stage else 1, True), block(features, 1, False)
        others = [repeat(rest, n - 1)] if scan and n > 1 else [rest] * (n - 1)
        named[f"layer{stage + 1}"] = serial(first, *others)
    return named


@recorded
def residual_behind(before: Net, body: Net, shortcut: Net) -> Net:
    """Return a `residual` whose body and shortcut both start from the output of `before`; all are siblings."""
    start, end = list(before.children)[-1], list(body.children)[-1]
    nodes: dict[str, Any] = {**before.children, **body.children, "downsample": (shortcut, start)}
    sides = graph(**nodes, sides=(tuple, end, "downsample"))
    # As in any `residual`, the sum is not a child.
    children = {name: sides[name] for name in nodes}

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state, (y, _) = sides.init_with_output(key, x)
        return params, state, y

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        (y, r), state = sides.apply(params, state, x, key=key, train=train)
        return jnp.add(y, r), state

    label = f"residual(behind {start})"
    assert sides.wiring is not None
    sources = {name: sides.wiring.sources[name] for name in nodes}
    wiring = Wiring(sources, end, "downsample")
    return compose(build, apply, label=label, children=children, cut=sides.cut, kind="residual", wiring=wiring)
