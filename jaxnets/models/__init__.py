"""Architectures, one a file, each reading like its paper's table."""

from jaxnets.models.lenet import lenet5

__all__ = ["lenet5"]
