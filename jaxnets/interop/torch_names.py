"""PyTorch's names for a network's layers, and PyTorch's layout for their arrays."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.layers import Cell, gru_cell

Arrays = dict[str, Any]
# The order of a layer's features on the first and on the last axis of its arrays, by name: our feature k has index
# `order[k]` in PyTorch. Arrays left out have the same order.
Orders = tuple[Mapping[str, Any], Mapping[str, Any]]
SAME: Orders = ({}, {})

TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
"""timm's names of a VGG's last layers, mapped to torchvision's, which jaxnets uses."""

TIMM_RESNETV2 = {"stem.conv": "conv1", "head.fc": "fc"} | {f"stages.{k}.blocks": f"layer{k + 1}" for k in range(4)}
"""timm's names in a `resnetv2`, mapped to those of jaxnets."""

_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "negative_slope": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclass(frozen=True)
class Layer:
    """A layer of a network, or a network around layers.

    Attributes:
        path: the path of its arrays, `layer1/0/conv1`.
        names: PyTorch's names of the module: several if the layer's arrays are stacked copies.
        stacked: whether its arrays are stacked copies.
        within: its network, or the one that it is a part of, without wrappers such as `remat`.
        net: its network, with wrappers; `None` if it is only a part of one.
        suffix: what PyTorch appends to the names of a recurrent layer's tensors, `_l0_reverse`.
        own: the paths of its arrays by name, `params/fc/kernel`, in PyTorch's order: other parameters, biases, state;
            none if it has children.
    """

    path: str
    names: tuple[str, ...]
    stacked: bool
    within: Net
    net: Net | None
    suffix: str
    own: Mapping[str, str]

    @property
    def kind(self) -> str:
        """The kind of layer."""
        return self.within.kind

    @property
    def cell(self) -> Cell | None:
        """The cell that a recurrent layer runs, if it is one of this library."""
        return cell_of(self.within)


def layers(net: Net, tree: Mapping[str, Any]) -> list[Layer]:
    """Return the layers of a network and the networks around them, each before what it holds.

    Args:
        net: the network.
        tree: the paths of its parameters and state, in one nested dict.

    Raises:
        NetError: for an ensemble, nested copies, or a network cut by `upto`.
    """
    return list(_walk(net, tree, "", ("",), 0, False))


def _walk(
    net: Net, tree: Any, path: str, names: tuple[str, ...], first: int, stacked: bool, suffix: str = "_l0"
) -> Iterator[Layer]:
    wrappers, within = unwrapped(net)
    copying = [name for name in wrappers if name in ("repeat", "ensemble")]
    if tree and ("ensemble" in copying or len(copying) > 1 or (copying and stacked)):
        hint = "convert one copy at a time, and stack the results"
        raise no_counterpart(path, net.label, hint)
    if net.copies:
        # Copies at position k of a `serial` are the modules k, k + 1, …
        names, stacked = tuple(dotted(name, str(first + k)) for name in names for k in range(net.copies)), True
    if not net.children:
        for inside, arrays in _modules(tree) or [("", {})]:
            own = tuple(dotted(name, inside.replace("/", ".")) for name in names)
            yield Layer(slashed(path, inside), own, stacked, within, None if inside else net, suffix, arrays)
        return
    yield Layer(path, names, stacked, within, net, suffix, {})
    if left_out := [name for name in tree if name not in net.children]:
        hint = "convert the whole network, which has the same parameters"
        raise NetError(f"leaves out {', '.join(left_out)}; {hint}", label=net.label)
    inner = {name: child for name, child in net.children.items() if tree.get(name)}
    both_ways = all(unwrapped(child)[1].kind == "bidirectional" and name.isdigit() for name, child in inner.items())
    # Copies before a numbered child shift its number.
    shift = 0
    for place, (name, child) in enumerate(net.children.items()):
        numbered = name.isdigit()
        shown = str(int(name) + shift) if numbered else name
        own, start, ending = tuple(dotted(each, shown) for each in names), 0, "_l0"
        if within.kind == "recurrent":
            own, ending = names, f"_l{place}"
        elif within.kind == "bidirectional" and not numbered:
            own, ending = names, suffix + ("_reverse" if name == "backward" else "")
        elif both_ways and len(inner) > 1 and name in inner:
            own, ending = names, f"_l{list(inner).index(name)}"
        elif child.copies and numbered:
            own, start = names, int(shown)
        yield from _walk(child, tree.get(name, {}), slashed(path, name), own, start, stacked, ending)
        shift += child.copies - 1 if child.copies and numbered else 0


def to_tensors(layer: Layer, arrays: Arrays, orders: Orders = SAME) -> Arrays:
    """Return one copy's arrays as PyTorch's tensors, by their names inside the module.

    Args:
        layer: the layer.
        arrays: its arrays by name, without an axis of copies; may be a part of them.
        orders: the orders of its features in PyTorch.

    Raises:
        NetError: for an array that PyTorch's layer does not have.
    """
    if layer.cell is not None:
        return _cell_to_tensors(layer, layer.cell, arrays)
    if layer.net is not None and {"weight_norm", "spectral_norm"} & {*unwrapped(layer.net)[0]}:
        raise no_counterpart(layer.path, layer.net.label)
    if layer.kind == "layer_scale":
        # In torchvision it is a parameter of the block, with channels first.
        return {"": np.reshape(arrays["scale"], (-1, 1, 1))} if arrays else {}
    tensors = {}
    for name, array in arrays.items():
        for order, axis in zip(orders, (0, -1)):
            # Feature k moves to index `order[k]`.
            array = np.take(array, np.argsort(order[name]), axis) if name in order else array
        tensors[_NAMES.get(name, name)] = np.moveaxis(array, *_axes(layer, name, np.ndim(array)))
    if "mean" in arrays and "var" in arrays:
        tensors["num_batches_tracked"] = np.zeros((), np.int64)
    return tensors


