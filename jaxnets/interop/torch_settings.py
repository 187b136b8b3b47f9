"""Settings of modules of PyTorch, timm and Hugging Face's transformers, by our names."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Read = Callable[[Any], dict[str, Any]]  # from a module to its settings, by our names


def unusual(usual: Any, **values: Any) -> dict[str, Any]:
    """Return settings without a counterpart here, except those with the usual value."""
    return {name: value for name, value in values.items() if value != usual}


def read(*alike: str, **names: str) -> Read:
    """Return a reader of attributes: those of the same name, and the module's names by ours."""
    names = dict(zip(alike, alike)) | names
    return lambda m: {name: getattr(m, theirs) for name, theirs in names.items()}


def _torch_conv(m: Any) -> dict[str, Any]:
    padding = m.padding.upper() if isinstance(m.padding, str) else m.padding
    settings = {"stride": m.stride, "padding": padding, "dilation": m.dilation}
    return settings | unusual("zeros", padding_mode=m.padding_mode)


def _torch_batch_norm(m: Any) -> dict[str, Any]:
    return {"epsilon": m.eps, "decay": "a mean of all batches" if m.momentum is None else 1 - m.momentum}


def _torch_avg_pool(m: Any) -> dict[str, Any]:
    settings = read("stride", "padding", "ceil_mode", "count_include_pad")(m)
    return settings | unusual(None, divisor_override=getattr(m, "divisor_override", None))


def _torch_cells(m: Any) -> dict[str, Any]:
    activation = {"activation": m.nonlinearity} if m.mode.startswith("RNN") else {}
    return activation | ({"dropout": float(m.dropout)} if m.num_layers > 1 else {})


def _torch_attention(m: Any) -> dict[str, Any]:
    settings = {"heads": m.num_heads, "positions": None}
    return settings | unusual(None, bias_k=m.bias_k) | unusual(False, add_zero_attn=m.add_zero_attn)


FUNCTIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "relu": ("relu", {}),
    "gelu": ("gelu", {"approximate": False}),
}
"""Functions that a block of PyTorch has as its activation."""

_RATE = read(rate="p")
TORCH: Mapping[str, tuple[str, Read]] = {
    "Linear": ("dense", read()),
    "Conv": ("conv", _torch_conv),
    "ConvTranspose": ("conv_transpose", read("stride", "padding", "output_padding", "dilation")),
    "BatchNorm": ("batch_norm", _torch_batch_norm),
    "SyncBatchNorm": ("batch_norm", _torch_batch_norm),
    "LayerNorm": ("layer_norm", read(epsilon="eps")),
    "GroupNorm": ("group_norm", read(groups="num_groups", epsilon="eps")),
    "InstanceNorm": ("group_norm", read(groups="num_features", epsilon="eps")),
    "RMSNorm": ("rms_norm", lambda m: {"epsilon": float(np.finfo(np.float32).eps) if m.eps is None else m.eps}),
    "Embedding": ("embed", lambda m: unusual(None, max_norm=m.max_norm)),
    "PReLU": ("prelu", read()),
    "RNN": ("rnn_cell", _torch_cells),
    "LSTM": ("lstm_cell", _torch_cells),
    "GRU": ("gru_cell", _torch_cells),
    "MultiheadAttention": ("attention", _torch_attention),
    "TransformerEncoderLayer": ("encoder_block", read("norm_first")),
    "TransformerDecoderLayer": ("decoder_block", read("norm_first")),
    "MaxPool": ("max_pool", read("stride", "padding", "dilation", "ceil_mode")),
    "AvgPool": ("avg_pool", _torch_avg_pool),
    "Dropout": ("dropout", _RATE),
    **{f"Dropout{n}d": ("spatial_dropout", _RATE) for n in (1, 2, 3)},
    "ReLU": ("relu", read()),
    "ReLU6": ("relu6", read()),
    "GELU": ("gelu", lambda m: {"approximate": m.approximate == "tanh"}),
    "LeakyReLU": ("leaky_relu", read("negative_slope")),
    "ELU": ("elu", read("alpha")),
    "CELU": ("celu", read("alpha")),
    "SELU": ("selu", read()),
    "SiLU": ("swish", read()),
    "Mish": ("mish", read()),
    "Tanh": ("tanh", read()),
    "Sigmoid": ("sigmoid", read()),
    "LogSigmoid": ("log_sigmoid", read()),
    "Softplus": ("softplus", lambda m: unusual(1, beta=m.beta)),
    "Softsign": ("soft_sign", read()),
    "Hardsigmoid": ("hard_sigmoid", read()),
    "Hardswish": ("hard_swish", read()),
    "Hardshrink": ("hard_shrink", read(threshold="lambd")),
    "Softshrink": ("soft_shrink", read(threshold="lambd")),
    "Tanhshrink": ("tanh_shrink", read()),
    "Threshold": ("threshold", read("threshold", "value")),
}
"""Kinds of layers, and readers of their settings, by class: those of `torch.nn` without the number of axes."""


def _llama_attention(m: Any) -> dict[str, Any]:
    rotation = dict(m.config.rope_parameters)
    settings = {"heads": m.config.num_attention_heads, "causal": True, "window": None, "positions": "rotary"}
    return settings | {"period": rotation["rope_theta"]} | unusual("default", rope_type=rotation["rope_type"])


def _bert_attention(m: Any) -> dict[str, Any]:
    return {"heads": m.self.num_attention_heads, "causal": m.self.is_causal, "positions": None}


OTHERS: Mapping[str, tuple[str, Read]] = {
    "Attention": ("attention", lambda m: {"heads": m.num_heads, "causal": False, "positions": None}),
    "GPT2Attention": ("attention", lambda m: {"heads": m.num_heads, "causal": True, "positions": None}),
    "LlamaAttention": ("attention", _llama_attention),
    "MistralAttention": ("attention", lambda m: _llama_attention(m) | {"window": m.config.sliding_window}),
    "BertAttention": ("attention", _bert_attention),
    "LlamaRMSNorm": ("rms_norm", read(epsilon="variance_epsilon")),
    "MistralRMSNorm": ("rms_norm", read(epsilon="variance_epsilon")),
    "NewGELUActivation": ("gelu", lambda m: {"approximate": True}),
    "GELUActivation": ("gelu", lambda m: {"approximate": False}),
}
"""The same for timm and Hugging Face's transformers."""
