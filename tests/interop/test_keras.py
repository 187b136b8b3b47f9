"""Weights of Keras: outputs and gradients of each kind of layer, from a model and from its files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_keras
from tests.interop.alike import close, loss_and_gradients, our_loss
from tests.oracle import floats, integers
from tests.peers import keras

# Keras asks NumPy 2 for arrays in an older way.
pytestmark = [pytest.mark.promotes, pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")]
EXACT_GELU = partial(jax.nn.gelu, approximate=False)
NORMED: Any = {"epsilon": 1e-3}
IMAGES, STEPS, TOKENS = floats(2, 8, 8, 3), floats(2, 5, 4), integers(2, 5, high=7)


def chain(x: Any, *layers: Any) -> Any:
    return keras().Sequential([keras().Input(x.shape[1:], dtype=x.dtype.name), *layers])


def functional(x: Any, build: Callable[[Any], Any]) -> Any:
    given = keras().Input(x.shape[1:], dtype=x.dtype.name)
    return keras().Model(given, build(given))


def convolutions(L: Any) -> Any:
    return chain(
        IMAGES,
        L.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        L.BatchNormalization(),
        L.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        L.SeparableConv2D(6, 3, padding="same", activation="tanh"),
        L.Conv2DTranspose(5, 3, strides=2, padding="same"),
        L.MaxPooling2D(2),
        L.Conv2D(6, 2, dilation_rate=2, use_bias=False),
        L.PReLU(shared_axes=[1, 2]),
        L.AveragePooling2D(2, 1, "same"),
        L.Flatten(),
        L.Dense(4, activation="gelu"),
        L.Dense(4, activation="softmax"),
    )


CONVOLUTIONS = jn.serial(
    *(jn.conv(4, 3, stride=2, padding="SAME"), jax.nn.relu, jn.batch_norm(decay=0.99, **NORMED)),
    jn.depthwise_conv(3, 2, padding="SAME"),
    *(jn.depthwise_conv(3, padding="SAME", use_bias=False), jn.conv(6, 1), jnp.tanh),
    jn.conv_transpose(5, 3, stride=2, padding="SAME"),
    jn.max_pool(2),
    jn.conv(6, 2, dilation=2, use_bias=False),
    jn.prelu(per_channel=True),
    jn.avg_pool(2, stride=1, padding="SAME", count_include_pad=False),
    *(jn.flatten, jn.dense(4), EXACT_GELU, jn.dense(4), jax.nn.softmax),
)


def volumes(L: Any) -> Any:
    return chain(IMAGES, L.Reshape((8, 8, 3, 1)), L.Conv3D(2, 2), L.Conv3DTranspose(2, 2), L.GroupNormalization(1))


VOLUMES = jn.serial(lambda x: x[..., None], jn.conv(2, (2, 2, 2)), jn.conv_transpose(2, 2), jn.group_norm(1, **NORMED))


def sequences(L: Any) -> Any:
    return chain(
        STEPS,
        L.Conv1D(4, 2, padding="causal"),
        L.SeparableConv1D(3, 2),
        L.DepthwiseConv1D(2),
        L.Conv1DTranspose(4, 3, strides=2),
        L.LayerNormalization(),
        L.RMSNormalization(),
        L.GroupNormalization(2),
        L.Dense(3, use_bias=False),
    )


SEQUENCES = jn.serial(
    jn.conv(4, 2, padding=((1, 0),)),
    *(jn.depthwise_conv(2, use_bias=False), jn.conv(3, 1)),
    jn.depthwise_conv(2),
    jn.conv_transpose(4, 3, stride=2),
    *(jn.layer_norm(**NORMED), jn.rms_norm(), jn.group_norm(2, **NORMED), jn.dense(3, use_bias=False)),
)


def cells(L: Any) -> Any:
    return chain(
        TOKENS,
        L.Embedding(7, 4),
        L.Bidirectional(L.LSTM(3, return_sequences=True)),
        L.GRU(4, return_sequences=True),
        L.SimpleRNN(4, return_sequences=True, activation="relu"),
        L.LSTM(4, return_sequences=True),
        L.GRU(4, reset_after=False, return_sequences=True),
        L.Bidirectional(L.GRU(4, return_sequences=True), merge_mode="sum"),
        L.TimeDistributed(L.Dense(4)),
        L.RNN([L.LSTMCell(4), L.GRUCell(3)]),
    )


CELLS = jn.serial(
    *(jn.embed(7, 4), jn.bidirectional(jn.lstm_cell(3)), jn.recurrent(jn.gru_cell(4))),
    jn.recurrent(jn.rnn_cell(4, activation=jax.nn.relu)),
    *(jn.recurrent(jn.lstm_cell(4)), jn.recurrent(jn.gru_cell(4, reset_after=False))),
    *(jn.bidirectional(jn.gru_cell(4), merge=jnp.add), jn.dense(4)),
    jn.recurrent(jn.lstm_cell(4), jn.gru_cell(3), return_sequences=False),
)


def transformer(L: Any) -> Any:
    """Two blocks, the contents of one in a model of its own."""

    def block(x: Any) -> Any:
        y = L.LayerNormalization(epsilon=1e-5)(x)
        x = L.Add()([x, L.MultiHeadAttention(2, 3)(y, y, use_causal_mask=True)])
        y = L.Dense(8, activation="gelu")(L.LayerNormalization(epsilon=1e-5)(x))
        return L.Add()([x, L.Dense(4)(y)])

    return functional(STEPS, lambda x: block(functional(STEPS, block)(x)))


BLOCK = jn.encoder_block(4, 2, width=3, hidden=8, causal=True, activation=EXACT_GELU)


def resnet(L: Any) -> Any:
    def block(x: Any, width: int, stride: int) -> Any:
        y = L.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
        y = L.Activation("relu")(L.BatchNormalization(epsilon=1e-5, momentum=0.9)(y))
        y = L.Conv2D(width, 3, padding="same", use_bias=False)(y)
        y = L.BatchNormalization(epsilon=1e-5, momentum=0.9)(y)
        side = L.Conv2D(width, 1, strides=stride, use_bias=False)(x) if stride > 1 else x
        return L.Activation("relu")(L.Add()([y, side]))

    return functional(IMAGES, lambda x: L.Dense(3)(L.GlobalAveragePooling2D()(block(block(x, 3, 1), 6, 2))))


def residual(width: int, stride: int) -> jn.Net:
    conv = partial(jn.conv, width, 3, padding="SAME", use_bias=False)
    body = jn.serial(conv(stride=stride), jn.batch_norm(), jax.nn.relu, conv(), jn.batch_norm())
    side = jn.conv(width, 1, stride=stride, use_bias=False) if stride > 1 else None
    return jn.residual(body, side, jax.nn.relu)


CASES: dict[str, tuple[jn.Net, Callable[[Any], Any], Any]] = {
    "convolutions": (CONVOLUTIONS, convolutions, IMAGES),
    "volumes": (VOLUMES, volumes, IMAGES),
    "sequences": (SEQUENCES, sequences, STEPS),
    "cells": (CELLS, cells, TOKENS),
    "transformer": (jn.serial(BLOCK, BLOCK), transformer, STEPS),
    "repeat": (jn.serial(h=jn.repeat(BLOCK, 2)), transformer, STEPS),
    "resnet": (jn.serial(residual(3, 1), residual(6, 2), jn.global_avg_pool, jn.dense(3)), resnet, IMAGES),
}


def made(build: Callable[[Any], Any]) -> Any:
    """Return a model with weights that are all unlike."""
    model = build(keras().layers)
    for place, weight in enumerate(model.weights):
        drawn = floats(*weight.shape, seed=place, scale=0.3)
        weight.assign(np.exp(drawn) if "variance" in weight.path or "gamma" in weight.path else drawn)
    return model


def their_loss(model: Any, x: Any) -> tuple[Any, Any, Any]:
    """Return gradients by the weights and by x, and the outputs."""
    fixed = [each.value for each in model.non_trainable_variables]

    def run(weights: Any, x: Any) -> Any:
        return model.stateless_call(weights, fixed, x, training=False)[0]

    return loss_and_gradients(run, [each.value for each in model.trainable_variables], x)


QUICK = ("volumes", "sequences")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_outputs_and_gradients_are_those_of_keras(name: str, tmp_path: Path):
    net, build, x = CASES[name]
    model = made(build)
    params, state = from_keras(net, model, x)
    by_weights, by_x, want = their_loss(model, x)
    ours, ours_by_x, y = our_loss(net, params, state, x)
    close((y, ours_by_x), (want, by_x))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again = from_keras(net, tmp_path / "model.keras", x)
    jax.tree.map(np.testing.assert_array_equal, again, (params, state))
    if name not in ("transformer", "repeat"):  # blocks that are alike, at different depths
        rename = {"rnn/cells/lstm_cell": "8/0"} if name == "cells" else {}
        again = from_keras(net, tmp_path / "model.weights.h5", x, rename=rename)
        jax.tree.map(np.testing.assert_array_equal, again, (params, state))
    # Layouts are moved alike for gradients, but for two biases that are one.
    for weight, gradient in zip(model.trainable_variables, by_weights, strict=True):
        weight.assign(gradient)
    mapped, _ = from_keras(net, model, x)
    found, mapped = (jn.paths.paths(each) for each in (ours, mapped))
    once_only = {path for path in mapped if not (path.endswith("/bias") and "gru_cell" in str(net[path[:-5]]))}
    close({path: found[path] for path in once_only}, {path: mapped[path] for path in once_only})
