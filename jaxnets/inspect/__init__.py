"""Looking into networks and into how they learned."""

from jaxnets.inspect.connections import connections
from jaxnets.inspect.counts import Memory, count_parameters, flops, memory, multiply_adds
from jaxnets.inspect.curves import curves
from jaxnets.inspect.diagram import Drawing, diagram
from jaxnets.inspect.effective_field import effective_field
from jaxnets.inspect.figures import confusion, kernels, misclassified
from jaxnets.inspect.pictures import draw_receptive_field, feature_maps
from jaxnets.inspect.receptive_field import ReceptiveField, receptive_field
from jaxnets.inspect.report import Row, Summary
from jaxnets.inspect.sizes import output_size
from jaxnets.inspect.summary import summary

__all__ = [
    "Drawing",
    "Memory",
    "ReceptiveField",
    "Row",
    "Summary",
    "confusion",
    "connections",
    "count_parameters",
    "curves",
    "diagram",
    "draw_receptive_field",
    "effective_field",
    "feature_maps",
    "flops",
    "kernels",
    "memory",
    "misclassified",
    "multiply_adds",
    "output_size",
    "receptive_field",
    "summary",
]
