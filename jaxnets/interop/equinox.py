"""Weights from modules of Equinox."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.foreign import library
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.paths import Pattern
from jaxnets.interop.equinox_settings import EQUINOX
from jaxnets.interop.in_order import Network, Theirs, in_turn
from jaxnets.interop.matching import match, unweighted
from jaxnets.interop.settings import compare, theirs_of
from jaxnets.interop.spec import Skeleton
from jaxnets.interop.tensors import warn_of_nonfinite
from jaxnets.interop.torch_names import slashed

_NAMES = {
    "weight_ih": "kernel",
    "weight_hh": "recurrent_kernel",
    "bias": "bias",
    "bias_n": "recurrent_bias",
    "negative_slope": "negative_slope",
}
_ATTENTION = {"query": "query_proj", "key": "key_proj", "value": "value_proj", "out": "output_proj"}
_KERNELS = ("dense", "conv", "conv_transpose")


@labeled_as("from_equinox", keep=True)
def from_equinox(
    net: Net,
    module: Any,
    x: Any,
    *,
    state: Any = None,
    rename: Mapping[str, str] | None = None,
    fresh: Pattern = (),
    key: Key | None = None,
    dtype: Any = None,
) -> tuple[Params, State]:
    """Return a network's parameters and state with the arrays of its counterpart in Equinox.

    Layers correspond if their paths are equal and hold no numbers, `conv1` or `encoder/norm`; the others if they are of
    one kind and their arrays have equal shapes, several that are alike in the order of the list or `Sequential` that
    they are in. The order of a module's fields says nothing about that of its calls, so equal layers in different
    fields need `rename`, unless they have our names. Settings that arrays do not contain (ε, padding, …) are compared.

    Layouts change: matrices from (out, in) to (in, out), kernels from (out, in, *spatial) to (*spatial, in, out), those
    of transposed convolutions are flipped too. Where a feature map was flattened, its features move from channels first
    to channels last, in all layers that act on them.

    Args:
        net: the network.
        module: the module. Cells are layers of a `jn.recurrent`.
        x: an input of `net` or its spec, as for `net.init`.
        state: the `equinox.nn.State` of the module, which holds the statistics of batch norms.
        rename: the module's paths, `layers/0`, whole or prefixes before a slash, and the network's to use instead.
        fresh: patterns of paths whose arrays are initialized by `net.init`, as for `from_torch`.
        key: a random key for these.
        dtype: the dtype of floating parameters; default: that of `net.init`.

    Returns:
        `(params, state)`, as from `net.init`.

    Raises:
        NetError: for layers that are missing, unexpected or misshapen, or in an order that differs or is unknown;
            settings other than the module's; a batch norm without `state`; `fresh` without `key`.

    Warns:
        UserWarning: with the names of layers that hold NaN or infinite numbers.

    >>> import equinox as eqx, jax, jax.numpy as jnp, jaxnets as jn
    >>> theirs = eqx.nn.MLP(4, 2, width_size=8, depth=1, key=jax.random.key(0))
    >>> ours, x = jn.serial(jn.dense(8), jax.nn.relu, jn.dense(2)), jnp.ones((3, 4))
    >>> params, state = from_equinox(ours, theirs, x)
    >>> bool(jnp.allclose(ours.apply(params, state, x)[0], jax.vmap(theirs)(x)))
    True
    """
    if library(module) != "equinox":
        raise NetError(f"expects a module of Equinox, got {type(module).__name__}")
    network = Network(skeleton := Skeleton(net, x))
    drawn = skeleton.matching(fresh, "fresh")
    found = skeleton.draw(drawn, key)
    order: dict[str, Mapping[str, frozenset[str]]] = {}
    theirs, bare = [], []
    for path, part in _parts(module, "", order):
        if (settings := theirs_of(part)) is None:
            continue
        settings = replace(settings, name=type(part).__name__)
        arrays = _arrays(part, settings.kind, state)
        if arrays:
            theirs.append(Theirs(path, settings.kind, arrays, settings))
        else:
            bare.append(settings)
    pairs = match(network, theirs, order, rename=rename or {}, by_name=True, drawn=drawn)
    warn_of_nonfinite(((layer.path, each) for _, layer in pairs for each in layer.arrays.values()), "from_equinox")
    settled = [(own.path, own.net, layer.settings) for own, layer in pairs]
    compare([*settled, *unweighted(network, bare, pools=False)], "copy the arrays yourself")
    return network.trees(pairs, found, skeleton.orders, dtype)


def _parts(module: Any, path: str, order: dict[str, Mapping[str, frozenset[str]]]) -> Iterator[tuple[str, Any]]:
    """Yield the layers in a module by path, and note the order of those in lists."""
    if type(module).__name__ in EQUINOX and library(module) == "equinox":
        yield path, module
        return
    if isinstance(module, Mapping):
        inside = {str(name): each for name, each in module.items()}
    elif isinstance(module, list | tuple):
        inside = {str(place): each for place, each in enumerate(module)}
        order[path] = in_turn(inside)
    elif library(module) == "equinox":
        inside = vars(module)
    else:
        return
    for name, each in inside.items():
        yield from _parts(each, slashed(path, name), order)


def _arrays(module: Any, kind: str, state: Any) -> dict[str, np.ndarray]:
    """Return a layer's arrays in our layout."""
    if kind == "attention":
        parts = {own: _arrays(getattr(module, its), "dense", state) for own, its in _ATTENTION.items()}
        return {f"{own}/{name}": array for own, each in parts.items() for name, array in each.items()}
    weight = "embedding" if kind == "embed" else "kernel" if kind in _KERNELS else "scale"
    fields = {name: value for name, value in vars(module).items() if hasattr(value, "shape") and value is not None}
    found = {own: np.asarray(fields[its]) for its, own in {**_NAMES, "weight": weight}.items() if its in fields}
    for name, array in found.items():
        if name == "recurrent_kernel" or (kind in ("dense", "lstm_cell", "gru_cell") and array.ndim == 2):
            found[name] = array.T
        elif name == "kernel":
            array = np.moveaxis(array, (0, 1), (-1, -2))
            found[name] = np.flip(array, tuple(range(array.ndim - 2))) if kind == "conv_transpose" else array
        elif kind in ("conv", "conv_transpose"):
            found[name] = array.ravel()
        elif array.ndim > 1 and name != "embedding":  # a layer norm over a whole map, with channels first
            found[name] = np.moveaxis(array, 0, -1)
    if kind == "batch_norm":
        if state is None:
            raise NetError("has a BatchNorm, whose statistics are in the module's state; pass state=")
        found |= dict(zip(("mean", "var"), _statistics(module, state)))
    return found


def _statistics(module: Any, state: Any) -> list[np.ndarray]:
    """Return the mean and the variance that a batch norm uses in evaluation."""
    if module.mode == "ema":
        return [np.asarray(each) for each in state.get(module.ema_state_index)]
    count = int(state.get(module.batch_counter))
    scale = 1.0 if count == 0 else 1 - module.momentum**count
    return [np.asarray(each) / np.float32(scale) for each in state.get(module.batch_state_index)]
