"""Weights from PyTorch and back, tensor by tensor."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.paths import Pattern, matches
from jaxnets.interop.families import FAMILIES
from jaxnets.interop.published import PARTS, Published, detected, usual
from jaxnets.interop.settings import compare, torch_modules
from jaxnets.interop.spec import Skeleton, flat
from jaxnets.interop.tensors import (
    Tensors,
    modules_renamed,
    read_tensors,
    renamed,
    shortened,
    warn_of_nonfinite,
    without_wrappers,
)
from jaxnets.interop.torch_names import Arrays, Layer, Orders, dotted, to_arrays, to_tensors

_COUNT = "num_batches_tracked"


@labeled_as("from_torch", keep=True)
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

    Modules correspond by name: `layer1.0.conv1` is `layer1/0/conv1`, and positional layers of a `jn.serial` are
    numbered as in `torch.nn.Sequential`. A `jn.repeat` at position k of such a `serial` is the modules k, k+1, …
    Every tensor must be used once; otherwise the error lists all that are missing, unexpected or misshapen. Only
    batch norm's `num_batches_tracked` is dropped.

    Attention and blocks of transformers have the names, the fused projections and the layouts of the source that most
    of the tensors' names agree with, one of those listed for `names` of `to_torch`; so have whole models from there.

    Layouts change: kernels from (out, in, *spatial) to (*spatial, in, out), matrices from (out, in) to (in, out).
    Where a feature map was flattened, its features move from channels first to channels last, in all layers that act on
    them, including `unflatten` and batch norm; these layers are found by the network's jaxpr. A matrix may be given as
    the kernel of a convolution over a whole map. PyTorch's two biases of an LSTM or RNN are added; `weight_ih_l0`,
    `weight_ih_l1_reverse` and so on belong to the layers of one `jn.recurrent`, one `jn.bidirectional`, or a
    `jn.serial` of the latter.

    Args:
        net: the network.
        source: a state dict (of tensors or NumPy arrays), a module, or a path: of a `.safetensors` file,
            of a `.safetensors.index.json` with its parts in the same folder, or of any file that
            `torch.load(weights_only=True)` reads. Names that `torch.compile`, `DataParallel` and FSDP insert,
            `_orig_mod.module.`, are dropped. If it is a module, those of its settings that weights do not contain (ε,
            momentum, padding, activation, …) are compared with those of the network's layers.
        x: an input or its spec, as for `net.init`.
        fresh: patterns of paths, `"fc/**"`, whose arrays are initialized by `net.init`; their tensors are ignored,
            whatever their shapes. Use it for another number of classes.
        key: a random key for these.
        rename: names in `source`, and the names to use instead, both in PyTorch's form, whole or prefixes before a dot:
            `{"head.fc": "fc"}`, or `jn.interop.TIMM_VGG`.
        ignore: patterns of names to leave out, with slashes for dots: `"aux*/**"`.
        dtype: the dtype of floating parameters; default: that of `net.init`. State keeps its own.

    Returns:
        `(params, state)`, as from `net.init`.

    Raises:
        NetError: for tensors that are missing, unexpected or misshapen, or differ from those that they should repeat;
            settings other than the module's; a file that is truncated, corrupt or holds more than tensors; a layer
            without a counterpart; a pattern or a name that matches nothing; `fresh` without `key`.
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
    tensors = without_wrappers(read_tensors(source).items(), net.children)
    tensors = _without(renamed(tensors, rename or {}, "."), ignore)
    skeleton = Skeleton(net, x)
    drawn = skeleton.matching(fresh, "fresh")
    found = skeleton.draw(drawn, key)
    shapes, places = _expected(skeleton, drawn)
    published = detected(skeleton.nets, shapes, tensors)
    wanted = {
        name: (tensor.shape, where[0])
        for name, tensor in published.tensors.items()
        if (where := [places[part] for part in tensor.parts if part in places])
    }
    tensors = {
        name: _reshaped(tensor, wanted[name][0]) if name in wanted else tensor
        for name, tensor in published.read(tensors).items()
        if name in wanted or name not in published.tensors
    }
    _compare(wanted, tensors)
    modules = modules_renamed(without_wrappers(torch_modules(source), net.children), rename or {}, ".")
    compared = [each for each in skeleton.nets if not each.within.children or each.kind in PARTS]
    named = [(each, modules.get(published.module(name))) for each in compared for name in each.names]
    compare(
        [(each.path, each.net, module) for each, module in named if each.net is not None and module is not None],
        "pass module.state_dict(), which has no settings to compare",
    )
    warn_of_nonfinite(tensors.items(), "from_torch")
    tensors = published.ours(tensors)
    orders = _orders(skeleton)
    for layer in skeleton.layers:
        own = {name: path for name, path in layer.own.items() if path not in drawn}
        # One dict of arrays for each copy; a layer that is not repeated has one.
        copies = []
        for module in layer.names:
            prefix = f"{module}." if module else ""
            here = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
            # A parameter of PyTorch that is a layer here.
            here |= {"": tensors[module]} if module in tensors else {}
            copies.append(to_arrays(layer, here, own, orders[layer.path]))
        for name, path in own.items():
            found[path] = np.stack([copy[name] for copy in copies]) if layer.stacked else copies[0][name]
    return skeleton.trees(found, dtype)


@labeled_as("to_torch", keep=True)
def to_torch(
    net: Net,
    params: Params,
    state: State,
    x: Any,
    *,
    names: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Return a network's parameters and state as the state dict of its counterpart in PyTorch.

    This is the inverse of `from_torch`, bit for bit. Convert each array by `torch.from_numpy` for `load_state_dict`.
    The second of the two biases of a recurrent layer is zero, except for a GRU's recurrent bias. Batch norm's
    `num_batches_tracked` is 0, as steps are not counted here.

    Args:
        net: the network.
        params: its parameters.
        state: its state.
        x: an input or its spec, as for `net.init`.
        names: whose names and layouts attention and blocks of transformers have: "torch" (`torch.nn`), "torchvision",
            "timm", "vit", "gpt2", "llama" or "bert" (Hugging Face's), or "jaxnets" for a tensor per layer under our
            names. The default is where a model's weights are usually published, and "torch" for other networks.
        rename: as for `from_torch`: the same argument restores the original names.

    Returns:
        Contiguous NumPy arrays by PyTorch's names, in the dtypes they had.

    Raises:
        NetError: for parameters or state of another network, a layer without a counterpart, or unknown `names`.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.serial(jn.conv(6, 5), jn.batch_norm()), jnp.ones((1, 8, 8, 3))
    >>> state_dict = to_torch(net, *net.init(jax.random.key(0), x), x)
    >>> list(state_dict)
    ['0.weight', '0.bias', '1.weight', '1.bias', '1.running_mean', '1.running_var', '1.num_batches_tracked']
    >>> state_dict["0.weight"].shape
    (6, 3, 5, 5)
    >>> net, x = jn.attention(8, heads=2, use_bias=False), jnp.ones((1, 3, 8))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> {name: tensor.shape for name, tensor in to_torch(net, params, state, x).items()}
    {'in_proj_weight': (24, 8), 'out_proj.weight': (8, 8)}
    >>> list(to_torch(net, params, state, x, names="timm"))
    ['qkv.weight', 'proj.weight']
    """
    skeleton = Skeleton(net, x)
    given = flat(params, state)
    differing = [
        path for path, spec in skeleton.specs.items() if path not in given or np.shape(given[path]) != spec.shape
    ]
    if differing := [*differing, *(path for path in given if path not in skeleton.specs)]:
        raise NetError(f"expects the network's arrays, got others: {shortened(differing)}")
    if names is not None and names not in FAMILIES:
        raise NetError(f"expects one of {', '.join(FAMILIES)}, got {names!r}", label="names")
    shapes, _ = _expected(skeleton, set())
    published = Published(names or usual(skeleton.nets), skeleton.nets, shapes)
    orders = _orders(skeleton)
    tensors: Tensors = {}
    for layer in skeleton.layers:
        arrays = {name: np.asarray(given[path]) for name, path in layer.own.items()}
        for k, module in enumerate(layer.names):
            copy = {name: array[k] if layer.stacked else array for name, array in arrays.items()}
            for name, tensor in to_tensors(layer, copy, orders[layer.path]).items():
                tensors[dotted(module, name)] = tensor
    # A copy of each, as some are views of the parameters.
    tensors = {name: np.array(tensor, order="C") for name, tensor in published.theirs(tensors).items()}
    return renamed(tensors.items(), {own: name for name, own in (rename or {}).items()}, ".")


