"""Recurrent models. Multiply-adds are those of a step, gates · width · (inputs + width), times the steps."""

import functools

import jax
import jax.numpy as jnp

import jaxnets as jn
from tests.models.row import Row

SEQUENCE = jax.ShapeDtypeStruct((1, 28, 28), jnp.float32)  # an image, row by row
SOUND = jax.ShapeDtypeStruct((1, 101, 40), jnp.float32)  # a second in mel bands


def tokens(time: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, time), jnp.int32)


ROWS = [
    Row(
        "rnn_classifier",
        lambda: jn.models.rnn(128, 10),
        SEQUENCE,
        128 * (28 + 128 + 1) + 1_290,
        28 * 128 * (28 + 128) + 1_280,
    ),
    Row(
        "lstm_classifier",
        lambda: jn.models.lstm(128, 10, layers=2, dropout=0.2),
        SEQUENCE,
        4 * 128 * (28 + 128 + 1) + 4 * 128 * (128 + 128 + 1) + 1_290,
        28 * 4 * 128 * (28 + 128 + 128 + 128) + 1_280,
    ),
    Row(
        "gru_bidirectional_regressor",  # three gates, and a bias more for the new output
        lambda: jn.models.gru(64, num_outputs=1, layers=2, bidirectional=True, vocabulary=1_000, embedding=32),
        tokens(20),
        32_000 + 2 * 64 * (3 * (32 + 64 + 1) + 1) + 2 * 64 * (3 * (128 + 64 + 1) + 1) + 129,
        20 * 2 * 3 * 64 * (32 + 64 + 128 + 64) + 128,
    ),
    Row(
        "language_model_zaremba_medium",  # 650 units, 10,000 words of the Penn Treebank, 35 steps
        lambda: jn.models.language_model(10_000, 650, layers=2, dropout=0.5),
        tokens(35),
        19_775_200,
        35 * (2 * 4 * 650 * 1_300 + 6_500_000),
    ),
    Row(
        "language_model_zaremba_large",  # 1,500 units; Press and Wolf (2017) give 66, and tied 51 million
        lambda: jn.models.language_model(10_000, 1_500, layers=2, dropout=0.65),
        tokens(35),
        66_022_000,
        35 * (2 * 4 * 1_500 * 3_000 + 15_000_000),
    ),
    Row(
        "language_model_zaremba_large_tied",
        lambda: jn.models.language_model(10_000, 1_500, layers=2, dropout=0.65, tie_weights=True),
        tokens(35),
        66_022_000 - 15_000_000,
        35 * (2 * 4 * 1_500 * 3_000 + 15_000_000),
    ),
    Row(
        "sentence_encoder_infersent",  # 2,048 units each way, words of 300 features
        lambda: jn.models.sentence_encoder(1_000, 2_048, pool="max", embedding=300),
        tokens(20),
        300_000 + 2 * 4 * 2_048 * (300 + 2_048 + 1),
        20 * 2 * 4 * 2_048 * (300 + 2_048),
    ),
    Row(
        "siamese_infersent",  # a hidden layer of 512 on four vectors of 4,096
        lambda: jn.models.siamese(jn.models.sentence_encoder(1_000, 2_048, pool="max", embedding=300), 3, hidden=512),
        (tokens(20), tokens(9)),
        300_000 + 2 * 4 * 2_048 * (300 + 2_048 + 1) + 512 * (4 * 4_096 + 1) + 3 * 513,
        29 * 2 * 4 * 2_048 * (300 + 2_048) + 512 * 4 * 4_096 + 3 * 512,
    ),
    Row(
        "encoder_decoder_sutskever",  # "384M parameters", and the biases
        lambda: jn.models.encoder_decoder(160_000, 80_000, 1_000, layers=4),
        (tokens(10), tokens(12)),
        384_000_000 + 8 * 4_000 + 80_000,
        (10 + 12) * 32_000_000 + 12 * 80_000_000,
    ),
    Row(
        "encoder_decoder_features",
        lambda: jn.models.encoder_decoder(
            None, 30, 64, cell=functools.partial(jn.gru_cell, reset_after=False), embedding=16
        ),
        (SEQUENCE, tokens(9)),
        3 * 64 * (28 + 64 + 1) + 30 * 16 + 3 * 64 * (16 + 64 + 1) + 30 * 65,
        28 * 3 * 64 * (28 + 64) + 9 * (3 * 64 * (16 + 64) + 30 * 64),
    ),
    # As in See et al. (2017), 256 units in each direction, 50,000 words, 128 features; the decoder is wider here.
    Row(
        "pointer_generator",
        lambda: jn.models.pointer_generator(50_000, 512, copies=30, unknown=1, embedding=128),
        (tokens(400), tokens(100)),
        50_000 * 128
        + 2 * 1_024 * (128 + 256 + 1)
        + 2_048 * (128 + 512 + 1)
        + (512 + 1 + 512 + 1) * 512
        + 1_024 * 512
        + 512
        + 513 * 50_000
        + (2 * 512 + 128 + 1),
        None,
    ),
    Row(
        "attentive_encoder_decoder",
        lambda: jn.models.attentive_encoder_decoder(90, 70, 64, embedding=16, cell=jn.gru_cell, layers=2),
        (tokens(20), tokens(10)),
        90 * 16
        + 70 * 16
        + 2 * 3 * 32 * (16 + 32 + 1)
        + 2 * 32
        + 2 * 3 * 32 * (64 + 32 + 1)
        + 2 * 32
        + 3 * 64 * (16 + 64 + 1)
        + 64
        + 3 * 64 * (64 + 64 + 1)
        + 64
        + 64 * 64
        + 128 * 64
        + 64
        + 65 * 70,
        None,
    ),
    Row(
        "conv_gru_recognizer",  # 101 steps of 40 bands become 51 and 26
        lambda: jn.models.conv_gru(28, 128, dropout=0.1),
        SOUND,
        3 * 80 * 64
        + 64
        + 3 * 128 * 64
        + 64
        + 2 * 128 * (3 * (64 + 128 + 1) + 1)
        + 2 * 128 * (3 * (256 + 128 + 1) + 1)
        + 257 * 28,
        51 * 3 * 80 * 64 + 26 * (3 * 128 * 64 + 2 * 3 * 128 * (64 + 128) + 2 * 3 * 128 * (256 + 128) + 256 * 28),
    ),
    Row(
        "conv_transformer_recognizer",
        lambda: jn.models.conv_transformer(28, 128, dropout=0.1),
        SOUND,
        3 * 80 * 64 + 64 + 3 * 128 * 128 + 128 + 4 * (12 * 128**2 + 13 * 128) + 2 * 128 + 129 * 28,
        51 * 3 * 80 * 64 + 26 * (3 * 128 * 128 + 4 * (12 * 128**2 + 2 * 26 * 128) + 128 * 28),
    ),
]
