"""Compare settings that weights do not contain, such as ε or padding, with those of another library's module."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxnets.core.errors import NetError, concrete, is_traced
from jaxnets.core.layer import as_net
from jaxnets.core.net import Net, spec
from jaxnets.interop.equinox_settings import EQUINOX
from jaxnets.interop.tensors import shortened
from jaxnets.interop.torch_names import unwrapped
from jaxnets.interop.torch_settings import FUNCTIONS, OTHERS, TORCH, Read, read, unusual
from jaxnets.layers.windows import spread

_WINDOWED = ("conv", "conv_transpose", "max_pool", "avg_pool")


@dataclass(frozen=True)
class Settings:
    """The settings of a layer, in this library's terms.

    Attributes:
        kind: the name of the constructor, `batch_norm`; "" for any.
        values: arguments by name; windows, padding and the like with a value for each axis.
        rank: number of spatial axes of a layer with windows, otherwise 0.
        name: the name of the other library's class, for errors.
    """

    kind: str
    values: Mapping[str, Any]
    rank: int = 0
    name: str = ""


def compare(pairs: Iterable[tuple[str, Net, Any]], hint: str) -> None:
    """Check that layers have the settings of their counterparts.

    Args:
        pairs: the path of a layer, its network, and the module of the other library, or its settings.
        hint: what to do if the difference is intended.

    Raises:
        NetError: with the path, the module's setting and the layer's, for all that differ.
    """
    found = []
    for path, net, module in pairs:
        theirs = theirs_of(module)
        ours = theirs and ours_of(net, theirs.rank)
        if not ours or not theirs:
            continue
        kind = ours.kind
        their_class = theirs.name or getattr(module, "__name__", type(module).__name__)
        if theirs.kind and kind != theirs.kind:
            if kind in _KINDS:
                found.append(f"{path or 'it'} is {kind}, but the module is {their_class}")
            continue
        for name, value in theirs.values.items():
            # Recurrent layers in a `serial` may have dropout layers between them.
            if name == "dropout" and name not in ours.values:
                continue
            # A rate of 0 is as no dropout layer, which would not be compared.
            if name == "rate" and name in ours.values and _same(ours.values[name], 0.0):
                continue
            if not _same(ours.values.get(name), value):
                have = f"got {ours.values[name]!r}" if name in ours.values else f"which {kind} does not have"
                found.append(f"{path or 'it'}: {their_class} has {name}={value!r}, {have}")
    if found:
        # Copies of a repeated layer differ alike.
        message = f"expects the module's settings, got others: {shortened(list(dict.fromkeys(found)))}"
        raise NetError(f"{message}; give the network the module's, or {hint}")


def flax_modules(module: Any, x: Any) -> dict[str, list[Any]]:
    """Return the submodules of a Flax module by slash-joined path: of Linen in the order of calls for `x`, or of NNX.

    The list at the path of a cell also has the `RNN` around it.

    Raises:
        NetError: if the module can't be called with only `x`.
    """
    import flax.linen as nn
    from flax import nnx

    if isinstance(module, nnx.Module):
        found = {"/".join(map(str, path)): [inner] for path, inner in nnx.iter_modules(module)}
        for path, (inner, *_) in [*found.items()]:
            if isinstance(inner, nnx.RNN):
                found[f"{path}/cell".lstrip("/")].append(inner)
        return found
    seen: dict[str, list[Any]] = {}
    rnns: dict[str, Any] = {}

    def record(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        seen["/".join(context.module.path)] = [context.module]
        if isinstance(context.module, nn.RNN):
            rnns["/".join(context.module.cell.path)] = context.module
        return call(*args, **kwargs)

    call = module.init if isinstance(module, nn.Module) else module
    try:
        with nn.intercept_methods(record):
            jax.eval_shape(call, jax.random.key(0), spec(x))
    except TypeError as error:
        hint = "if it takes more than x, pass module=functools.partial(module.init, train=False)"
        raise NetError(f"can't call the module: {error}; {hint}") from error
    return {path: [*found, *([rnns[path]] if path in rnns else [])] for path, found in seen.items()}


def torch_modules(source: Any) -> list[tuple[str, Any]]:
    """Return the modules of a module of PyTorch by name, and the activation functions of its blocks; none of a dict."""
    found: list[tuple[str, Any]] = list(getattr(source, "named_modules", dict)())
    blocks = [(name, module) for name, module in found if "norm_first" in vars(module)]
    return [*((f"{name}.activation".lstrip("."), module.activation) for name, module in blocks), *found]


def ours_of(net: Net, rank: int) -> Settings | None:
    """Return a layer's settings; `None` if its constructor is unknown."""
    _, net = unwrapped(net)
    function, values = net.constructor, dict(net.arguments)
    if "cells" in values:
        cell = values["cells"][0]
        function, values = cell.constructor, {"reverse": False, **values, **cell.arguments}
    elif function is as_net:
        function = values["function"]
        given = function.keywords if isinstance(function, functools.partial) else {}
        function = function.func if isinstance(function, functools.partial) else function
        values = _defaults(function) | given
    kind = getattr(function, "__name__", "")
    if "activation" in values:
        values["activation"] = getattr(values["activation"], "__name__", values["activation"])
    kind = "conv" if kind == "depthwise_conv" else {"silu": "swish", "hard_silu": "hard_swish"}.get(kind, kind)
    if kind in _WINDOWED:
        values |= window(kind, values, rank)
    return Settings(kind, values, rank) if kind else None


