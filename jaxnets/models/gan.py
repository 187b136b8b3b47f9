"""Generative adversarial networks: from any generator and discriminator, and DCGAN for small pictures."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import Layer, build_child, serial
from jaxnets.core.checks import check_floating, check_train_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_counts, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.layer import as_net
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose, fold
from jaxnets.core.value import recorded
from jaxnets.layers import batch_norm, conv, conv_transpose, dense, flatten, unflatten

_NORMAL = jax.nn.initializers.normal(0.02)
_LEAKY = partial(jax.nn.leaky_relu, negative_slope=0.2)


@recorded
def gan(generator: Layer, discriminator: Layer, *, code: int = 100) -> Net:
    """Return the two players of a generative adversarial network, which `jn.train.adversarial` trains.

    The generator G gets z ~ N(0, 1) `(batch, code)`, as many as there are inputs, and the discriminator D gets first
    the inputs and then what was generated. In evaluation z is drawn from a fixed key, so that values of different
    epochs compare. New examples are drawn by
    `net["generator"].apply(params["generator"], state.get("generator", {}), z)`.

    Args:
        generator: a network from `(batch, code)` to examples.
        discriminator: a network from examples to scores, the higher the more real, `(batch,)` or `(batch, ...)`.
        code: the width of z.

    Returns:
        A network from examples to a dict of the discriminator's outputs, `real` and `fake`, for
        `jn.losses.gan_discriminator` and `jn.losses.gan_generator`. It requires a key in training.

    Raises:
        NetError: for integer inputs, a generator whose outputs have another shape than the inputs, or training without
            a key.

    Goodfellow et al., "Generative Adversarial Nets" (2014).

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = gan(jn.dense(5), jn.dense(1), code=3), jnp.ones((4, 5))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> y, _ = net.apply(params, state, x, key=jax.random.key(1), train=True)
    >>> {name: each.shape for name, each in y.items()}
    {'real': (4, 1), 'fake': (4, 1)}
    """
    check_count("code", code)
    players = {"generator": as_net(generator), "discriminator": as_net(discriminator)}

    def check(drawn: Any, x: Any) -> None:
        if drawn.shape != x.shape:
            raise NetError(f"expects a generator of examples {x.shape}, like the inputs, got {drawn.shape}")

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state = {}, {}
        z = jax.ShapeDtypeStruct((x.shape[0], code), x.dtype)
        drawn = build_child(players["generator"], "generator", key, z, params, state)
        with labeled_as("gan"):
            check_floating(x)
            check(drawn, x)
        y = build_child(players["discriminator"], "discriminator", key, x, params, state)
        return params, state, {"real": y, "fake": y}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        with labeled_as("gan"):
            check_floating(x)
            if train:
                check_train_key(key)
        noise = fold(key, "code") if train and key is not None else jax.random.key(0)
        z = jax.random.normal(noise, (x.shape[0], code), param_dtype(x)).astype(x.dtype)
        new = dict(state)

        def run(name: str, x: Any, key: Key | None) -> Any:
            y, inner = apply_child(players[name], name, params, new, x, key=key, train=train)
            new.update({name: inner} if inner else {})
            return y

        drawn = run("generator", z, key)
        with labeled_as("gan"):
            check(drawn, x)
        outputs = {"real": run("discriminator", x, key), "fake": run("discriminator", drawn, fold(key, "fake"))}
        return outputs, new

    return compose(build, apply, label="gan", children=players)


@explained
def dcgan(shape: Sequence[int], features: Sequence[int] = (64, 128), *, code: int = 100, kernel_size: int = 5) -> Net:
    """Return DCGAN for pictures of any size: a `gan` of strided convolutions.

    The discriminator halves the size, n to ⌈n / 2⌉, with each number of features, by convolutions of stride 2 with
    leaky ReLU of slope 0.2; the generator doubles it in reverse with ReLU, and ends in tanh, so scale pictures to
    [−1, 1]. A batch norm follows all of them but the discriminator's first and the generator's last; kernels start from
    N(0, 0.02²).

    Args:
        shape: the shape of one picture, `(height, width, channels)`, without the batch axis.
        features: the channels, from the largest pictures to the smallest.
        code: the width of z.
        kernel_size: an odd number, 5 in the paper.

    Returns:
        A `gan` of pictures `(batch, height, width, channels)`, whose discriminator returns logits `(batch, 1)`.

    Raises:
        NetError: for another form of shape, no features, or an even kernel.

    Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks" (2016), section 3 and figure 1, which is the generator of `dcgan((64, 64, 3), (128, 256, 512, 1024))`.

    >>> import jax, jax.numpy as jnp
    >>> net, x = dcgan((14, 14, 1), (8, 16), code=10), jnp.ones((2, 14, 14, 1))
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> jax.eval_shape(net.apply, params, state, x)[0]["fake"].shape
    (2, 1)
    """
    with labeled_as("dcgan"):
        check_counts("shape", shape)
        check_counts("features", features)
        check_count("kernel_size", kernel_size)
        if len(shape) != 3 or not features or kernel_size % 2 == 0:
            raise NetError(
                f"expects a shape (height, width, channels), at least one number of features and an odd kernel, got "
                f"{tuple(shape)}, {tuple(features)} and {kernel_size}"
            )
    pad, sizes = kernel_size // 2, [tuple(shape[:2])]
    down: dict[str, Layer] = {}
    for number, width in enumerate(features, start=1):
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
        first = number == 1
        down[f"conv{number}"] = conv(width, kernel_size, stride=2, padding=pad, use_bias=first, kernel_init=_NORMAL)
        down |= {} if first else {f"bn{number}": batch_norm()}
        down[f"relu{number}"] = _LEAKY
    smallest = (*sizes[-1], features[-1])
    up: dict[str, Layer] = {
        "fc": dense(math.prod(smallest), use_bias=False, kernel_init=_NORMAL),
        "unflatten": unflatten(smallest),
        "bn0": batch_norm(),
        "relu0": jax.nn.relu,
    }
    # Back through the sizes and features in between, the smallest pictures first.
    widths = [*features[-2::-1], shape[-1]]
    for number, (size, width) in enumerate(zip(sizes[-2::-1], widths, strict=True), start=1):
        last = number == len(widths)
        grown = tuple(1 - n % 2 for n in size)
        options: Mapping[str, Any] = {"use_bias": last, "kernel_init": _NORMAL}
        up[f"conv{number}"] = conv_transpose(width, kernel_size, stride=2, padding=pad, output_padding=grown, **options)
        up |= {"tanh": jnp.tanh} if last else {f"bn{number}": batch_norm(), f"relu{number}": jax.nn.relu}
    return gan(serial(**up), serial(**down, flatten=flatten, fc=dense(1, kernel_init=_NORMAL)), code=code)
