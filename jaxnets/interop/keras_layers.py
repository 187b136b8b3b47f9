"""Keras' layers: their arrays in our layout, and their settings by our names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.interop.settings import Settings, window
from jaxnets.interop.torch_settings import unusual
from jaxnets.layers.windows import spread

Config = Mapping[str, Any]
Arrays = dict[str, np.ndarray]

_AFFINE = ("scale", "bias")
_BIASED = ("kernel", "bias")
NAMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Dense": ("dense", _BIASED),
    "EinsumDense": ("dense", _BIASED),
    **{f"Conv{n}D": ("conv", _BIASED) for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": ("conv", _BIASED) for n in (1, 2)},
    **{f"Conv{n}DTranspose": ("conv_transpose", _BIASED) for n in (1, 2, 3)},
    "Embedding": ("embed", ("embedding",)),
    "BatchNormalization": ("batch_norm", (*_AFFINE, "mean", "var")),
    "LayerNormalization": ("layer_norm", _AFFINE),
    "GroupNormalization": ("group_norm", _AFFINE),
    "RMSNormalization": ("rms_norm", ("scale",)),
    "PReLU": ("prelu", ("negative_slope",)),
    "SimpleRNNCell": ("rnn_cell", ("kernel", "recurrent_kernel", "bias")),
    "LSTMCell": ("lstm_cell", ("kernel", "recurrent_kernel", "bias")),
    "GRUCell": ("gru_cell", ("kernel", "recurrent_kernel", "bias")),
}
"""The constructor here and our names of the arrays, in Keras' order, by class."""
CELLS = ("SimpleRNN", "LSTM", "GRU")
"""Layers that run a cell over time; the cell's class is `LSTMCell`."""


def arrays(name: str, given: Sequence[np.ndarray], config: Config | None) -> Arrays:
    """Return a layer's arrays in our layout.

    Args:
        name: the class of the layer.
        given: its arrays in Keras' order.
        config: its settings; `None` if they are unknown.

    Raises:
        NetError: for a number of arrays that the class does not have, or that could mean one or the other.
    """
    kind, names = NAMES[name]
    if config is not None:
        flags = {"bias": "center", "scale": "scale"} if "norm" in kind else {"bias": "use_bias"}
        names = tuple(each for each in names if config.get(flags.get(each, ""), True))
    elif len(given) == len(names) - 1 and names[-1] == "bias" and "norm" not in kind:
        names = names[:-1]
    if len(given) != len(names):
        hint = "pass a .keras file, which has the settings" if config is None else "the file is not one of Keras 3"
        raise NetError(f"expects {', '.join(names)} of a {name}, got {len(given)} arrays; {hint}")
    found = dict(zip(names, given))
    kernel = found.get("kernel")
    if kernel is not None and name.startswith("Depthwise"):
        found["kernel"] = kernel.reshape(*kernel.shape[:-2], 1, -1)
    elif kernel is not None and kind == "conv_transpose":
        found["kernel"] = np.swapaxes(kernel, -1, -2)
    elif kind == "gru_cell":
        found = _gru(found)
    elif kind == "prelu":
        slope = found["negative_slope"]
        # Axes that share a slope have length 1.
        found["negative_slope"] = slope.reshape(slope.shape[-1:] if slope.size == slope.shape[-1] else slope.shape)
    return found


def _gru(found: Arrays) -> Arrays:
    """Move the gates from z, r, n to r, z, n; the two biases are one, and the recurrent one of n."""

    def moved(array: np.ndarray) -> np.ndarray:
        z, r, n = np.split(array, 3, -1)
        return np.concatenate([r, z, n], -1)

    found = {name: moved(array) for name, array in found.items()}
    bias = found.get("bias")
    if bias is not None and bias.ndim == 2:
        (own, recurrent), new = bias, bias.shape[1] // 3
        own, found["recurrent_bias"] = own.copy(), recurrent[-new:]
        own[:-new] += recurrent[:-new]
        found["bias"] = own
    return found


def settings(name: str, config: Config) -> Settings | None:
    """Return a layer's settings; `None` if it has no counterpart."""
    base = name.replace("Separable", "").replace("Depthwise", "")
    base = "".join(each for each in base.replace("3D", "").replace("2D", "").replace("1D", ""))
    if base not in _READ:
        return None
    kind, read = _READ[base]
    values = read(config) | unusual("channels_last", data_format=config.get("data_format") or "channels_last")
    size = config.get("kernel_size", config.get("pool_size"))
    if size is None:
        return Settings(kind, values, name=name)
    rank = next(int(digit) for digit in "123" if f"{digit}D" in name)
    return Settings(kind, values | window(kind, {"kernel_size": size, **values}, rank), rank, name)


def harmless(name: str) -> bool:
    """Tell whether a layer without arrays or settings changes nothing, or what every network has to do likewise."""
    sums = name == "Activation" or name in ("Add", "Concatenate", "TimeDistributed", "RNN", "Bidirectional")
    shapes = name in ("InputLayer", "Flatten", "Reshape", "Identity", "Masking", "Functional", "Sequential")
    noise = name.startswith(("SpatialDropout", "Gaussian", "AlphaDropout")) or name == "ActivityRegularization"
    return sums or shapes or noise or name.startswith("GlobalAveragePooling")


def activation(config: Config, name: str) -> Settings | None:
    """Return the function that a layer applies to its output; `None` if it applies none."""
    function = config.get("activation")
    if isinstance(function, Mapping):  # a layer, or a function of one's own
        inner = function.get("config")
        inner = inner if isinstance(inner, Mapping) else {"activation": inner}
        return settings(str(function.get("class_name")), inner)
    return None if function in (None, "linear") else _function(str(function), f"{name}(activation={function!r})")


