"""Combinators: networks made of networks."""

from jaxnets.combinators.attention import attention
from jaxnets.combinators.cached import cached
from jaxnets.combinators.film import film
from jaxnets.combinators.fold import fold_batch_norm
from jaxnets.combinators.graph import auxiliary_heads, graph
from jaxnets.combinators.kernels import spectral_norm, weight_norm
from jaxnets.combinators.repeat import ensemble, repeat, stack, to_stacked, to_unstacked, unstack
from jaxnets.combinators.serial import branches, concatenate, residual, serial
from jaxnets.combinators.tied import tied
from jaxnets.combinators.transformer import decoder_block, encoder_block
from jaxnets.combinators.wrappers import Policy, cast, remat

__all__ = [
    "Policy",
    "attention",
    "auxiliary_heads",
    "branches",
    "cached",
    "cast",
    "concatenate",
    "decoder_block",
    "encoder_block",
    "ensemble",
    "film",
    "fold_batch_norm",
    "graph",
    "remat",
    "repeat",
    "residual",
    "serial",
    "spectral_norm",
    "stack",
    "tied",
    "to_stacked",
    "to_unstacked",
    "unstack",
    "weight_norm",
]
