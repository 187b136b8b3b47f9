"""jaxnets: functional neural networks in JAX, as pairs of pure functions."""

from jaxnets import data, inspect, losses, metrics, models, regularizers, select, train
from jaxnets.activations import hard_shrink, scaled_tanh, soft_shrink, tanh_shrink, threshold
from jaxnets.combinators import branches, concatenate, residual, serial
from jaxnets.errors import NetError
from jaxnets.interop import load, save
from jaxnets.layers import (
    Cell,
    LSTMCarry,
    adaptive_avg_pool,
    avg_pool,
    batch_norm,
    bidirectional,
    conv,
    conv_transpose,
    dense,
    depthwise_conv,
    dropout,
    dropout_channels,
    embed,
    flatten,
    global_avg_pool,
    global_max_pool,
    group_norm,
    gru_cell,
    layer_norm,
    local_response_norm,
    lstm_cell,
    max_pool,
    maxout,
    prelu,
    recurrent,
    rnn_cell,
)
from jaxnets.leaf import layer, lift
from jaxnets.net import Net
from jaxnets.objective import objective
from jaxnets.padded import Padded
from jaxnets.stacked import ensemble, repeat, stack, unstack
from jaxnets.wrappers import Policy, cast, remat

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "LSTMCarry",
    "Net",
    "NetError",
    "Padded",
    "Policy",
    "adaptive_avg_pool",
    "avg_pool",
    "batch_norm",
    "bidirectional",
    "branches",
    "cast",
    "concatenate",
    "conv",
    "conv_transpose",
    "data",
    "dense",
    "depthwise_conv",
    "dropout",
    "dropout_channels",
    "embed",
    "ensemble",
    "flatten",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "gru_cell",
    "hard_shrink",
    "inspect",
    "layer",
    "layer_norm",
    "lift",
    "load",
    "local_response_norm",
    "losses",
    "lstm_cell",
    "max_pool",
    "maxout",
    "metrics",
    "models",
    "objective",
    "prelu",
    "recurrent",
    "regularizers",
    "remat",
    "repeat",
    "residual",
    "rnn_cell",
    "save",
    "scaled_tanh",
    "select",
    "serial",
    "soft_shrink",
    "stack",
    "tanh_shrink",
    "threshold",
    "train",
    "unstack",
]
