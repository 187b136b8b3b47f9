"""A network's layers under PyTorch's names, and each layer's arrays in PyTorch's layout."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.net import Net
from jaxnets.layers import Cell, gru_cell

Arrays = dict[str, Any]

TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
"""timm's names of a VGG's last layers, and torchvision's, which are ours."""

TIMM_RESNETV2 = {"stem.conv": "conv1", "head.fc": "fc"} | {f"stages.{k}.blocks": f"layer{k + 1}" for k in range(4)}
"""timm's names in a `resnetv2`, and ours."""

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
    """A layer with parameters or state of its own.

    Attributes:
        path: where its arrays are, `layer1/0/conv1`.
        names: PyTorch's names of the module: several where the layer's arrays are stacked copies.
        stacked: whether they are.
        within: the network that it is, or is a part of, without `remat` and the like around it.
        net: the network it is, as it stands there; `None` for a part of one.
        suffix: what PyTorch appends to the names of a recurrent layer's tensors, `_l0_reverse`.
        bare: whether it has neither parameters nor state.
    """

    path: str
    names: tuple[str, ...]
    stacked: bool
    within: Net
    net: Net | None
    suffix: str = "_l0"
    bare: bool = False

    @property
    def kind(self) -> str:
        """What sort of layer it is."""
        return self.within.kind

    @property
    def cell(self) -> Cell | None:
        """The cell of the library's that it runs along time, if it does."""
        return cell_of(self.within)


class Order(NamedTuple):
    """Where a layer's features stand in PyTorch: feature k at `order[k]`.

    Attributes:
        first: on the first axis of its kernel; `None` for where they stand here.
        last: on the last axis of its arrays, by name; those left out stand as they do here.
    """

    first: Any = None
    last: Mapping[str, Any] = {}


def layers(net: Net, tree: Mapping[str, Any]) -> list[Layer]:
    """Return the layers of a network, in the order of the network.

    Args:
        net: the network.
        tree: its parameters and state in one, nested dicts.

    Raises:
        NetError: for an ensemble, copies of copies, or a network that `upto` has cut.
    """
    return list(_walk(net, tree, "", ("",), 0, False))


def _walk(
    net: Net, tree: Any, path: str, names: tuple[str, ...], first: int, stacked: bool, suffix: str = "_l0"
) -> Iterator[Layer]:
    wrappers, within = unwrapped(net)
    copying = [name for name in wrappers if name in ("repeat", "ensemble")]
    if tree and ("ensemble" in copying or len(copying) > 1 or (copying and stacked)):
        hint = "convert one member or one copy at a time, and stack them"
        raise _no_counterpart(path, net.label, hint)
    if net.copies:
        names, stacked = tuple(_join(name, str(first + k)) for name in names for k in range(net.copies)), True
    if not net.children:
        for inside in _modules(tree) or [""]:
            own = tuple(_join(name, inside.replace("/", ".")) for name in names)
            yield Layer(slashed(path, inside), own, stacked, within, None if inside else net, suffix, not tree)
        return
    if left_out := [name for name in tree if name not in net.children]:
        hint = "convert the whole network, whose parameters are the same"
        raise NetError(f"leaves out {', '.join(left_out)}; {hint}", label=net.label)
    inner = {name: child for name, child in net.children.items() if tree.get(name)}
    both_ways = all(unwrapped(child)[1].kind == "bidirectional" and name.isdigit() for name, child in inner.items())
    shift = 0
    for place, (name, child) in enumerate(net.children.items()):
        numbered = name.isdigit()
        shown = str(int(name) + shift) if numbered else name
        own, start, ending = tuple(_join(each, shown) for each in names), 0, "_l0"
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


