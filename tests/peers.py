"""Peers that answer beside us: models of torchvision, timm and Hugging Face, where they are installed."""

import importlib.util
import os
import sys
import tempfile
import warnings
from types import ModuleType
from typing import Any
from unittest.mock import patch

PEERS = all(importlib.util.find_spec(name) for name in ("torch", "torchvision", "timm"))
TRANSFORMERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
_DECLARED: list[Any] = []


def torchvision_models() -> ModuleType:
    """Return `torchvision.models`, also from a wheel whose compiled operators do not load beside PyTorch for CPU.

    Its networks are plain Python; only the operators for detection are compiled. Two of these are declared
    here, without a body, because the package asks for them when it is imported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision
        except RuntimeError:  # operator torchvision::nms does not exist
            _declare()
            import torchvision

    return torchvision.models


def timm_model(name: str, **options: Any) -> Any:
    """Return a network of timm by its name, with random weights."""
    torchvision_models()  # timm imports torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm

        return timm.create_model(name, **options)


def transformers() -> Any:
    """Return Hugging Face's package `transformers`, which imports torchvision if it is there."""
    if importlib.util.find_spec("torchvision"):
        torchvision_models()
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers


def keras() -> Any:
    """Return Keras on JAX; it writes its settings to a folder of its own."""
    settings = {"KERAS_BACKEND": "jax", "KERAS_HOME": tempfile.gettempdir()}
    with patch.dict(os.environ, {} if "keras" in sys.modules else settings):
        import keras

    return keras


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    _DECLARED.append(library)  # it lives as long as the process
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
