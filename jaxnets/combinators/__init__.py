"""Combinators: networks made of networks."""

from jaxnets.combinators.graph import auxiliary_heads, graph
from jaxnets.combinators.precision import Policy, cast
from jaxnets.combinators.remat import remat
from jaxnets.combinators.repeat import ensemble, repeat, stack, to_stacked, to_unstacked, unstack
from jaxnets.combinators.serial import branches, concatenate, residual, serial

__all__ = [
    "Policy",
    "auxiliary_heads",
    "branches",
    "cast",
    "concatenate",
    "ensemble",
    "graph",
    "remat",
    "repeat",
    "residual",
    "serial",
    "stack",
    "to_stacked",
    "to_unstacked",
    "unstack",
]