def theirs_of(module: Any) -> Settings | None:
    """Return the settings of a module of another library, or those given; `None` if it has no counterpart."""
    if isinstance(module, Settings):
        return module
    if (name := getattr(module, "__name__", "")) in FUNCTIONS:
        return Settings(*FUNCTIONS[name])
    for cls in type(module).__mro__:
        # `Conv2d` is `Conv` with 2 spatial axes; any name matches.
        name, digit = re.fullmatch(r"(.*?)(?:([123])d)?", cls.__name__).groups()  # type: ignore[union-attr]  # it matches
        library = cls.__module__.partition(".")[0]
        tables = {"torch": TORCH, "flax": FLAX, "timm": OTHERS, "transformers": OTHERS, "equinox": EQUINOX}
        table = tables.get(library, {})
        kind, reader = table.get(cls.__name__) or table.get(name) or (None, None)
        if kind is None or reader is None:
            continue
        values = reader(module)
        if kind not in _WINDOWED:
            return Settings(kind, values)
        rank = int(digit) if digit else len(spread(module.kernel_size, 1))
        return Settings(kind, values | window(kind, {"kernel_size": module.kernel_size, **values}, rank), rank)
    return None


def window(kind: str, values: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Return the settings of windows for each axis; padding as numbers, unless it depends on the input's size."""
    size = spread(values["kernel_size"], rank)
    stride = size if values.get("stride") is None and "pool" in kind else spread(values.get("stride") or 1, rank)
    dilation = spread(values.get("dilation") or 1, rank)
    found = {"kernel_size": tuple(size), "stride": tuple(stride), "dilation": tuple(dilation)}
    reach = [d * (w - 1) + 1 for w, d in zip(size, dilation)]
    padding = values.get("padding", 0)
    if kind == "conv_transpose":
        more = spread(values.get("output_padding", 0), rank)
        if padding == "SAME":
            more = [max(s - r, 0) for s, r in zip(stride, reach)]
            pairs = [((r - s) // 2, r - s - (r - s) // 2) if r > s else (0, 0) for s, r in zip(stride, reach)]
        else:
            pairs = _pairs(padding, rank)
        if isinstance(pairs, str):
            return found | {"padding": pairs}
        # Output padding reduces what is cut off at the end.
        after = [high - m for (_, high), m in zip(pairs, more)]
        pairs = tuple((low, max(a, 0)) for (low, _), a in zip(pairs, after))
        return found | {"padding": pairs, "output_padding": tuple(max(-a, 0) for a in after)}
    if padding == "SAME" and set(stride) == {1}:
        return found | {"padding": tuple(((r - 1) // 2, r - 1 - (r - 1) // 2) for r in reach)}
    if padding == "CAUSAL":
        return found | {"padding": tuple((r - 1, 0) for r in reach)}
    return found | {"padding": _pairs(padding, rank)}


def _pairs(padding: Any, rank: int) -> Any:
    """Return (before, after) for each axis; leave other strings than "VALID" unchanged."""
    if padding == "VALID":
        return ((0, 0),) * rank
    if isinstance(padding, str):
        return padding
    return tuple(tuple(each) if isinstance(each, tuple | list) else (each, each) for each in spread(padding, rank))


def _defaults(function: Any) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        # Functions written in C may have no signature.
        return {}
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def _same(ours: Any, theirs: Any) -> bool:
    if is_traced(ours):
        return True
    if isinstance(theirs, float) and ours is not None and not isinstance(ours, str):
        known = concrete(ours)
        return known is not None and math.isclose(known, theirs, rel_tol=1e-6, abs_tol=1e-12)
    return bool(np.all(ours == theirs)) if isinstance(ours, jax.Array | np.ndarray) else ours == theirs


def _flax_conv(m: Any) -> dict[str, Any]:
    holes = spread(m.input_dilation or 1, 1)
    settings = {"stride": m.strides, "padding": m.padding, "dilation": m.kernel_dilation}
    return settings | unusual(None, mask=m.mask) | unusual({1}, input_dilation=set(holes))


def _flax_conv_transpose(m: Any) -> dict[str, Any]:
    """Return Flax's padding of the dilated input as our padding, which is cut off the output."""
    rank = len(spread(m.kernel_size, 1))
    size, stride, dilation = (spread(each or 1, rank) for each in (m.kernel_size, m.strides, m.kernel_dilation))
    settings = {"stride": stride, "dilation": dilation} | unusual(None, mask=m.mask)
    reach = [d * (w - 1) + 1 for w, d in zip(size, dilation)]
    padding = m.padding
    # As `jax.lax.conv_transpose` defines them.
    if padding in ("SAME", "VALID"):
        total = [r + s - 2 + (max(r - s, 0) if padding == "VALID" else 0) for r, s in zip(reach, stride)]
        first = [r - 1 if padding == "VALID" or s > r - 1 else -(-t // 2) for r, s, t in zip(reach, stride, total)]
        padding = tuple((f, t - f) for f, t in zip(first, total))
    pairs = _pairs(padding, rank)
    if isinstance(pairs, str):
        return settings | {"padding": pairs}
    cut = [(r - 1 - low, r - 1 - high) for r, (low, high) in zip(reach, pairs)]
    return settings | {
        "padding": tuple((low, max(high, 0)) for low, high in cut),
        "output_padding": tuple(max(-high, 0) for _, high in cut),
    }


def _flax_cell(m: Any) -> dict[str, Any]:
    """Return the functions of a cell with gates, which are fixed here, if they are unusual."""
    own, gate = (getattr(each, "__name__", each) for each in (m.activation_fn, m.gate_fn))
    return unusual("tanh", activation_fn=own) | unusual("sigmoid", gate_fn=gate)


def _flax_simple_cell(m: Any) -> dict[str, Any]:
    return {"activation": getattr(m.activation_fn, "__name__", m.activation_fn)} | unusual(False, residual=m.residual)


def _flax_batch_norm(m: Any) -> dict[str, Any]:
    """Return the settings of a batch norm: the running variance of Flax is the biased one."""
    return {"epsilon": m.epsilon, "decay": m.momentum, "unbiased": False} | unusual(-1, axis=m.axis)


def _flax_norm(m: Any) -> dict[str, Any]:
    return {"epsilon": m.epsilon} | unusual(m.feature_axes, reduction_axes=m.reduction_axes)


FLAX: Mapping[str, tuple[str, Read]] = {
    "Dense": ("dense", read()),
    "Linear": ("dense", read()),
    "Conv": ("conv", _flax_conv),
    "ConvTranspose": ("conv_transpose", _flax_conv_transpose),
    "BatchNorm": ("batch_norm", _flax_batch_norm),
    "LayerNorm": ("layer_norm", _flax_norm),
    "GroupNorm": ("group_norm", lambda m: {"epsilon": m.epsilon} | unusual(None, groups=m.num_groups)),
    "InstanceNorm": ("group_norm", read("epsilon")),
    "RMSNorm": ("rms_norm", _flax_norm),
    "Embed": ("embed", read()),
    "PReLU": ("prelu", read()),
    "SimpleCell": ("rnn_cell", _flax_simple_cell),
    "LSTMCell": ("lstm_cell", _flax_cell),
    "OptimizedLSTMCell": ("lstm_cell", _flax_cell),
    "GRUCell": ("gru_cell", lambda m: _flax_cell(m) | {"reset_after": True}),
    "RNN": ("", lambda m: {"reverse": m.reverse} | unusual(True, keep_order=m.keep_order or not m.reverse)),
    "Dropout": ("dropout", read("rate")),
}

_KINDS = {kind for table in (TORCH, FLAX, OTHERS, EQUINOX) for kind, _ in table.values()}
