"""Files, and weights of other libraries."""

from jaxnets.interop.equinox import from_equinox
from jaxnets.interop.flax import from_flax
from jaxnets.interop.flax_nets import from_flax_module
from jaxnets.interop.haiku import from_haiku
from jaxnets.interop.huggingface import Pretrained, from_huggingface
from jaxnets.interop.keras import from_keras
from jaxnets.interop.safetensors import load, save
from jaxnets.interop.saved import Saved
from jaxnets.interop.to_flax import to_flax, to_linen, to_nnx
from jaxnets.interop.torch import from_torch, to_torch
from jaxnets.interop.torch_names import TIMM_RESNETV2, TIMM_VGG

__all__ = [
    "TIMM_RESNETV2",
    "TIMM_VGG",
    "Pretrained",
    "Saved",
    "from_equinox",
    "from_flax",
    "from_flax_module",
    "from_haiku",
    "from_huggingface",
    "from_keras",
    "from_torch",
    "load",
    "save",
    "to_flax",
    "to_linen",
    "to_nnx",
    "to_torch",
]
