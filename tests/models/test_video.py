"""The predictor of frames: its own frames are what it goes on from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near
from tests.oracle import floats, variables

FILM = 1 / (1 + np.exp(-floats(2, 3, 6, 8, 2)))
KEY = jax.random.key(0)


def test_it_goes_on_from_its_own_frames():
    """A longer film that ends with predicted frames has the same next one; patches are by hand."""
    options = {"channels": 2, "widths": (4, 3), "patch": 2}
    net, once = jn.models.frame_predictor(3, **options), jn.models.frame_predictor(1, **options)
    params, state = variables(net, FILM, scale=0.3)

    @jax.jit
    def run(film: jax.Array) -> tuple[jax.Array, jax.Array]:
        longer, frames = film, []
        for _ in range(3):
            logits = once.apply(params, state, longer)[0]
            frames.append(logits)
            longer = jnp.concatenate([longer, jax.nn.sigmoid(logits)], 1)
        return net.apply(params, state, film)[0], jnp.concatenate(frames, 1)

    together, one_by_one = run(jnp.asarray(FILM))
    assert together.shape == (2, 3, 6, 8, 2)
    near(together, one_by_one)


def test_the_first_frame_is_that_of_the_layers():
    net = jn.models.frame_predictor(1, channels=2, widths=(4, 3), patch=2)
    params, state = variables(net, FILM, scale=0.3)
    cut = np.zeros((2, 3, 3, 4, 8), np.float32)
    for row in range(2):
        for column in range(2):
            cut[..., 4 * row + 2 * column : 4 * row + 2 * column + 2] = FILM[:, :, row::2, column::2]

    @jax.jit
    def run(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        one, _ = jn.conv_lstm(4).apply(params["lstm1"], {}, x)
        two, _ = jn.conv_lstm(3).apply(params["lstm2"], {}, one)
        maps = jnp.concatenate([one[:, -1], two[:, -1]], -1)
        return jn.conv(8, 1).apply(params["out"], {}, maps)[0], net.apply(params, state, jnp.asarray(FILM))[0][:, 0]

    patches, frame = run(jnp.asarray(cut))
    for row in range(2):
        for column in range(2):
            at = 4 * row + 2 * column
            near(frame[:, row::2, column::2], patches[..., at : at + 2])


def test_mistakes():
    with pytest.raises(jn.NetError, match="frame_predictor expects horizon"):
        jn.models.frame_predictor(0)
    with pytest.raises(jn.NetError, match="frame_predictor expects at least one layer"):
        jn.models.frame_predictor(1, widths=())
    for film in (FILM[0], FILM[..., :1], FILM[:, :, :5]):
        with pytest.raises(
            jn.NetError, match=r"frame_predictor expects \(batch, time, height, width, 2\), .* of 2, got"
        ):
            jax.eval_shape(jn.models.frame_predictor(1, channels=2, patch=2).init, KEY, film)