def to_tensors(layer: Layer, arrays: Arrays, order: Order = Order()) -> Arrays:
    """Return one copy's arrays as PyTorch's tensors, by the names behind the module's.

    Args:
        layer: the layer.
        arrays: its arrays by name, without an axis of copies; those left out give no tensors.
        order: where its features stand in PyTorch.

    Raises:
        NetError: for an array that PyTorch's layer does not have.
    """
    if layer.cell is not None:
        return _cell_to_tensors(layer, layer.cell, arrays)
    tensors = {}
    for name, array in arrays.items():
        if name == "kernel":
            array = _placed(_placed(array, order.first, 0), order.last.get(name), -1)
            array = np.moveaxis(array, *_kernel_axes(layer))
        elif name in order.last:
            array = _placed(array, order.last[name], -1)
        elif name in ("scale", "bias") and np.ndim(array) > 2:  # a layer norm over whole maps
            array = np.moveaxis(array, -1, 0)
        tensors[_NAMES.get(name, name)] = array
    if "mean" in arrays and "var" in arrays:
        tensors["num_batches_tracked"] = np.zeros((), np.int64)
    return tensors


def to_arrays(layer: Layer, tensors: Arrays, like: Arrays, order: Order = Order()) -> Arrays:
    """Return one copy's arrays from PyTorch's tensors, the inverse of `to_tensors`.

    Args:
        layer: the layer.
        tensors: PyTorch's tensors by the names behind the module's.
        like: the specs of the arrays wanted, by name.
        order: where its features stand in PyTorch.
    """
    if layer.cell is not None:
        return _cell_to_arrays(layer, layer.cell, tensors, like)
    arrays = {}
    for name in like:
        array = tensors[_NAMES.get(name, name)]
        if name == "kernel":
            array = np.moveaxis(array, *reversed(_kernel_axes(layer)))
            array = array if order.first is None else np.take(array, order.first, 0)
        elif name in ("scale", "bias") and array.ndim > 2:
            array = np.moveaxis(array, 0, -1)
        arrays[name] = np.take(array, order.last[name], -1) if name in order.last else array
    return arrays


def _kernel_axes(layer: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return which axes of our kernel are the first two of PyTorch's weight."""
    if layer.kind == "maxout":
        raise _no_counterpart(layer.path, layer.within.label)
    return ((-2, -1), (0, 1)) if layer.kind == "conv_transpose" else ((-1, -2), (0, 1))


def _placed(array: Any, order: Any, axis: int) -> Any:
    """Put feature k of an axis to the place `order[k]`."""
    return array if order is None else np.take(array, np.argsort(order), axis)


def _cell_to_tensors(layer: Layer, cell: Cell, arrays: Arrays) -> Arrays:
    """Split the biases: PyTorch's second one is zero, but for what a GRU's reset gate acts on."""
    if not cell.arguments.get("reset_after", True) or "peephole" in arrays:
        raise _no_counterpart(layer.path, layer.within.label)
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


def _cell_to_arrays(layer: Layer, cell: Cell, tensors: Arrays, like: Arrays) -> Arrays:
    arrays = {}
    for name in like:
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
        arrays[name] = np.where(second == 0, first, first + second)  # -0 + 0 would be 0
    return arrays


def unwrapped(net: Net) -> tuple[list[str], Net]:
    """Return the kinds of what is wrapped around a network, outermost first, and the network inside."""
    wrappers = []
    while net.inner is not None:
        wrappers.append(net.kind)
        net = net.inner
    return wrappers, net


def cell_of(net: Net) -> Cell | None:
    """Return the cell that a network without children runs along time, where it is one of the library's."""
    cells = () if net.children else net.arguments.get("cells", ())
    return cells[0] if len(cells) == 1 and cells[0].constructor is not None else None


def _modules(tree: Mapping[str, Any]) -> list[str]:
    """Return the paths in a layer at which arrays are, "" for its own."""
    found = []
    if any(not isinstance(leaf, Mapping) for leaf in tree.values()):
        found.append("")
    for name, inner in tree.items():
        if isinstance(inner, Mapping):
            found += [slashed(name, inside) for inside in _modules(inner)]
    return found


def _no_counterpart(path: str, label: str, hint: str = "convert all else around it, and this by hand") -> NetError:
    error = NetError(f"has no counterpart in PyTorch; {hint}", label=label)
    error.path = tuple(path.split("/")) if path else ()
    return error


def _join(name: str, inside: str) -> str:
    return f"{name}.{inside}" if name and inside else name or inside


def slashed(path: str, inside: str) -> str:
    """Join two paths, either of which may be empty."""
    return f"{path}/{inside}" if path and inside else path or inside
