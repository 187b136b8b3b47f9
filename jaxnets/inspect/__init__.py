"""Looking into networks and into how they learned."""

from jaxnets.inspect.figures import confusion, curves, kernels, misclassified

__all__ = ["confusion", "curves", "kernels", "misclassified"]
