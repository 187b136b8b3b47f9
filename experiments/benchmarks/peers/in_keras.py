"""Keras with JAX behind it: a functional model, `compile`, `fit`."""
# pyright: reportMissingImports=false

import os
from functools import partial
from typing import Any

import jax

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported

import keras

from experiments.benchmarks import architecture as a
from experiments.benchmarks.peers import stepping
from experiments.benchmarks.work import Contestant, Work

BIASES = {"lstm": 4, "gru": 6}
OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "sgd": keras.optimizers.SGD,
    "momentum": partial(keras.optimizers.SGD, momentum=0.9),
}


NORMAL = keras.initializers.RandomNormal(stddev=0.02)


def apply(layers: a.Layers, x: Any) -> Any:
    """Return the symbolic output of layers."""
    for layer in layers:
        x = _layer(layer, x)
    return x


def _layer(layer: a.Layer, x: Any) -> Any:
    match layer:
        case a.Dense(features):
            return keras.layers.Dense(features)(x)
        case a.Conv(features, window, stride, padding, bias):
            pad = "same" if padding else "valid"
            return keras.layers.Conv2D(features, window, stride, padding=pad, use_bias=bias)(x)
        case a.Double(features):
            return keras.layers.Conv2DTranspose(features, 3, 2, padding="same")(x)
        case a.Pool(window, stride, padding):
            return keras.layers.MaxPooling2D(window, stride, padding="same" if padding else "valid")(x)
        case a.Norm():
            return keras.layers.BatchNormalization(momentum=0.9)(x)
        case a.Relu():
            return keras.layers.ReLU()(x)
        case a.Flatten():
            return keras.layers.Flatten()(x)
        case a.Fold(shape):
            return keras.layers.Reshape(shape)(x)
        case a.Mean():
            return keras.layers.GlobalAveragePooling2D()(x)
        case a.Recurrent(cell, features, last):
            make = keras.layers.LSTM if cell == "lstm" else keras.layers.GRU
            return make(features, return_sequences=not last)(x)
        case a.Residual(body, shortcut):
            return keras.layers.ReLU()(keras.layers.add([apply(body, x), apply(shortcut, x)]))
        case a.Transformer():
            return _transformer(layer, x)


class Positions(keras.layers.Layer):
    """A learned vector for each position, added."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def build(self, input_shape: Any) -> None:
        """Make the vectors."""
        self.table = self.add_weight(shape=(self.length, input_shape[-1]), initializer=NORMAL)

    def call(self, x: Any) -> Any:
        """Return the sum."""
        return x + self.table[: x.shape[1]]


def _transformer(layer: a.Transformer, tokens: Any) -> Any:
    layers, features = keras.layers, layer.features
    table = layers.ReversibleEmbedding(layer.vocabulary, features, embeddings_initializer=NORMAL)
    x = Positions(layer.length)(table(tokens))
    for _ in range(layer.blocks):
        attention = layers.MultiHeadAttention(layer.heads, features // layer.heads)
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = layers.add([x, attention(y, y, use_causal_mask=True)])
        y = layers.Dense(4 * features, partial(keras.activations.gelu, approximate=True))(
            layers.LayerNormalization(epsilon=1e-5)(x)
        )
        x = layers.add([x, layers.Dense(features)(y)])
    return table(layers.LayerNormalization(epsilon=1e-5)(x), reverse=True)


def train(work: Work) -> Contestant:
    """Return the contestant."""
    work.in_float32("Keras")
    inputs = keras.Input(work.shape, dtype=str(work.x.dtype))
    model = keras.Model(inputs, apply(work.layers, inputs))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if work.classifies else "mean_squared_error"
    model.compile(optimizer=OPTIMIZERS[work.optimizer](1e-3), loss=loss)

    def turn() -> None:
        model.fit(work.x, work.y, batch_size=work.batch_size, epochs=work.epochs, verbose=0)  # pyright: ignore
        jax.block_until_ready([weight.value for weight in model.trainable_weights])

    parameters = stepping.count([weight.value for weight in model.trainable_weights])
    counted = stepping.multiply_adds(work, lambda x: model(x, training=False))
    return Contestant(work, turn, parameters, counted, BIASES)
