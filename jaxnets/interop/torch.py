"""Weights from PyTorch and back: every tensor once, under its name, in its layout."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.paths import Pattern, matches
from jaxnets.interop.channel_order import feature_orders
from jaxnets.interop.settings import compare
from jaxnets.interop.spec import Skeleton, flat
from jaxnets.interop.tensors import (
    Tensors,
    modules_of,
    read_tensors,
    renamed,
    shortened,
    warn_of_not_finite,
    without_wrappers,
)
from jaxnets.interop.torch_names import Arrays, Order, to_arrays, to_tensors

_COUNT = "num_batches_tracked"


def from_torch(
    net: Net,
    source: Mapping[str, Any] | str | Path,
    x: Any,
    *,
    fresh: Pattern = (),
    key: Key | None = None,
    rename: Mapping[str, str] | None = None,
    ignore: Pattern = (),
    dtype: Any = None,
) -> tuple[Params, State]:
    """Return a network's parameters and state with the weights of its counterpart in PyTorch.

    Modules have the same names, `layer1.0.conv1` for `layer1/0/conv1`, numbered in a `jn.serial` of positional
    layers as in `torch.nn.Sequential`. A `jn.repeat` at place k of such a `serial` stands for the modules k, k+1, …
    Every tensor is used once, or the call fails with one list of what is missing, unexpected or misshapen. Only
    batch norm's `num_batches_tracked` is dropped.

    Layouts change: kernels from (out, in, *spatial) to (*spatial, in, out), matrices from (out, in) to (in, out).
    Where a map was flattened, the features behind it move from channels first to channels last. The network's
    own program tells where; so do `unflatten` and batch norm on such features. A matrix may come as the kernel of
    a convolution over a whole map. PyTorch's two biases of an LSTM or RNN are added; `weight_ih_l0`,
    `weight_ih_l1_reverse` and so on are those of the layers of one `jn.recurrent`, one `jn.bidirectional`, or a
    `jn.serial` of the latter.

    Args:
        net: the network.
        source: a state dict (of tensors or NumPy arrays), a module, or a path: of a `.safetensors` file,
            of a `.safetensors.index.json` with its parts beside it, or of any file that
            `torch.load(weights_only=True)` reads. What `torch.compile`, `DataParallel` and FSDP put into the names,
            `_orig_mod.module.`, is dropped. Of a module the settings that weights do not show (ε, momentum, padding,
            activation, …) are compared with those of the network's layers of the same names.
        x: an input or its spec, as for `net.init`.
        fresh: patterns of paths, `"fc/**"`, whose arrays are drawn anew by `net.init`; their tensors are left out,
            whatever their shapes. So another number of classes is asked for.
        key: a random key for these.
        rename: names in `source` and the network's names in place of them, both as PyTorch writes them, whole or up to
            a dot: `{"head.fc": "fc"}`, or `jn.interop.TIMM_VGG`.
        ignore: patterns of names to leave out, with slashes for dots: `"aux*/**"`.
        dtype: of floating parameters, if not the one that `net.init` gives. State keeps its own.

    Returns:
        `(params, state)`, as `net.init` gives them.

    Raises:
        NetError: for tensors missing, unexpected or misshapen; settings other than the module's; a file that is
            truncated, corrupt or holds more than tensors; a layer without a counterpart; a pattern or a name that
            matches nothing; `fresh` without `key`.
        FileNotFoundError: if there is no such file.

    Warns:
        UserWarning: with the names of tensors that hold NaN or infinite numbers.

    >>> import jax, jax.numpy as jnp, numpy as np, jaxnets as jn
    >>> net, x = jn.serial(fc=jn.dense(3)), jnp.ones((1, 4))
    >>> state_dict = {"fc.weight": np.ones((3, 4), np.float32), "fc.bias": np.zeros(3, np.float32)}
    >>> params, state = from_torch(net, state_dict, x)
    >>> params["fc"]["kernel"].shape
    (4, 3)
    >>> seven = jn.serial(fc=jn.dense(7))
    >>> params, state = from_torch(seven, state_dict, x, fresh="fc/**", key=jax.random.key(0))
    >>> params["fc"]["bias"].shape
    (7,)
    """
    tensors = without_wrappers(read_tensors(source, "from_torch"), net.children, "from_torch")
    tensors = _without(renamed(tensors, rename or {}, ".", "from_torch"), ignore)
    skeleton = Skeleton(net, x)
    drawn = skeleton.matching(fresh, "fresh")
    found = skeleton.draw(drawn, key)
    wanted, spare = _wanted(skeleton, drawn)
    tensors = {
        name: _reshaped(tensor, wanted[name][0]) if name in wanted else tensor
        for name, tensor in tensors.items()
        if name not in spare
    }
    _compare(wanted, tensors)
    modules = modules_of(source, net.children, rename or {})
    named = [(layer, modules[name]) for layer in skeleton.every_layer for name in layer.names if name in modules]
    compare(
        "from_torch",
        [(layer.path, layer.net, module) for layer, module in named if layer.net is not None],
        "pass module.state_dict(), which is taken as it is",
    )
    warn_of_not_finite(tensors.items(), "from_torch")
    orders = _orders(skeleton)
    for layer in skeleton.layers:
        own = {name: path for name, path in skeleton.own(layer).items() if path not in drawn}
        copies = []
        for module in layer.names:
            prefix = _dotted(module, "")
            here = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
            copies.append(to_arrays(layer, here, own, orders[layer.path]))
        for name, path in own.items():
            found[path] = np.stack([copy[name] for copy in copies]) if layer.stacked else copies[0][name]
    return skeleton.trees(found, dtype)


def to_torch(
    net: Net, params: Params, state: State, x: Any, *, rename: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Return a network's parameters and state as the state dict of its counterpart in PyTorch.

    It undoes `from_torch` to the bit, and `load_state_dict` takes it once each array went through
    `torch.from_numpy`. Of the two biases of a recurrent layer PyTorch's second one is zero where one will do, and batch
    norm's `num_batches_tracked`, which counts steps that nobody counted here, is 0.

    Args:
        net: the network.
        params: its parameters.
        state: its state.
        x: an input or its spec, as for `net.init`.
        rename: as for `from_torch`: the same argument gives back the names that came.

    Returns:
        Contiguous NumPy arrays by PyTorch's names, in the dtypes they had.

    Raises:
        NetError: for parameters or state of another network, or a layer without a counterpart.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.serial(jn.conv(6, 5), jn.batch_norm()), jnp.ones((1, 8, 8, 3))
    >>> state_dict = to_torch(net, *net.init(jax.random.key(0), x), x)
    >>> list(state_dict)
    ['0.weight', '0.bias', '1.weight', '1.bias', '1.running_mean', '1.running_var', '1.num_batches_tracked']
    >>> state_dict["0.weight"].shape
    (6, 3, 5, 5)
    """
    skeleton = Skeleton(net, x)
    given = flat(params, state)
    differing = [
        path for path, spec in skeleton.specs.items() if path not in given or np.shape(given[path]) != spec.shape
    ]
    if differing := [*differing, *(path for path in given if path not in skeleton.specs)]:
        raise NetError(f"gets arrays of another net: {shortened(differing)}", label="to_torch")
    orders = _orders(skeleton)
    tensors: Tensors = {}
    for layer in skeleton.layers:
        arrays = {name: np.asarray(given[path]) for name, path in skeleton.own(layer).items()}
        for k, module in enumerate(layer.names):
            copy = {name: array[k] if layer.stacked else array for name, array in arrays.items()}
            for name, tensor in to_tensors(layer, copy, orders[layer.path]).items():
                tensors[_dotted(module, name)] = np.array(tensor, order="C")
    return renamed(tensors, {own: name for name, own in (rename or {}).items()}, ".", "to_torch")


