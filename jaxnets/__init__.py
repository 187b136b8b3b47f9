"""jaxnets: functional neural networks in JAX, as pairs of pure functions."""

from jaxnets import select
from jaxnets.combinators import branches, concatenate, residual, serial
from jaxnets.errors import NetError
from jaxnets.layers import dense, flatten
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
    "branches",
    "cast",
    "concatenate",
    "dense",
    "ensemble",
    "flatten",
    "layer",
    "lift",
    "remat",
    "repeat",
    "residual",
    "select",
    "serial",
    "stack",
    "unstack",
]
