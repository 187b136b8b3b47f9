"""Weights from Haiku."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.paths import Pattern
from jaxnets.interop.in_order import Network, Theirs, numbered, split_number
from jaxnets.interop.matching import match
from jaxnets.interop.settings import Settings, compare
from jaxnets.interop.spec import Skeleton
from jaxnets.interop.tensors import warn_of_nonfinite

Arrays = Mapping[str, np.ndarray]

_KINDS = {
    "linear": "dense",
    **{f"conv{n}_d": "conv" for n in (1, 2, 3)},
    **{f"depthwise_conv{n}_d": "conv" for n in (1, 2, 3)},
    **{f"conv{n}_d_transpose": "conv_transpose" for n in (1, 2, 3)},
    **{f"{name}_norm": f"{name}_norm" for name in ("batch", "layer", "group", "rms")},
    "instance_norm": "group_norm",
    "embed": "embed",
    "lstm": "lstm_cell",
    "gru": "gru_cell",
    "vanilla_rnn": "rnn_cell",
    "multi_head_attention": "attention",
}
"""The constructor here by the name that Haiku gives a module, without its number."""
_NAMES = {"w": "kernel", "b": "bias", "offset": "bias", "scale": "scale", "embeddings": "embedding"}
_ATTENTION = {"query": "query", "key": "key", "value": "value", "linear": "out"}
_EMA = {"mean_ema": "mean", "var_ema": "var"}


@labeled_as("from_haiku", keep=True)
def from_haiku(
    net: Net,
    params: Mapping[str, Mapping[str, Any]],
    x: Any,
    state: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    fresh: Pattern = (),
    key: Key | None = None,
    dtype: Any = None,
) -> tuple[Params, State]:
    """Return a network's parameters and state with those of its counterpart in Haiku.

    Modules correspond if their paths, without `~`, are equal to ours and no step is a number; those that Haiku named,
    `linear`, `linear_1`, …, if they are of one kind and their arrays have equal shapes, several that are alike in the
    order of their numbers, in which Haiku created them (in `hk.Linear(2)(hk.Linear(8)(x))` the outer one is `linear`).
    Equal modules within different ones need `rename`.

    Layouts change: kernels of transposed convolutions are flipped, with the last two axes swapped. A recurrent module's
    matrix for input and output together becomes two; an LSTM's gates i, g, f, o become i, f, g, o, with the 1 that
    Haiku adds to f in its bias; a GRU's gates z, r, n become r, -z, n, as z = 1 replaces the old output in Haiku
    and keeps it here (the reset is before the product: `jn.gru_cell(features, reset_after=False)`).

    Args:
        net: the network.
        params: from Haiku's `init`, arrays by module and name.
        x: an input or its spec, as for `net.init`.
        state: from `init` of `hk.transform_with_state`, which holds the statistics of batch norms.
        rename: Haiku's paths, `mlp/linear_0`, whole or prefixes before a slash, and the network's to use instead.
        fresh: patterns of paths whose arrays are initialized by `net.init`, as for `from_torch`.
        key: a random key for these.
        dtype: the dtype of floating parameters; default: that of `net.init`.

    Returns:
        `(params, state)`, as from `net.init`.

    Raises:
        NetError: for modules that are missing, unexpected or misshapen, or in an order that is unknown; a batch norm
            without `state`; `fresh` without `key`.

    Warns:
        UserWarning: with the names of modules that hold NaN or infinite numbers.

    >>> import haiku as hk, jax, jax.numpy as jnp, jaxnets as jn
    >>> theirs = hk.transform(lambda x: hk.nets.MLP([8, 2])(x))
    >>> x = jnp.ones((3, 4))
    >>> given = theirs.init(jax.random.key(0), x)  # mlp/~/linear_0 and mlp/~/linear_1
    >>> ours = jn.serial(jn.dense(8), jax.nn.relu, jn.dense(2))
    >>> params, _ = from_haiku(ours, given, x)
    >>> bool(jnp.allclose(ours.apply(params, {}, x)[0], theirs.apply(given, None, x)))
    True
    """
    if not isinstance(params, Mapping) or not all(isinstance(each, Mapping) for each in params.values()):
        raise NetError(f"expects Haiku's params, arrays by module and name, got {type(params).__name__}")
    network = Network(skeleton := Skeleton(net, x))
    drawn = skeleton.matching(fresh, "fresh")
    found = skeleton.draw(drawn, key)
    theirs, order = _layers(params, state or {})
    pairs = match(network, theirs, order, rename=rename or {}, by_name=True, drawn=drawn, read=_of_kind)
    warn_of_nonfinite(((layer.path, each) for _, layer in pairs for each in layer.arrays.values()), "from_haiku")
    compare([(own.path, own.net, layer.settings) for own, layer in pairs if layer.settings], "copy the arrays yourself")
    return network.trees(pairs, found, ({}, {}), dtype)


def _layers(
    params: Mapping[str, Mapping[str, Any]], state: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Theirs], dict[str, dict[str, frozenset[str]]]]:
    """Return the layers by path, and what their numbers say of their order."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    parts: set[str] = set()
    for name, arrays in params.items():
        path = "/".join(step for step in name.split("/") if step != "~")
        above, _, last = path.rpartition("/")
        kind = _KINDS.get(split_number(above.rpartition("/")[2])[0])
        if kind in ("lstm_cell", "rnn_cell", "attention"):  # of several modules
            path, inside = above, f"{last}/"
            parts.add(above)
        else:
            inside = ""
        modules.setdefault(path, {}).update({f"{inside}{each}": np.asarray(array) for each, array in arrays.items()})
    for name, arrays in state.items():
        *above, last = (step for step in name.split("/") if step != "~")
        if last in _EMA and "average" in arrays:
            modules.setdefault("/".join(above), {})[_EMA[last]] = np.asarray(arrays["average"])
    containers: dict[str, dict[str, None]] = {}
    for path in modules:
        steps = path.split("/")
        for depth, step in enumerate(steps):
            containers.setdefault("/".join(steps[:depth]), {})[step] = None
    layers = []
    for path, arrays in modules.items():
        kind = _KINDS.get(split_number(path.rpartition("/")[2])[0], "batch_norm" if "mean" in arrays else "")
        layer = Theirs(path, "", arrays)
        layers.append(_of_kind(layer, kind) if kind else layer)
    return layers, {path: numbered(steps) for path, steps in containers.items()}


