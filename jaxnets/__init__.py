"""jaxnets: functional neural networks in JAX, as pairs of pure functions."""

import importlib
from typing import TYPE_CHECKING, Any

from jaxnets import activations, combinators, initializers, layers, losses, metrics, ops, regularizers
from jaxnets.combinators import *  # noqa: F403  # its __all__ is part of this one
from jaxnets.core import paths
from jaxnets.core.errors import NetError
from jaxnets.core.example_weights import example_weights, weights_of
from jaxnets.core.layer import as_net, labeled, layer
from jaxnets.core.net import Net
from jaxnets.core.packed import Packed
from jaxnets.core.padded import Padded
from jaxnets.layers import *  # noqa: F403  # so is its

if TYPE_CHECKING:
    from jaxnets import data, decoding, export, inspect, interop, models, plot, sweeps, train
    from jaxnets import sklearn as sklearn  # not in __all__, as it needs an extra
    from jaxnets.inspect.summary import summary
    from jaxnets.interop import from_flax_module, load, save, to_linen, to_nnx
    from jaxnets.train import evaluate, fit, objective, predict

__version__ = "0.1.0"

# Modules that many programs never use are imported at their first use: they would triple the import time.
_LATER = {
    **dict.fromkeys(("data", "decoding", "export", "inspect", "interop", "models", "plot"), ""),
    **dict.fromkeys(("sklearn", "sweeps", "train"), ""),
    **dict.fromkeys(("evaluate", "fit", "objective", "predict"), "train"),
    **dict.fromkeys(("from_flax_module", "load", "save", "to_linen", "to_nnx"), "interop"),
    "summary": "inspect",
}

__all__ = [
    "Net",
    "NetError",
    "Packed",
    "Padded",
    "activations",
    "as_net",
    "data",
    "decoding",
    "evaluate",
    "example_weights",
    "export",
    "fit",
    "from_flax_module",
    "initializers",
    "inspect",
    "interop",
    "labeled",
    "layer",
    "load",
    "losses",
    "metrics",
    "models",
    "objective",
    "ops",
    "paths",
    "plot",
    "predict",
    "regularizers",
    "save",
    "summary",
    "sweeps",
    "to_linen",
    "to_nnx",
    "train",
    "weights_of",
]
__all__ += combinators.__all__
__all__ += layers.__all__


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        hint = _hint(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}" + (f"; {hint}" if hint else ""))
    module = importlib.import_module(f"{__name__}.{_LATER[name] or name}")
    found = globals()[name] = getattr(module, name) if _LATER[name] else module
    return found


# Names in other libraries, in lower case and without the number of dimensions.
_NAMES = {
    **{"linear": "dense", "embedding": "embed", "sequential": "serial", "lstm": "lstm_cell", "gru": "gru_cell"},
    **{
        "batchnorm": "batch_norm",
        "layernorm": "layer_norm",
        "groupnorm": "group_norm",
        "rmsnorm": "rms_norm",
        "pixelshuffle": "pixel_shuffle",
        "layerscale": "layer_scale",
        "stochasticdepth": "drop_path",
        **dict.fromkeys(("weightnorm", "weightnormalization"), "weight_norm"),
        **dict.fromkeys(("spectralnorm", "spectralnormalization"), "spectral_norm"),
        **dict.fromkeys(("upsample", "upsampling", "interpolate", "resizing"), "resize"),
        **dict.fromkeys(("multiheadattention", "multiheaddotproductattention", "selfattention"), "attention"),
    },
    **{"maxpool": "max_pool", "avgpool": "avg_pool", "maxpooling": "max_pool", "averagepooling": "avg_pool"},
}
# Those of jn.sklearn, which is not imported to look: it needs an extra.
_ESTIMATORS = {
    **dict.fromkeys(("classifier", "mlpclassifier", "neuralnetclassifier"), "Classifier"),
    **dict.fromkeys(("regressor", "mlpregressor", "neuralnetregressor"), "Regressor"),
    **{"transformer": "Transformer", "anomalydetector": "AnomalyDetector"},
}
_MODULES = (
    *("train", "sweeps", "losses", "metrics", "models", "decoding", "data", "regularizers", "inspect", "plot"),
    *("interop", "export", "activations", "initializers", "paths", "ops"),
)


def _hint(name: str) -> str:
    """Return our name for a name of another library or module, "" if there is none."""
    if name.startswith("_"):
        return ""
    # Conv2d and conv2D are conv.
    plain = name.lower().removesuffix("d").rstrip("123") if name[-2:-1].isdigit() else name.lower()
    if plain in _NAMES or plain in __all__:
        return f"jn.{_NAMES.get(plain, plain)}"
    for module in _MODULES:
        if hasattr(globals()[module] if module in globals() else __getattr__(module), name):
            return f"jn.{module}.{name}"
    if plain in _ESTIMATORS:
        return f"jn.sklearn.{_ESTIMATORS[plain]}"
    if plain in ("optim", "optimizers", "adam", "sgd"):
        return "optimizers are Optax's, optax.adam(1e-3)"
    return f"jax.nn.{plain}" if hasattr(importlib.import_module("jax.nn"), plain) else ""


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
