"""Array functions in the formulation that is fastest on their platform."""

from jaxnets.ops.attention import attention
from jaxnets.ops.plain import plain
from jaxnets.ops.positions import distance_slopes, rotate

__all__ = ["attention", "distance_slopes", "plain", "rotate"]
