"""Layers: networks without children."""

from jaxnets.layers.batch_norm import batch_norm
from jaxnets.layers.cells import Cell, LSTMCarry, gru_cell, lstm_cell, rnn_cell
from jaxnets.layers.conv import conv, conv_transpose, depthwise_conv
from jaxnets.layers.conv_lstm import conv_lstm
from jaxnets.layers.dense import dense, maxout
from jaxnets.layers.dropout import drop_path, dropout, gaussian_noise, masking_noise, salt_and_pepper, spatial_dropout
from jaxnets.layers.embed import embed, embed_columns
from jaxnets.layers.flatten import flatten, unflatten
from jaxnets.layers.gated import gated_dense
from jaxnets.layers.layer_scale import layer_scale
from jaxnets.layers.norm import group_norm, layer_norm, local_response_norm, rms_norm
from jaxnets.layers.pixel_shuffle import pixel_shuffle
from jaxnets.layers.pool import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    max_pool,
)
from jaxnets.layers.positions import learned_positions, sinusoidal_positions
from jaxnets.layers.prelu import prelu
from jaxnets.layers.recurrent import bidirectional, recurrent
from jaxnets.layers.resize import resize
from jaxnets.layers.tokens import class_token, patch_embed

__all__ = [
    "Cell",
    "LSTMCarry",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "batch_norm",
    "bidirectional",
    "class_token",
    "conv",
    "conv_lstm",
    "conv_transpose",
    "dense",
    "depthwise_conv",
    "drop_path",
    "dropout",
    "embed",
    "embed_columns",
    "flatten",
    "gated_dense",
    "gaussian_noise",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "gru_cell",
    "layer_norm",
    "layer_scale",
    "learned_positions",
    "local_response_norm",
    "lstm_cell",
    "masking_noise",
    "max_pool",
    "maxout",
    "patch_embed",
    "pixel_shuffle",
    "prelu",
    "recurrent",
    "resize",
    "rms_norm",
    "rnn_cell",
    "salt_and_pepper",
    "sinusoidal_positions",
    "spatial_dropout",
    "unflatten",
]
