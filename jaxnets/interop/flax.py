"""Weights from Flax's Linen: matched by name, or by the order of making that its automatic names tell."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.core.foreign import library
from jaxnets.core.net import Net, Params, State
from jaxnets.core.paths import paths
from jaxnets.interop.settings import compare, flax_modules
from jaxnets.interop.spec import Skeleton, nested
from jaxnets.interop.tensors import modules_renamed, renamed, shortened, warn_of_not_finite
from jaxnets.interop.torch_names import cell_of, slashed, unwrapped

_KINDS = {
    "BatchNorm": "batch_norm",
    "Conv": "conv",
    "ConvTranspose": "conv_transpose",
    "Dense": "dense",
    "Embed": "embed",
    "GRUCell": "gru_cell",
    "GroupNorm": "group_norm",
    "LSTMCell": "lstm_cell",
    "LayerNorm": "layer_norm",
    "OptimizedLSTMCell": "lstm_cell",
    "PReLU": "prelu",
    "SimpleCell": "rnn_cell",
}
_GATES = ("ifgo", "rzn", ("",))  # of an LSTM, a GRU, a simple cell
_WHOLE = -1  # in place of a copy's number
_NUMBERED = re.compile(r"(.*)_(\d+)")


@dataclass(frozen=True)
class _Ours:
    """A network inside: all its copies where it is repeated, or one of them."""

    net: Net
    tree: Mapping[str, Any]
    path: str = ""
    copy: int = _WHOLE

    @property
    def kind(self) -> str:
        _, net = unwrapped(self.net)
        cell = cell_of(net)
        kind = getattr(cell.constructor, "__name__", "") if cell is not None else net.kind
        return "conv" if kind == "depthwise_conv" else kind

    def inside(self) -> list["_Ours"]:
        return [
            _Ours(child, self.tree[name], slashed(self.path, name), self.copy)
            for name, child in self.net.children.items()
            if self.tree.get(name)
        ]

    def written_out(self) -> list["_Ours"]:
        whole = self.net.copies and self.copy == _WHOLE
        return [replace(self, copy=k) for k in range(self.net.copies)] if whole else [self]


@dataclass(frozen=True)
class _Theirs:
    """A module of Flax: its arrays in our layout, and the modules inside."""

    path: str
    arrays: dict[str, np.ndarray]
    inside: dict[str, "_Theirs"]

    @property
    def stem(self) -> str:
        """Its name without the number: its class, where Flax named it."""
        numbered = _NUMBERED.fullmatch(self.path.rpartition("/")[2])
        return numbered[1] if numbered else ""


def from_flax(
    net: Net,
    variables: Mapping[str, Any],
    x: Any,
    *,
    module: Any = None,
    rename: Mapping[str, str] | None = None,
    dtype: Any = None,
) -> tuple[Params, State]:
    """Return a network's parameters and state with the variables of its counterpart in Flax.

    Modules that have the same names here and there belong together. Of the others, those that Flax named by itself,
    `Conv_0`, `Conv_1`, …, belong to the network's layers of that kind in their order: in the order of their calls where
    `module` is given, else of their numbers, that in which they were made (in `Dense(2)(Dense(8)(x))` the outer is
    `Dense_0`); a
    module with modules inside, `ResNetBlock_0`, belongs to the next block, a `jn.residual` say, or where there are
    as many `jn.serial`s, to the next of these, and what is inside is matched likewise. Copies in a `jn.repeat` count
    as layers one after another, and take stacked variables under their own name. All else is said by `rename`.

    Layouts are alike but for transposed convolutions, whose kernels Flax turns round, and for recurrent cells, whose
    gates are matrices of their own there.

    Args:
        net: the network.
        variables: what Linen's `init` returns, `{"params": ..., "batch_stats": ...}`, or nested dicts of all arrays in
            one, as `nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))` gives them (NNX's recurrent
            cells are not read).
        x: an input or its spec, as for `net.init`.
        module: what the variables are of, a module of Linen or NNX: its settings that they do not show (ε, momentum,
            padding, …) are compared with the network's. Of Linen it is called with `x`; where it takes more, pass
            `functools.partial(module.init, train=False)`. Without it set them alike yourself: Flax's defaults differ.
        rename: Flax's paths and the network's in place of them, whole or up to a slash: `{"conv_init": "conv1",
            "ResNetBlock_0/conv_proj": "ResNetBlock_0/downsample/0"}`.
        dtype: of floating parameters, if not the one that `net.init` gives.

    Returns:
        `(params, state)`, as `net.init` gives them.

    Raises:
        NetError: for arrays missing, unexpected or misshapen, or settings other than the module's, all in one list.

    Warns:
        UserWarning: with the names of arrays that hold NaN or infinite numbers.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> import flax.linen as nn
    >>> x = jnp.ones((1, 4))
    >>> theirs = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])  # layers_0 and layers_2
    >>> ours = jn.serial(layers_0=jn.dense(8), relu=jax.nn.relu, layers_2=jn.dense(2))
    >>> variables = theirs.init(jax.random.key(0), x)
    >>> params, state = from_flax(ours, variables, x)
    >>> bool(jnp.allclose(ours.apply(params, state, x)[0], theirs.apply(variables, x)))
    True
    """
    if not isinstance(variables, Mapping):
        way = "nnx.to_pure_dict(nnx.state(module))" if library(variables) == "flax.nnx" else "module.init(key, x)"
        way = "its params" if hasattr(variables, "params") and not library(variables) else way
        raise NetError(f"expects arrays in nested dicts, got {type(variables).__name__}; pass {way}", label="from_flax")
    given = renamed(_flat(variables), rename or {}, "/", "from_flax")
    warn_of_not_finite(given.items(), "from_flax")
    modules = {} if module is None else modules_renamed(flax_modules(module, x), rename or {}, "/")
    skeleton, theirs = Skeleton(net, x), _read("", nested(given))
    pairs: list[tuple[_Ours, _Theirs]] = []
    _match(_Ours(net, skeleton.tree), theirs, pairs, {path: place for place, path in enumerate(modules)})
    found: dict[str, dict[int, np.ndarray]] = {}
    unexpected = {slashed(module.path, name): None for module in _all(theirs) for name in module.arrays}
    for own, part in pairs:
        swapped = any(getattr(module, "transpose_kernel", False) for module in modules.get(part.path, ()))
        for name, array in part.arrays.items():
            places = [tree + slashed(own.path, name) for tree in ("params/", "state/")]
            if path := next((place for place in places if place in skeleton.specs), ""):
                found.setdefault(path, {})[own.copy] = (
                    _turned(array, swapped) if own.kind == "conv_transpose" else array
                )
                del unexpected[slashed(part.path, name)]
    alike = [(own.path, own.net, part.path) for own, part in pairs]
    alike += [(path, leaf, path) for path, leaf in _leaves(net) if path not in {own.path for own, _ in pairs}]
    compare(
        "from_flax",
        [(path, leaf, module) for path, leaf, name in alike for module in modules.get(name, ())],
        "leave out module=",
    )
    return skeleton.trees(_assembled(skeleton, found, list(unexpected)), dtype)


def _match(ours: _Ours, theirs: _Theirs, pairs: list[tuple[_Ours, _Theirs]], called: Mapping[str, int]) -> None:
    """Enter which of our layers and which of Flax's modules belong together, inside two that do.

    `called` has the place of each module among the calls by path, where it is known.
    """
    if not ours.net.children:
        pairs.append((ours, theirs))
        return
    modules, rest = dict(theirs.inside), []
    for own in ours.inside():
        if (name := own.path.rpartition("/")[2]) in modules:
            _match(own, modules.pop(name), pairs, called)
        else:
            rest += own.written_out()
    blocks = [module for module in modules.values() if not module.arrays]
    rest = _opened(rest, len(blocks))
    composed = [own for own in rest if own.net.children]
    if len(composed) == len(blocks) and len({block.stem for block in blocks}) < 2:
        for own, block in zip(composed, _in_order(blocks, called)):
            _match(own, block, pairs, called)
    for kind in dict.fromkeys(own.kind for own in rest if not own.net.children):
        alike = [module for module in modules.values() if module.arrays and _KINDS.get(module.stem) == kind]
        if len({module.stem for module in alike}) == 1:
            pairs += zip([own for own in rest if own.kind == kind and not own.net.children], _in_order(alike, called))


def _leaves(net: Net, path: str = "") -> Iterator[tuple[str, Net]]:
    """Yield the layers of a network by path."""
    if not net.children:
        yield path, net
    for name, child in net.children.items():
        yield from _leaves(child, slashed(path, name))


def _opened(units: list[_Ours], blocks: int) -> list[_Ours]:
    """Replace networks made of others by these until as many are left as there are blocks to match."""
    while True:
        composed = {own.kind for own in units if own.net.children}
        always = composed & {"recurrent", "bidirectional"}
        if not always and sum(bool(own.net.children) for own in units) == blocks:
            return units
        kinds = always or composed & {"serial"} or (set() if blocks else composed)
        if not kinds:
            return units
        opening = [own.inside() if own.net.children and own.kind in kinds else [own] for own in units]
        units = [one for inside in opening for own in inside for one in own.written_out()]


def _in_order(modules: list[_Theirs], called: Mapping[str, int]) -> list[_Theirs]:
    """Return modules in the order of their calls, or of their numbers where that is not known.

    Linen numbers them as they are made: in `Dense(2)(Dense(8)(x))` the outer one, which is called last, is `Dense_0`.
    """
    if all(module.path in called for module in modules):
        return sorted(modules, key=lambda module: called[module.path])
    return sorted(modules, key=lambda module: int(module.path.rpartition("_")[2]) if module.stem else 0)


def _assembled(
    skeleton: Skeleton, found: Mapping[str, Mapping[int, np.ndarray]], unexpected: list[str]
) -> dict[str, np.ndarray]:
    """Return whole arrays by path, once there is one of the right shape for each, and no more."""
    arrays: dict[str, np.ndarray] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    for path, spec in skeleton.specs.items():
        copies, bare = found.get(path, {}), path.partition("/")[2]
        wanted = spec.shape if _WHOLE in copies else spec.shape[1:]
        whole = {_WHOLE} if _WHOLE in copies else set(range(*spec.shape[:1]))
        if not copies or set(copies) != whole:
            missing.append(bare)
        elif wrong := [copy.shape for copy in copies.values() if (copy.shape or (1,)) != (wanted or (1,))]:
            misshapen.append(f"{bare} {wrong[0]} for {wanted}")
        else:
            arrays[path] = np.stack([copies[k] for k in sorted(copies)]).reshape(spec.shape)
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if any(lists.values()):
        listed = "; ".join(f"{kind} {shortened(names)}" for kind, names in lists.items() if names)
        hint = "take the variables of the same network, or say by rename= which module is which"
        if misshapen and not missing and not unexpected:
            hint += "; Linen numbers modules as they are made, in Dense(2)(Dense(8)(x)) the outer first: module= has "
            hint += "them matched as they are called"
        raise NetError(f"finds other arrays than the network has: {listed}; {hint}", label="from_flax")
    return arrays


def _turned(array: np.ndarray, swapped: bool) -> np.ndarray:
    """Turn the windows of kernels round: Flax computes a convolution of the spread input, not a transpose.

    With `transpose_kernel=True` it turns them itself, and its kernels are `(*kernel_size, out, in)`.
    """
    if swapped and array.ndim > 1:
        return np.swapaxes(array, -1, -2)
    return np.flip(array, tuple(range(array.ndim - 2)))


def _read(path: str, tree: Mapping[str, Any]) -> _Theirs:
    """Return a module, with the gates of a recurrent cell side by side."""
    for gates in _GATES:
        if set(tree) == {side + gate for side in "ih" for gate in gates}:
            return _Theirs(path, _cell(tree, gates), {})
    arrays = {name: leaf for name, leaf in tree.items() if not isinstance(leaf, Mapping)}
    inside = {name: _read(slashed(path, name), leaf) for name, leaf in tree.items() if isinstance(leaf, Mapping)}
    return _Theirs(path, arrays, inside)


def _cell(tree: Mapping[str, Any], gates: Sequence[str]) -> dict[str, np.ndarray]:
    def joined(side: str, name: str) -> list[np.ndarray]:
        return [tree[side + gate][name] for gate in gates if name in tree[side + gate]]

    biases = {"i": joined("i", "bias"), "h": joined("h", "bias")}
    arrays = {"kernel": joined("i", "kernel"), "recurrent_kernel": joined("h", "kernel")}
    arrays["bias"] = biases["i"] or biases["h"]
    if biases["i"] and biases["h"]:  # a GRU's new state
        arrays["recurrent_bias"] = biases["h"]
    return {name: np.concatenate(parts, -1) for name, parts in arrays.items() if parts}


def _all(module: _Theirs) -> Iterator[_Theirs]:
    yield module
    for inner in module.inside.values():
        yield from _all(inner)


def _flat(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return all arrays by path, whatever collection they are in."""
    collections = variables.values() if "params" in variables else [variables]
    arrays: dict[str, np.ndarray] = {}
    for collection in collections:
        arrays |= {path: np.asarray(leaf) for path, leaf in paths(collection).items()}
    return arrays