def to_arrays(layer: Layer, tensors: Arrays, names: Iterable[str], orders: Orders = SAME) -> Arrays:
    """Return one copy's arrays from PyTorch's tensors, the inverse of `to_tensors`.

    Args:
        layer: the layer.
        tensors: PyTorch's tensors by their names inside the module.
        names: the names of the arrays to return.
        orders: the orders of its features in PyTorch.
    """
    if layer.cell is not None:
        return _cell_to_arrays(layer, layer.cell, tensors, names)
    if layer.kind == "layer_scale":
        return {name: tensors[""].ravel() for name in names}
    arrays = {}
    for name in names:
        array = tensors[_NAMES.get(name, name)]
        array = np.moveaxis(array, *reversed(_axes(layer, name, array.ndim)))
        for order, axis in zip(orders, (0, -1)):
            array = np.take(array, order[name], axis) if name in order else array
        arrays[name] = array
    return arrays


def _axes(layer: Layer, name: str, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes of our array that are moved in PyTorch's tensor, and where to."""
    if name == "kernel":
        if layer.kind == "maxout":
            raise no_counterpart(layer.path, layer.within.label)
        return ((-2, -1), (0, 1)) if layer.kind == "conv_transpose" else ((-1, -2), (0, 1))
    # A layer norm over a whole feature map.
    return ((-1,), (0,)) if name in ("scale", "bias") and rank > 2 else ((), ())


def _cell_to_tensors(layer: Layer, cell: Cell, arrays: Arrays) -> Arrays:
    """Return a cell's tensors. PyTorch's second bias is zero, except for a GRU's recurrent bias."""
    if not cell.arguments.get("reset_after", True) or "peephole" in arrays:
        raise no_counterpart(layer.path, layer.within.label)
    tensors = {}
    for name, array in arrays.items():
        if name == "bias":
            second = np.zeros_like(array)
            if "recurrent_bias" in arrays:
                second[-np.shape(arrays["recurrent_bias"])[0] :] = arrays["recurrent_bias"]
            tensors |= {"bias_ih": array, "bias_hh": second}
        elif name != "recurrent_bias":
            tensors["weight_hh" if name == "recurrent_kernel" else "weight_ih"] = np.swapaxes(array, 0, 1)
    return {name + layer.suffix: tensor for name, tensor in tensors.items()}


def _cell_to_arrays(layer: Layer, cell: Cell, tensors: Arrays, names: Iterable[str]) -> Arrays:
    arrays = {}
    for name in names:
        if name in ("kernel", "recurrent_kernel"):
            arrays[name] = tensors[("weight_ih" if name == "kernel" else "weight_hh") + layer.suffix].T
            continue
        first, second = tensors["bias_ih" + layer.suffix], tensors["bias_hh" + layer.suffix]
        if cell.constructor is gru_cell:
            new = first.shape[0] // 3
            if name == "recurrent_bias":
                arrays[name] = second[-new:]
                continue
            second = np.concatenate([second[:-new], np.zeros_like(second[-new:])])
        # Where the second is zero, keep the first, as -0 + 0 would be 0.
        arrays[name] = np.where(second == 0, first, first + second)
    return arrays


def unwrapped(net: Net) -> tuple[list[str], Net]:
    """Return the kinds of the wrappers around a network, outermost first, and the network inside."""
    wrappers = []
    while net.inner is not None:
        wrappers.append(net.kind)
        net = net.inner
    return wrappers, net


def cell_of(net: Net) -> Cell | None:
    """Return the cell that a recurrent layer runs, if it is one of this library, otherwise `None`."""
    cells = () if net.children else net.arguments.get("cells", ())
    return cells[0] if len(cells) == 1 and cells[0].constructor is not None else None


def _modules(tree: Mapping[str, Any], inside: str = "") -> list[tuple[str, dict[str, str]]]:
    """Return the places inside a layer that hold arrays, "" for the layer itself, each with its paths by name."""
    own = {name: leaf for name, leaf in tree.items() if isinstance(leaf, str)}
    own = dict(sorted(own.items(), key=lambda item: (item[1].startswith("state/"), "bias" in item[0])))
    found = [(inside, own)] if own else []
    for name, inner in tree.items():
        found += _modules(inner, slashed(inside, name)) if isinstance(inner, Mapping) else []
    return found


def no_counterpart(
    path: str, label: str, hint: str = "convert the other layers, and this one yourself", where: str = "PyTorch"
) -> NetError:
    """Return the error for a layer that another library does not have."""
    error = NetError(f"has no counterpart in {where}; {hint}", label=label)
    error.path = tuple(path.split("/")) if path else ()
    return error


def dotted(name: str, inside: str) -> str:
    """Join two of PyTorch's names, either of which may be empty."""
    return f"{name}.{inside}" if name and inside else name or inside


def slashed(path: str, inside: str) -> str:
    """Join two paths, either of which may be empty."""
    return f"{path}/{inside}" if path and inside else path or inside
