"""Files, and weights of other libraries."""

from jaxnets.interop.flax import from_flax
from jaxnets.interop.flax_nets import from_flax_module
from jaxnets.interop.safetensors import Saved, load, save
from jaxnets.interop.to_flax import to_flax, to_linen, to_nnx
from jaxnets.interop.torch import from_torch, to_torch
from jaxnets.interop.torch_names import TIMM_RESNETV2, TIMM_VGG

__all__ = [
    "TIMM_RESNETV2",
    "TIMM_VGG",
    "Saved",
    "from_flax",
    "from_flax_module",
    "from_torch",
    "load",
    "save",
    "to_flax",
    "to_linen",
    "to_nnx",
    "to_torch",
]
