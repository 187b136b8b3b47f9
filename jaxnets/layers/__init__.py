"""Layers: the leaves of every network."""

from jaxnets.layers.conv import conv, depthwise_conv
from jaxnets.layers.conv_transpose import conv_transpose
from jaxnets.layers.dense import dense
from jaxnets.layers.flatten import flatten
from jaxnets.layers.pool import adaptive_avg_pool, avg_pool, global_avg_pool, global_max_pool, max_pool

__all__ = [
    "adaptive_avg_pool",
    "avg_pool",
    "conv",
    "conv_transpose",
    "dense",
    "depthwise_conv",
    "flatten",
    "global_avg_pool",
    "global_max_pool",
    "max_pool",
]