def _wanted(skeleton: Skeleton, drawn: set[str]) -> tuple[dict[str, tuple[tuple[int, ...], str]], set[str]]:
    """Return shape and layer by name of the tensors wanted, and the names of those that may come and are not."""
    wanted, spare = {}, set()
    for layer in skeleton.layers:
        own = skeleton.own(layer)
        blank: Arrays = {  # of no memory
            name: np.broadcast_to(np.zeros((), bool), skeleton.specs[path].shape[layer.stacked :])
            for name, path in own.items()
        }
        every = to_tensors(layer, blank)
        here = to_tensors(layer, {name: array for name, array in blank.items() if own[name] not in drawn})
        here.pop(_COUNT, None)
        for module in layer.names:
            wanted |= {_dotted(module, name): (tensor.shape, layer.path) for name, tensor in here.items()}
            spare |= {_dotted(module, name) for name in every if name not in here}
    return wanted, spare


def _compare(wanted: Mapping[str, tuple[tuple[int, ...], str]], tensors: Tensors) -> None:
    """Check that the tensors are those wanted, in number and shape."""
    misshapen = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name][0]]
    lists = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "misshapen": [f"{name} {tensors[name].shape} for {wanted[name][0]}" for name in misshapen],
    }
    if not any(lists.values()):
        return
    hint = "take the weights of the same network, or say how they differ by rename= or ignore="
    if not lists["missing"] and not lists["unexpected"]:
        where = list(dict.fromkeys(f'"{wanted[name][1]}/**"'.replace('"/', '"') for name in misshapen))
        pattern = where[0] if len(where) == 1 else f"({', '.join(where)})"
        hint = f"where another number of classes is meant, pass fresh={pattern}, key=key"
    found = "; ".join(f"{kind} {shortened(names)}" for kind, names in lists.items() if names)
    raise NetError(f"finds other tensors than the network has: {found}; {hint}", label="from_torch")


def _orders(skeleton: Skeleton) -> dict[str, Order]:
    """Return by layer where features stand in PyTorch."""
    convolved, own = set(), {layer.path: skeleton.own(layer) for layer in skeleton.layers}
    for layer in skeleton.layers:
        kernel = own[layer.path].get("kernel", "")
        if kernel and len(skeleton.specs[kernel].shape) - layer.stacked > 2:
            convolved.add(kernel)
    first, last = feature_orders(skeleton.net, skeleton.params, skeleton.state, skeleton.x, frozenset(convolved))
    return {
        layer: Order(
            first.get(names.get("kernel", "")), {name: last[path] for name, path in names.items() if path in last}
        )
        for layer, names in own.items()
    }


def _without(tensors: Tensors, ignore: Pattern) -> Tensors:
    slashed = {name: name.replace(".", "/") for name in tensors}
    for each in [ignore] if isinstance(ignore, str) else ignore:
        if not any(matches(each, path) for path in slashed.values()):
            raise NetError(f"matches no tensor; there are: {shortened(list(tensors))}", label=f"ignore={each!r}")
    return {name: tensor for name, tensor in tensors.items() if not matches(ignore, slashed[name])}


def _reshaped(tensor: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Take a convolution over a whole map for a matrix, and a matrix for a convolution over one place."""
    same = tensor.shape[:1] == wanted[:1] and tensor.size == math.prod(wanted)
    return tensor.reshape(wanted) if same and 2 in (tensor.ndim, len(wanted)) else tensor


def _dotted(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name
