"""Data that is real, small and at hand, honest splits of it, and augmentation."""

from jaxnets.data.augment import shift
from jaxnets.data.digits import mnist5k
from jaxnets.data.splits import split

__all__ = ["mnist5k", "shift", "split"]
