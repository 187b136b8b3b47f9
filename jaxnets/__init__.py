"""jaxnets: functional neural networks in JAX, as pairs of pure functions."""

from jaxnets import select
from jaxnets.combinators import branches, concatenate, residual, serial
from jaxnets.errors import NetError
from jaxnets.layers import (
    adaptive_avg_pool,
    avg_pool,
    conv,
    conv_transpose,
    dense,
    depthwise_conv,
    flatten,
    global_avg_pool,
    global_max_pool,
    max_pool,
)
from jaxnets.leaf import layer, lift
from jaxnets.net import Net
from jaxnets.padded import Padded
from jaxnets.stacked import ensemble, repeat, stack, unstack
from jaxnets.wrappers import Policy, cast, remat

__version__ = "0.1.0"

__all__ = [
    "Net",
    "NetError",
    "Padded",
    "Policy",
    "adaptive_avg_pool",
    "avg_pool",
    "branches",
    "cast",
    "concatenate",
    "conv",
    "conv_transpose",
    "dense",
    "depthwise_conv",
    "ensemble",
    "flatten",
    "global_avg_pool",
    "global_max_pool",
    "layer",
    "lift",
    "max_pool",
    "remat",
    "repeat",
    "residual",
    "select",
    "serial",
    "stack",
    "unstack",
]