def _expected(skeleton: Skeleton, drawn: set[str]) -> tuple[dict[str, tuple[int, ...]], dict[str, Layer]]:
    """Return shapes of tensors by PyTorch's name, and the layers of those that a source must have."""
    shapes, places = {}, {}
    for layer in skeleton.layers:
        # Broadcast arrays of the right shapes, which take no memory.
        blank: Arrays = {
            name: np.broadcast_to(np.zeros((), bool), skeleton.specs[path].shape[layer.stacked :])
            for name, path in layer.own.items()
        }
        every = to_tensors(layer, blank)
        here = to_tensors(layer, {name: array for name, array in blank.items() if layer.own[name] not in drawn})
        for module in layer.names:
            shapes |= {dotted(module, name): tensor.shape for name, tensor in every.items()}
            places |= {dotted(module, name): layer for name in here if name != _COUNT}
    return shapes, places


def _compare(wanted: Mapping[str, tuple[tuple[int, ...], Layer]], tensors: Tensors) -> None:
    """Check that the tensors have the expected names and shapes."""
    misshapen = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name][0]]
    lists = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "misshapen": [f"{name} {tensors[name].shape} for {wanted[name][0]}" for name in misshapen],
    }
    if not any(lists.values()):
        return
    hint = "pass the weights of the same network, or map names by rename= or ignore="
    if not lists["missing"] and not lists["unexpected"]:
        differing = [wanted[name][1] for name in misshapen]
        where = list(dict.fromkeys(f'"{layer.path}/**"'.replace('"/', '"') for layer in differing))
        pattern = where[0] if len(where) == 1 else f"({', '.join(where)})"
        hint = f"for another number of classes pass fresh={pattern}, key=key"
        if all(layer.kind == "learned_positions" for layer in differing):
            hint = "give the network as many positions; jn.models.resize_positions changes their number afterwards"
    found = "; ".join(f"{kind} {shortened(names)}" for kind, names in lists.items() if names)
    raise NetError(f"expects the network's tensors, got others: {found}; {hint}")


def _orders(skeleton: Skeleton) -> dict[str, Orders]:
    """Return the order of features in PyTorch, by layer."""
    found = skeleton.orders

    def of(names: Mapping[str, str], orders: Mapping[str, Any]) -> dict[str, Any]:
        return {name: orders[path] for name, path in names.items() if path in orders}

    return {layer.path: (of(layer.own, found[0]), of(layer.own, found[1])) for layer in skeleton.layers}


def _without(tensors: Tensors, ignore: Pattern) -> Tensors:
    slashed = {name: name.replace(".", "/") for name in tensors}
    for each in [ignore] if isinstance(ignore, str) else ignore:
        if not any(matches(each, path) for path in slashed.values()):
            raise NetError(f"matches no tensor; names are {shortened(list(tensors))}", label=f"ignore={each!r}")
    return {name: tensor for name, tensor in tensors.items() if not matches(ignore, slashed[name])}


def _reshaped(tensor: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Reshape the kernel of a convolution over a whole map to a matrix, and a matrix to a 1×1 kernel."""
    same = tensor.shape[:1] == wanted[:1] and tensor.size == math.prod(wanted)
    return tensor.reshape(wanted) if same and 2 in (tensor.ndim, len(wanted)) else tensor
