"""Trained networks as files that run without this library."""

from jaxnets.export.stablehlo import Served, load, stablehlo

__all__ = ["Served", "load", "stablehlo"]