def _function(function: str, name: str) -> Settings:
    kind, values = _FUNCTIONS.get(function, (function, {}))
    return Settings(kind, values, name=name)


_FUNCTIONS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("gelu", {"approximate": False}),
    "silu": ("swish", {}),
    "softsign": ("soft_sign", {}),
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.2}),
    "exponential": ("exp", {}),
    "hard_silu": ("hard_swish", {}),
}
"""Functions that have another name here, or settings."""


def _conv(config: Config) -> dict[str, Any]:
    padding = str(config["padding"]).upper()
    return {"stride": config["strides"], "padding": padding, "dilation": config.get("dilation_rate", 1)}


def _transposed(config: Config) -> dict[str, Any]:
    rank = len(spread(config["kernel_size"], 1))
    settings = {"stride": config["strides"], "dilation": config["dilation_rate"]}
    if str(config["padding"]).upper() == "SAME":
        return settings | {"padding": "SAME"} | unusual(None, output_padding=config.get("output_padding"))
    # All positions are kept, also the last of strides longer than the window.
    reach = [d * (w - 1) + 1 for w, d in zip(config["kernel_size"], spread(config["dilation_rate"], rank))]
    more = tuple(max(s - r, 0) for s, r in zip(spread(config["strides"], rank), reach))
    return settings | {"padding": 0, "output_padding": more} | unusual(None, their=config.get("output_padding"))


def _pool(config: Config) -> dict[str, Any]:
    return {"stride": config["strides"], "padding": str(config["padding"]).upper()}


def _avg_pool(config: Config) -> dict[str, Any]:
    # Padding does not count.
    return _pool(config) | ({"count_include_pad": False} if str(config["padding"]).upper() == "SAME" else {})


def _axis(config: Config) -> dict[str, Any]:
    """Return the axis if it is not the last; `rank` is that of the input, if it is known."""
    axis = config.get("axis", -1)
    (only,) = axis if isinstance(axis, list | tuple) and len(axis) == 1 else (axis,)
    return {} if only in (-1, config.get("rank", 0) - 1) else {"axis": axis}


def _norm(config: Config) -> dict[str, Any]:
    return {"epsilon": config["epsilon"]} | unusual(False, rms_scaling=config.get("rms_scaling", False)) | _axis(config)


def _batch_norm(config: Config) -> dict[str, Any]:
    return {"epsilon": config["epsilon"], "decay": config["momentum"]} | _axis(config)


def _cell(config: Config) -> dict[str, Any]:
    kept = {"recurrent_dropout": config.get("recurrent_dropout", 0.0), "dropout": config.get("dropout", 0.0)}
    backwards = {"reverse": config["go_backwards"]} if "go_backwards" in config else {}
    if backwards.get("reverse") and config.get("return_sequences"):
        backwards["go_backwards"] = "with outputs in reverse order"
    return unusual(0.0, **kept) | backwards


def _gated(config: Config) -> dict[str, Any]:
    function, gate = config["activation"], config["recurrent_activation"]
    reset = {"reset_after": config["reset_after"]} if "reset_after" in config else {}
    return _cell(config) | unusual("tanh", activation=function) | unusual("sigmoid", recurrent_activation=gate) | reset


def _attention(config: Config) -> dict[str, Any]:
    heads = config["num_heads"] if "num_heads" in config else config["num_query_heads"]
    values = {"heads": heads, "positions": None, "dropout": config["dropout"]}
    values |= {"causal": config["causal"]} if "causal" in config else {}  # an argument of the call
    return values | unusual(None, sliding_window=config.get("sliding_window"))


def _relu(config: Config) -> dict[str, Any]:
    return unusual(None, max_value=config.get("max_value")) | unusual(
        0.0, negative_slope=config.get("negative_slope", 0.0), threshold=config.get("threshold", 0.0)
    )


def _plain(config: Config) -> dict[str, Any]:
    return {}


_READ: Mapping[str, tuple[str, Callable[[Config], dict[str, Any]]]] = {
    "Dense": ("dense", _plain),
    "Conv": ("conv", _conv),
    "ConvTranspose": ("conv_transpose", _transposed),
    "Embedding": ("embed", _plain),
    "BatchNormalization": ("batch_norm", _batch_norm),
    "LayerNormalization": ("layer_norm", _norm),
    "GroupNormalization": ("group_norm", lambda c: _norm(c) | {"groups": c["groups"]}),
    "RMSNormalization": ("rms_norm", _norm),
    "PReLU": ("prelu", _plain),
    **{name + end: ("lstm_cell", _gated) for name in ("LSTM",) for end in ("", "Cell")},
    **{name + end: ("gru_cell", _gated) for name in ("GRU",) for end in ("", "Cell")},
    **{f"SimpleRNN{end}": ("rnn_cell", lambda c: _cell(c) | {"activation": c["activation"]}) for end in ("", "Cell")},
    "MultiHeadAttention": ("attention", _attention),
    "GroupedQueryAttention": ("attention", _attention),
    "MaxPooling": ("max_pool", _pool),
    "AveragePooling": ("avg_pool", _avg_pool),
    "Dropout": ("dropout", lambda c: {"rate": c["rate"]}),
    "ReLU": ("relu", _relu),
    "LeakyReLU": ("leaky_relu", lambda c: {"negative_slope": c["negative_slope"]}),
    "ELU": ("elu", lambda c: {"alpha": c["alpha"]}),
    "Softmax": ("softmax", _axis),
}
"""Kinds, and readers of their settings, by class without the number of axes."""
