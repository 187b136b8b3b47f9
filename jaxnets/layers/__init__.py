"""Layers: the leaves of every network."""

from jaxnets.layers.dense import dense
from jaxnets.layers.flatten import flatten

__all__ = ["dense", "flatten"]
