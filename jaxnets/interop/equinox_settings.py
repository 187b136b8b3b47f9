"""Settings of modules of Equinox, by our names."""

from collections.abc import Mapping
from typing import Any

from jaxnets.interop.torch_settings import Read, read, unusual


def _equinox_conv(m: Any) -> dict[str, Any]:
    settings = {"stride": m.stride, "padding": m.padding, "dilation": m.dilation}
    more = {"output_padding": m.output_padding} if hasattr(m, "output_padding") else {}
    return settings | more | unusual("ZEROS", padding_mode=m.padding_mode)


_EPSILON = read(epsilon="eps")
EQUINOX: Mapping[str, tuple[str, Read]] = {
    "Linear": ("dense", read()),
    **{f"Conv{n}": ("conv", _equinox_conv) for n in ("", "1d", "2d", "3d")},
    **{f"ConvTranspose{n}": ("conv_transpose", _equinox_conv) for n in ("", "1d", "2d", "3d")},
    "BatchNorm": ("batch_norm", read(epsilon="eps", decay="momentum")),
    "LayerNorm": ("layer_norm", _EPSILON),
    "GroupNorm": ("group_norm", read("groups", epsilon="eps")),
    "RMSNorm": ("rms_norm", _EPSILON),
    "Embedding": ("embed", read()),
    "PReLU": ("prelu", read()),
    "LSTMCell": ("lstm_cell", read()),
    "GRUCell": ("gru_cell", lambda m: {"reset_after": True}),
    "MultiheadAttention": ("attention", lambda m: {"heads": m.num_heads, "positions": None}),
    "Dropout": ("dropout", read(rate="p")),
    **{f"MaxPool{n}d": ("max_pool", read("stride", "padding", ceil_mode="use_ceil")) for n in (1, 2, 3)},
    **{f"AvgPool{n}d": ("avg_pool", read("stride", "padding", ceil_mode="use_ceil")) for n in (1, 2, 3)},
}
"""Kinds of layers, and readers of their settings, by class."""
