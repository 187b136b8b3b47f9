"""What LeNet-5 of 1998 alone is made of: learned subsampling, a table of connections, distances to codes."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.errors import NetError
from jaxnets.layers import avg_pool, conv
from jaxnets.layers.checks import along_last, check_floating, check_params, param_dtype
from jaxnets.layers.windows import check_spatial
from jaxnets.leaf import layer
from jaxnets.net import Net, Params
from jaxnets.recorded import recorded

# Ours, drawn as figure 3 of the paper draws its characters: strokes two wide on 7 × 12.
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


def codes_for(num_classes: int) -> np.ndarray:
    """Return codes of -1 and 1 `(num_classes, 84)`: pictures of the ten digits, and for more classes bits at random.

    Section II.B of the paper has both. A picture is read row by row: `codes[3].reshape(12, 7)`.
    """
    rows = [line.split() for line in DIGITS.split("\n") if line]
    pictures = [[1 if place == "#" else -1 for line in rows for place in line[digit]] for digit in range(10)]
    more = max(num_classes - 10, 0)
    drawn = np.random.PCG64(84).random_raw(84 * more).reshape(more, 84)  # raw bits are the same for ever
    return np.array([*pictures, *(2 * (drawn >> 63).astype(int) - 1)], np.float32)[:num_classes]


def fan_in_uniform(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
    """Draw from U(-2.4 / F, 2.4 / F) with the fan-in F, the paper's initial values (appendix A)."""
    limit = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -limit, limit, out_sharding=out_sharding)


@recorded
def subsample(window: int) -> Net:
    """Add up each channel over tiles, y = scale · Σ x + bias: a gain and a bias to learn for each channel."""
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
        total = window ** (len(x.shape) - 2) * pool.apply({}, {}, x)[0]
        return total * along_last(params["scale"], total) + along_last(params["bias"], total)

    return layer(init, apply, label=f"subsample({window})")


@recorded
def connected_conv(table: Sequence[Sequence[int]], window: int) -> Net:
    """Convolve with one kernel for each connection: output f sees the channels `table[f]`, in that order.

    The kernels `(window, window, connections)` are laid among zeros for one convolution: a step of LeNet-5 on two CPU
    cores took 7 ms so, and 690 ms with a grouped convolution for each number of connections.
    """
    pairs = [(channel, feature) for feature, channels in enumerate(table) for channel in channels]
    channels, features = 1 + max(channel for channel, _ in pairs), len(table)
    places = np.full((channels, features), len(pairs))  # behind the last kernel stands the zero one
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
            raise NetError(f"connects {channels} channels, as its table says, got {x.shape}")
        kernel = jnp.pad(params["kernel"], ((0, 0), (0, 0), (0, 1)))[..., places]
        return whole.apply({"kernel": kernel, "bias": params["bias"]}, {}, x)[0]

    return layer(init, apply, label=f"connected_conv({features}, {window})")


@recorded
def rbf(codes: Any, *, trainable: bool) -> Net:
    """Return squared distances to codes, y_i = Σ_j (x_j - codes_ij)²; the codes are a parameter or stay fixed."""

    def init(key: jax.Array, x: Any) -> Params:
        return {"codes": jnp.asarray(codes, param_dtype(x))}

    def apply(params: Params, x: Any) -> jax.Array:
        check_floating(x)
        if x.shape[1:] != codes.shape[1:]:
            raise NetError(f"expects (batch, {codes.shape[1]}), as many as its codes have, got {x.shape}")
        if trainable:
            check_params(params, {"codes": codes.shape}, x)
        to = jnp.asarray(params["codes"] if trainable else codes, param_dtype(x))
        distances = jnp.square(x.astype(to.dtype)[:, None, :] - to[None]).sum(axis=-1)
        return distances.astype(x.dtype)

    return layer(init if trainable else None, apply, label="rbf({}, {})".format(*codes.shape))
