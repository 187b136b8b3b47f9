"""Trained networks as files that run without this library."""

from jaxnets.export.onnx import Converted, onnx
from jaxnets.export.stablehlo import Served, load, stablehlo

__all__ = ["Converted", "Served", "load", "onnx", "stablehlo"]