def _of_kind(layer: Theirs, kind: str) -> Theirs:
    """Read a module as a layer of a kind."""
    given = layer.arrays
    if kind == "batch_norm" and "mean" not in given:
        raise NetError(f"has a batch norm, {layer.path}, whose statistics are in Haiku's state; pass state=")
    settings = None
    if kind == "lstm_cell":
        arrays = _lstm(given["linear/w"], given["linear/b"])
    elif kind == "gru_cell":
        arrays = {"kernel": _gates(given["w_i"]), "recurrent_kernel": _gates(given["w_h"]), "bias": _gates(given["b"])}
        settings = Settings("gru_cell", {"reset_after": False}, name="GRU")
    elif kind == "rnn_cell":
        biases = [given[name] for name in ("linear/b", "linear_1/b") if name in given]
        arrays = {"kernel": given["linear/w"], "recurrent_kernel": given["linear_1/w"], "bias": _sum(biases)}
        settings = Settings("rnn_cell", {"activation": "relu"}, name="VanillaRNN")
    elif kind == "attention":
        steps = ((*name.split("/"), array) for name, array in given.items())
        arrays = {f"{_ATTENTION[part]}/{_NAMES[name]}": array for part, name, array in steps}
    else:
        arrays = {_NAMES.get(name, name): array for name, array in given.items()}
        if kind.endswith("norm"):  # some have an axis of length 1 for each axis of the input
            arrays = {
                name: array.reshape(-1) if array.size == max(array.shape) else array for name, array in arrays.items()
            }
        if kind == "conv_transpose":
            kernel = np.swapaxes(arrays["kernel"], -1, -2)
            arrays["kernel"] = np.flip(kernel, tuple(range(kernel.ndim - 2)))
    return replace(layer, kind=kind, arrays=arrays, settings=settings)


def _lstm(kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    features = len(bias) // 4

    def moved(array: np.ndarray) -> np.ndarray:
        i, g, f, o = np.split(array, 4, -1)
        return np.concatenate([i, f, g, o], -1)

    forget = np.repeat(np.array([0, 1, 0, 0], bias.dtype), features)
    return {
        "kernel": moved(kernel[:-features]),
        "recurrent_kernel": moved(kernel[-features:]),
        "bias": moved(bias) + forget,
    }


def _gates(array: np.ndarray) -> np.ndarray:
    # In Haiku z = 1 replaces the old output, here it keeps it: 1 - σ(a) = σ(-a).
    z, r, n = np.split(array, 3, -1)
    return np.concatenate([r, -z, n], -1)


def _sum(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.sum(list(arrays), 0)
