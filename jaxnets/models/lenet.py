"""LeNet-5, in its modern form and as published: learned subsampling, a connection table, distances to codes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.activations import scaled_tanh
from jaxnets.combinators.serial import serial
from jaxnets.core.checks import along_last, check_floating, check_params
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError
from jaxnets.core.layer import layer
from jaxnets.core.net import Net, Params
from jaxnets.core.value import recorded
from jaxnets.layers import avg_pool, conv, dense, flatten, max_pool
from jaxnets.layers.windows import check_spatial
from jaxnets.models.images import takes_images

# Table I of the paper: the maps of S2 that each map of C3 is connected to.
C3_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# The output codes: our drawings in the style of figure 3 of the paper, with strokes two pixels wide on 7 × 12.
DIGITS = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
.#####. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
##...## ..###.. ##...## ##...## ...###. ##..... .##.... .....## ##...## ##...##
##...## .####.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ..####. ##..##. ######. ######. ....##. .#####. .######
##...## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. ##...## .....##
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
.#####. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


@takes_images
def lenet5(num_classes: int = 10, *, activation: Callable = jax.nn.relu, pool: Callable[..., Net] = max_pool) -> Net:
    """Return LeNet-5 in its modern form: a full second convolution, plain pooling, a linear output.

    The input is `(batch, 28, 28, 1)`, the output logits `(batch, num_classes)`. With ten classes there are 61,706
    parameters and 416,520 multiply-adds.

    Args:
        num_classes: the width of the output.
        activation: the function after each layer but the last; the paper's is `jn.activations.scaled_tanh`.
        pool: `jn.max_pool`, or `jn.avg_pool`, which is closer to the paper.

    Raises:
        NetError: for an input that is too small, or not a batch of images; the message names the layer.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), figure 2.

    >>> import jax, jax.numpy as jnp
    >>> params, state = jax.eval_shape(lenet5().init, jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """
    he = jax.nn.initializers.he_normal()
    return serial(
        # A pair of sizes restricts the input to images. (batch, 28, 28, 6)
        conv1=conv(6, (5, 5), padding=2, kernel_init=he),
        relu1=activation,
        pool1=pool(2),  # (batch, 14, 14, 6)
        conv2=conv(16, 5, kernel_init=he),  # (batch, 10, 10, 16)
        relu2=activation,
        pool2=pool(2),  # (batch, 5, 5, 16)
        flatten=flatten,  # (batch, 400)
        fc1=dense(120, kernel_init=he),
        relu3=activation,
        fc2=dense(84, kernel_init=he),
        relu4=activation,
        fc3=dense(num_classes),
    )


@takes_images
def lenet5_1998(num_classes: int = 10, *, codes: Any = None, trainable_codes: bool = False, padding: int = 0) -> Net:
    """Return LeNet-5 as published: learned subsampling, a connection table, scaled tanh, RBF output units.

    The input is `(batch, 32, 32, channels)`, digits of 28 × 28 with a margin, or larger images. The paper maps white to
    -0.1 and ink to 1.175, so inputs have a mean near 0 and a variance near 1. Parameters, with one channel: `c1` 156,
    `s2` 12, `c3` 1,516, `s4` 32, `c5` 48,120, `f6` 10,164, in total 60,000; the codes are fixed. Initial values are the
    paper's, U(-2.4 / F, 2.4 / F) with the fan-in F, and 0 for biases.

    Output unit i is the squared distance y_i = Σ_j (x_j - codes_ij)² of F6 from the code of class i, which
    `net.upto("output")` returns. The network returns *logits* -y `(batch, num_classes)`, so that the nearest code is
    the `argmax`. Train it with `jn.losses.maximum_a_posteriori`, the paper's loss, or with `jn.losses.cross_entropy`.

    Args:
        num_classes: the width of the output.
        codes: an array `(num_classes, width of F6)` of -1 and 1. Default: for classes 0 to 9 drawings of the digits on
            7 × 12 pixels, in the style of figure 3 of the paper; for further classes 84 random bits.
        trainable_codes: whether the codes are a parameter, `output/codes`, instead of fixed.
        padding: zeros around the input; 2 for images of 28 × 28.

    Raises:
        NetError: for codes of another shape, or an input that is too small, or not a batch of images; the message names
            the layer.

    LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), section II.B,
    table I and appendix A.

    >>> import jax, jax.numpy as jnp
    >>> net, x = lenet5_1998(), jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> {name: sum(leaf.size for leaf in jax.tree.leaves(params[name])) for name in net.children if name in params}
    {'c1': 156, 's2': 12, 'c3': 1516, 's4': 32, 'c5': 48120, 'f6': 10164}
    """
    codes = codes_for(num_classes) if codes is None else jnp.asarray(codes, float)
    if jnp.ndim(codes) != 2 or len(codes) != num_classes:
        raise NetError(f"expects codes ({num_classes}, bits), got {np.shape(codes)}", label="lenet5_1998")
    return serial(
        # A pair of sizes restricts the input to images. (batch, 28, 28, 6)
        c1=conv(6, (5, 5), padding=padding, kernel_init=fan_in_uniform),
        squash1=scaled_tanh,
        s2=subsample(2),  # (batch, 14, 14, 6)
        squash2=scaled_tanh,
        c3=connected_conv(C3_TABLE, 5),  # (batch, 10, 10, 16)
        squash3=scaled_tanh,
        s4=subsample(2),  # (batch, 5, 5, 16)
        squash4=scaled_tanh,
        c5=conv(120, 5, kernel_init=fan_in_uniform),  # (batch, 1, 1, 120)
        squash5=scaled_tanh,
        flatten=flatten,
        f6=dense(codes.shape[1], kernel_init=fan_in_uniform),
        squash6=scaled_tanh,
        output=rbf(codes, trainable=trainable_codes),
        logits=jnp.negative,
    )


@recorded
def subsample(window: int) -> Net:
    """Sum each channel over windows, y = scale · Σ x + bias, with a trainable scale and bias per channel."""
    pool = avg_pool(window)

    def shapes(x: Any) -> dict[str, tuple[int, ...]]:
        check_spatial(x)
        return {"scale": x.shape[-1:], "bias": x.shape[-1:]}

    def init(key: jax.Array, x: Any) -> Params:
        limit, shape = 2.4 / window**2, shapes(x)["scale"]
        scale = jax.random.uniform(key, shape, param_dtype(x), -limit, limit)
        return {"scale": scale, "bias": jnp.zeros(shape, param_dtype(x))}

    def apply(params: Params, x: Any) -> jax.Array:
        check_params(params, shapes(x), x)
        # The pool averages; the paper sums.
        total = window ** (len(x.shape) - 2) * pool.apply({}, {}, x)[0]
        return total * along_last(params["scale"], total) + along_last(params["bias"], total)

    return layer(init, apply, label=f"subsample({window})")


@recorded
def connected_conv(table: Sequence[Sequence[int]], window: int) -> Net:
    """Convolve with one kernel per connection: output map f reads the channels `table[f]`, in that order.

    The kernels `(window, window, connections)` are placed among zeros for one dense convolution. A training step of
    LeNet-5 on two CPU cores takes 7 ms this way, and 690 ms with one grouped convolution per number of connections.
    """
    pairs = [(channel, feature) for feature, channels in enumerate(table) for channel in channels]
    channels, features = 1 + max(channel for channel, _ in pairs), len(table)
    # (channels, features), the index of each connection's kernel; the last index is a kernel of zeros.
    places = np.full((channels, features), len(pairs))
    places[tuple(zip(*pairs, strict=True))] = range(len(pairs))
    whole = conv(features, window)
    shapes = {"kernel": (window, window, len(pairs)), "bias": (features,)}

    def init(key: jax.Array, x: Any) -> Params:
        check_spatial(x, 2)
        limits = [2.4 / (window**2 * len(table[feature])) for _, feature in pairs]
        drawn = jax.random.uniform(key, shapes["kernel"], param_dtype(x), -1, 1)
        kernel = drawn * along_last(jnp.asarray(limits, drawn.dtype), drawn)
        return {"kernel": kernel, "bias": jnp.zeros(features, drawn.dtype)}

    def apply(params: Params, x: Any) -> jax.Array:
        check_params(params, shapes, x)
        if x.shape[-1] != channels:
            raise NetError(f"expects {channels} channels, as its connection table has, got {x.shape}")
        # (window, window, connections + 1) → (window, window, channels, features)
        kernel = jnp.pad(params["kernel"], ((0, 0), (0, 0), (0, 1)))[..., places]
        return whole.apply({"kernel": kernel, "bias": params["bias"]}, {}, x)[0]

    return layer(init, apply, label=f"connected_conv({features}, {window})")


@recorded
def rbf(codes: Any, *, trainable: bool) -> Net:
    """Return squared distances to codes, y_i = Σ_j (x_j - codes_ij)²; the codes are a parameter or fixed."""

    def init(key: jax.Array, x: Any) -> Params:
        return {"codes": jnp.asarray(codes, param_dtype(x))}

    def apply(params: Params, x: Any) -> jax.Array:
        check_floating(x)
        if x.shape[1:] != codes.shape[1:]:
            raise NetError(f"expects (batch, {codes.shape[1]}), the width of its codes, got {x.shape}")
        if trainable:
            check_params(params, {"codes": codes.shape}, x)
        to = jnp.asarray(params["codes"] if trainable else codes, param_dtype(x))
        # (batch, classes, bits) → (batch, classes)
        distances = jnp.square(x.astype(to.dtype)[:, None, :] - to[None]).sum(axis=-1)
        return distances.astype(x.dtype)

    return layer(init if trainable else None, apply, label="rbf({}, {})".format(*codes.shape))


def codes_for(num_classes: int) -> np.ndarray:
    """Return codes of -1 and 1 `(num_classes, 84)`: drawings of the ten digits, then random bits for further classes.

    Section II.B of the paper describes both. `codes[3].reshape(12, 7)` is the drawing of 3.
    """
    rows = [line.split() for line in DIGITS.split("\n") if line]
    pictures = [[1 if place == "#" else -1 for line in rows for place in line[digit]] for digit in range(10)]
    more = max(num_classes - 10, 0)
    # NumPy guarantees that the raw bits of PCG64 never change.
    drawn = np.random.PCG64(84).random_raw(84 * more).reshape(more, 84)
    return np.array([*pictures, *(2 * (drawn >> 63).astype(int) - 1)], np.float32)[:num_classes]


def fan_in_uniform(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
    """Draw from U(-2.4 / F, 2.4 / F) with the fan-in F, the initial values of the paper (appendix A)."""
    limit = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -limit, limit, out_sharding=out_sharding)
