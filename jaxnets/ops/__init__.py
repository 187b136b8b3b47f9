"""Array functions in the formulation that is fastest on their platform."""

from jaxnets.ops.plain import plain

__all__ = ["plain"]
