"""Prediction of frames: a stack of convolutional LSTMs that goes on from its own frames."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import build_child
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose
from jaxnets.core.value import recorded
from jaxnets.layers import conv
from jaxnets.layers.conv_lstm import conv_lstm


@recorded
@explained
def frame_predictor(
    horizon: int,
    *,
    channels: int = 1,
    widths: Sequence[int] = (64, 64),
    kernel_size: int | tuple[int, int] = 3,
    patch: int = 4,
) -> Net:
    """Return a network that reads the frames of a film and predicts those that follow.

    A stack of `jn.conv_lstm` layers, `lstm1`, `lstm2`, …, reads the film frame by frame; the convolution `out`, 1×1,
    reads the maps of all layers and returns the logits of the next frame. Each predicted frame, the logistic function
    of its logits, is then the next input. A frame is first cut into patches, whose pixels become channels, and put
    together at the end.

    Args:
        horizon: how many frames to predict, at least 1.
        channels: those of a frame.
        widths: the features of each layer.
        kernel_size: of all layers, odd.
        patch: the side of a patch; it divides height and width.

    Returns:
        A network from pixels in [0, 1], `(batch, time, height, width, channels)` of any floating dtype, to logits
        `(batch, horizon, height, width, channels)`. Train it by `jn.losses.binary_cross_entropy` with the next frames.

    Raises:
        NetError: for a number below 1, no layer, an even kernel, a film with other axes or channels, or one whose
            height or width is not a multiple of `patch`.

    Shi et al., "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting" (2015), sections
    3.2, for the output from all layers, and 4.1, for the patches; theirs does not read its own frames, unlike the
    conditional decoder of Srivastava, Mansimov and Salakhutdinov, "Unsupervised Learning of Video Representations using
    LSTMs" (2015).

    >>> import jax, jax.numpy as jnp
    >>> net, film = frame_predictor(3, widths=(8,)), jnp.zeros((2, 5, 16, 16, 1))
    >>> params, state = net.init(jax.random.key(0), film)
    >>> net.apply(params, state, film)[0].shape
    (2, 3, 16, 16, 1)
    """
    with labeled_as("frame_predictor"):
        check_count("horizon", horizon)
        check_count("channels", channels)
        check_count("patch", patch)
        if not widths:
            raise NetError("expects at least one layer in widths, such as (64,), got none")
    layers = {f"lstm{n}": conv_lstm(width, kernel_size, return_carry=True) for n, width in enumerate(widths, start=1)}
    out = conv(patch**2 * channels, 1)

    def cut(x: Any) -> jax.Array:
        """Return `(batch, time, height / patch, width / patch, patch² channels)`."""
        if len(x.shape) != 5 or x.shape[-1] != channels or any(n % patch for n in x.shape[2:4]):
            text = f"expects (batch, time, height, width, {channels}), height and width multiples of {patch}"
            raise NetError(f"{text}, got {tuple(x.shape)}", label="frame_predictor")
        batch, time, height, width, _ = x.shape
        x = jnp.asarray(x).reshape(batch, time, height // patch, patch, width // patch, patch, channels)
        return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, time, height // patch, width // patch, -1)

    def joined(y: jax.Array) -> jax.Array:
        batch, time, rows, columns, _ = y.shape
        y = y.reshape(batch, time, rows, columns, patch, patch, channels).transpose(0, 1, 2, 4, 3, 5, 6)
        return y.reshape(batch, time, rows * patch, columns * patch, channels)

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params: dict[str, Any] = {}
        frames = jax.eval_shape(cut, x)
        maps = jax.ShapeDtypeStruct((frames.shape[0], *frames.shape[2:4], sum(widths)), frames.dtype)
        y = frames
        for name, child in layers.items():
            y, _ = build_child(child, name, key, y, params, {})
        build_child(out, "out", key, maps, params, {})
        return params, {}, jax.ShapeDtypeStruct((x.shape[0], horizon, *x.shape[2:]), frames.dtype)

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        frames = cut(x)

        def read(y: jax.Array, carries: Any) -> tuple[jax.Array, Any]:
            """Return the logits of the frame after the last one of `y`, and the carries of the layers."""
            last, after = list[jax.Array](), list[Any]()
            for (name, child), carry in zip(layers.items(), carries, strict=True):
                (y, carry), _ = apply_child(
                    child, name, params, state, y if carry is None else (y, carry), key=key, train=train
                )
                last.append(y[:, -1])
                after.append(carry)
            return apply_child(out, "out", params, state, jnp.concatenate(last, axis=-1), key=key, train=train)[
                0
            ], tuple(after)

        def step(before: Any, _: None) -> tuple[Any, jax.Array]:
            logits, carries = before
            after = read(jax.nn.sigmoid(logits)[:, None], carries)
            return after, after[0]

        first = read(frames, (None,) * len(layers))
        _, others = jax.lax.scan(step, first, None, length=horizon - 1)
        return joined(jnp.concatenate([first[0][:, None], jnp.swapaxes(others, 0, 1)], axis=1)), state

    return compose(build, apply, label="frame_predictor", children=layers | {"out": out})
