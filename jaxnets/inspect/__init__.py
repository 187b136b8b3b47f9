"""Inspection of networks: counts, summaries, connections and receptive fields."""

from jaxnets.inspect.connections import connections
from jaxnets.inspect.counts import Memory, count_parameters, flops, memory, multiply_adds
from jaxnets.inspect.receptive_field.effective import effective_field
from jaxnets.inspect.receptive_field.field import ReceptiveField, receptive_field
from jaxnets.inspect.report import Row, Summary
from jaxnets.inspect.sizes import output_size
from jaxnets.inspect.summary import summary

__all__ = [
    "Memory",
    "ReceptiveField",
    "Row",
    "Summary",
    "connections",
    "count_parameters",
    "effective_field",
    "flops",
    "memory",
    "multiply_adds",
    "output_size",
    "receptive_field",
    "summary",
]
