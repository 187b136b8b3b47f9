"""Files, and other libraries' weights."""

from jaxnets.interop.files import load, save

__all__ = ["load", "save"]
