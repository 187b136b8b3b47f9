"""Weights from Flax: matched by name, or by the order of Flax's automatic names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.foreign import library
from jaxnets.core.net import Net, Params, State
from jaxnets.core.paths import paths
from jaxnets.interop.settings import FLAX, compare, flax_modules
from jaxnets.interop.spec import Skeleton, nested
from jaxnets.interop.tensors import modules_renamed, renamed, shortened, warn_of_nonfinite
from jaxnets.interop.torch_names import cell_of, slashed, unwrapped

# Names of the gates of an LSTM, a GRU and a simple cell.
_GATES = ("ifgo", "rzn", ("",))
# In place of a copy's index: all copies, stacked.
_STACKED = -1
_NUMBERED = re.compile(r"(.*)_(\d+)")


@dataclass(frozen=True)
class _Ours:
    """A part of our network, with all of its copies or one of them if it is repeated."""

    net: Net
    tree: Mapping[str, Any]
    path: str = ""
    copy: int = _STACKED

    @property
    def kind(self) -> str:
        _, net = unwrapped(self.net)
        cell = cell_of(net)
        kind = getattr(cell.constructor, "__name__", "") if cell is not None else net.kind
        return "conv" if kind == "depthwise_conv" else kind

    def inside(self) -> list["_Ours"]:
        """Return the children that have parameters or state."""
        return [
            _Ours(child, self.tree[name], slashed(self.path, name), self.copy)
            for name, child in self.net.children.items()
            if self.tree.get(name)
        ]

    def unstacked(self) -> list["_Ours"]:
        """Return each copy of a repeated network, or the network itself."""
        stacked = self.net.copies and self.copy == _STACKED
        return [replace(self, copy=k) for k in range(self.net.copies)] if stacked else [self]


@dataclass(frozen=True)
class _Theirs:
    """A module of Flax: its arrays in our layout, and its submodules."""

    path: str
    arrays: dict[str, np.ndarray]
    inside: dict[str, "_Theirs"]

    @property
    def stem(self) -> str:
        """Its name without the number, which is its class if Flax named it, otherwise ""."""
        numbered = _NUMBERED.fullmatch(self.path.rpartition("/")[2])
        return numbered[1] if numbered else ""


@labeled_as("from_flax", keep=True)
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

    Modules are matched as follows; `rename` covers all other cases:

    - Modules of the same name on both sides correspond.
    - Modules that Flax named, `Conv_0`, `Conv_1`, …, correspond to the network's other layers of that kind, in order:
      the order of their calls if `module` is given, otherwise that of their numbers, in which Linen created them (in
      `Dense(2)(Dense(8)(x))` the outer one is `Dense_0`).
    - Such a module with submodules, `ResNetBlock_0`, corresponds to the next block, such as a `jn.residual`; or to the
      next `jn.serial`, if there are as many of these. Their contents are matched by the same rules.
    - Copies in a `jn.repeat` count as consecutive layers, and accept stacked variables under their own name.

    Layouts are equal except those of transposed convolutions, whose kernels Flax flips, and of recurrent cells, whose
    gates are separate matrices in Linen. An `RNN` corresponds to a `jn.recurrent` of one cell, a `Bidirectional` to a
    `jn.bidirectional`. The GRU of NNX has no `recurrent_bias`, which becomes zero. `to_flax` is the inverse.

    Args:
        net: the network.
        variables: the result of Linen's `init`, `{"params": ..., "batch_stats": ...}`, or all arrays in one nested
            dict, as from `nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))`.
        x: an input or its spec, as for `net.init`.
        module: the Linen or NNX module of the variables. Those of its settings that variables do not contain (ε,
            momentum, padding, …) are compared with the network's. A Linen module is called with `x`; if it takes more,
            pass `functools.partial(module.init, train=False)`. Without `module` make the settings equal yourself:
            Flax's defaults differ.
        rename: Flax's paths, and the network's to use instead, whole or prefixes before a slash: `{"conv_init":
            "conv1", "ResNetBlock_0/conv_proj": "ResNetBlock_0/downsample/0"}`.
        dtype: the dtype of floating parameters; default: that of `net.init`.

    Returns:
        `(params, state)`, as from `net.init`.

    Raises:
        NetError: for arrays that are missing, unexpected or misshapen, or settings other than the module's; they are
            listed.

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
        hint = "nnx.to_pure_dict(nnx.state(module))" if library(variables) == "flax.nnx" else "module.init(key, x)"
        hint = "its params" if hasattr(variables, "params") and not library(variables) else hint
        raise NetError(f"expects arrays in nested dicts, got {type(variables).__name__}; pass {hint}")
    # The arrays of all collections by path.
    collections = variables.values() if "params" in variables else [variables]
    given = {path: np.asarray(leaf) for each in collections for path, leaf in paths(each).items()}
    given = renamed(given.items(), rename or {}, "/")
    warn_of_nonfinite(given.items(), "from_flax")
    modules = {} if module is None else modules_renamed(flax_modules(module, x).items(), rename or {}, "/")
    skeleton, found = matched(net, given, x, modules)
    return skeleton.trees(found, dtype)


def matched(
    net: Net, given: Mapping[str, Any], x: Any, modules: Mapping[str, list[Any]]
) -> tuple[Skeleton, dict[str, np.ndarray]]:
    """Return what a network expects, and for each of its paths the array of Flax's that belongs there.

    Args:
        net: the network.
        given: Flax's arrays by path.
        x: an input or its spec.
        modules: Flax's modules by path, in the order of their calls; none if they are unknown.

    Raises:
        NetError: as `from_flax`.
    """
    skeleton, theirs = Skeleton(net, x), _read("", nested(given))
    pairs: list[tuple[_Ours, _Theirs]] = []
    _match(_Ours(net, skeleton.tree), theirs, pairs, {path: place for place, path in enumerate(modules)})
    found: dict[str, dict[int, np.ndarray]] = {}
    unexpected = {slashed(module.path, name): None for module in _all(theirs) for name in module.arrays}
    for own, part in pairs:
        swapped = any(getattr(module, "transpose_kernel", False) for module in modules.get(part.path, ()))
        for name, array in part.arrays.items():
            if isinstance(path := own.tree.get(name), str):
                array = _flipped(array, swapped) if own.kind == "conv_transpose" else array
                found.setdefault(path, {})[own.copy] = array
                del unexpected[slashed(part.path, name)]
    alike = [(own.path, own.net, part.path) for own, part in pairs]
    alike += [(path, leaf, path) for path, leaf in _leaves(net) if path not in {own.path for own, _ in pairs}]
    compare(
        [(path, leaf, module) for path, leaf, name in alike for module in modules.get(name, ())], "leave out module="
    )
    return skeleton, _assembled(skeleton, found, list(unexpected))


def _match(ours: _Ours, theirs: _Theirs, pairs: list[tuple[_Ours, _Theirs]], called: Mapping[str, int]) -> None:
    """Append to `pairs` the matching layers and modules inside a network and a module that match.

    `called` has the index of each module's call by path, if known.
    """
    if not ours.net.children:
        # An `RNN` of Flax holds its cell under this name.
        pairs.append((ours, theirs.inside["cell"] if [*theirs.inside] == ["cell"] and not theirs.arrays else theirs))
        return
    # By name first.
    modules, rest = dict(theirs.inside), []
    for own in ours.inside():
        name = own.path.rpartition("/")[2]
        name = f"{name}_rnn" if ours.kind == "bidirectional" and f"{name}_rnn" in modules else name
        if name in modules:
            _match(own, modules.pop(name), pairs, called)
        else:
            rest += own.unstacked()
    # Then blocks in order, if their numbers are equal, and Flax's are of one class.
    blocks = [module for module in modules.values() if not module.arrays]
    rest = _opened(rest, len(blocks))
    composed = [own for own in rest if own.net.children]
    if len(composed) == len(blocks) and len({block.stem for block in blocks}) < 2:
        for own, block in zip(composed, _in_order(blocks, called)):
            _match(own, block, pairs, called)
    # Then layers of each kind in order.
    for kind in dict.fromkeys(own.kind for own in rest if not own.net.children):
        alike = [module for module in modules.values() if module.arrays and FLAX.get(module.stem, ("",))[0] == kind]
        if len({module.stem for module in alike}) == 1:
            pairs += zip([own for own in rest if own.kind == kind and not own.net.children], _in_order(alike, called))


def _leaves(net: Net, path: str = "") -> Iterator[tuple[str, Net]]:
    """Yield the layers of a network by path."""
    if not net.children:
        yield path, net
    for name, child in net.children.items():
        yield from _leaves(child, slashed(path, name))


def _opened(units: list[_Ours], blocks: int) -> list[_Ours]:
    """Replace networks by their children until as many with children remain as there are blocks to match."""
    while True:
        composed = {own.kind for own in units if own.net.children}
        # Flax has no module for these two.
        always = composed & {"recurrent", "bidirectional"}
        if not always and sum(bool(own.net.children) for own in units) == blocks:
            return units
        kinds = always or composed & {"serial"} or (set() if blocks else composed)
        if not kinds:
            return units
        opening = [own.inside() if own.net.children and own.kind in kinds else [own] for own in units]
        units = [one for inside in opening for own in inside for one in own.unstacked()]


def _in_order(modules: list[_Theirs], called: Mapping[str, int]) -> list[_Theirs]:
    """Return modules in the order of their calls, or of their numbers if that is unknown.

    Linen numbers modules as they are created: in `Dense(2)(Dense(8)(x))` the outer one, called last, is `Dense_0`.
    """
    if all(module.path in called for module in modules):
        return sorted(modules, key=lambda module: called[module.path])
    return sorted(modules, key=lambda module: int(module.path.rpartition("_")[2]) if module.stem else 0)


def _assembled(
    skeleton: Skeleton, found: Mapping[str, Mapping[int, np.ndarray]], unexpected: list[str]
) -> dict[str, np.ndarray]:
    """Return arrays by path, copies stacked.

    Raises:
        NetError: unless there is exactly one of the right shape for each spec.
    """
    arrays: dict[str, np.ndarray] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    for path, spec in skeleton.specs.items():
        copies, bare = found.get(path, {}), path.partition("/")[2]
        wanted = spec.shape if _STACKED in copies else spec.shape[1:]
        whole = {_STACKED} if _STACKED in copies else set(range(*spec.shape[:1]))
        if not copies or set(copies) != whole:
            missing.append(bare)
        elif wrong := [copy.shape for copy in copies.values() if (copy.shape or (1,)) != (wanted or (1,))]:
            misshapen.append(f"{bare} {wrong[0]} for {wanted}")
        else:
            arrays[path] = np.stack([copies[k] for k in sorted(copies)]).reshape(spec.shape)
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if any(lists.values()):
        listed = "; ".join(f"{kind} {shortened(names)}" for kind, names in lists.items() if names)
        hint = "pass the variables of the same network, or map modules by rename="
        if misshapen and not missing and not unexpected:
            hint += "; Linen numbers modules as they are created, in Dense(2)(Dense(8)(x)) the outer first: pass "
            hint += "module= to match them in the order of their calls"
        raise NetError(f"expects the network's arrays, got others: {listed}; {hint}")
    return arrays


def _flipped(array: np.ndarray, swapped: bool) -> np.ndarray:
    """Flip kernels spatially: Flax computes a convolution of the dilated input, not a transpose.

    With `transpose_kernel=True` Flax flips them itself, and its kernels are `(*kernel_size, out, in)`.
    """
    if swapped and array.ndim > 1:
        return np.swapaxes(array, -1, -2)
    return np.flip(array, tuple(range(array.ndim - 2)))


def _read(path: str, tree: Mapping[str, Any]) -> _Theirs:
    """Return a module, with the gates of a recurrent cell concatenated."""
    # In NNX, as `if` is no name of an attribute.
    gated = {"if" if name == "if_" else name: leaf for name, leaf in tree.items()}
    for gates in _GATES:
        if set(gated) == {side + gate for side in "ih" for gate in gates}:
            return _Theirs(path, _cell(gated, gates), {})
    if set(tree) == {"dense_i", "dense_h"} and (arrays := _fused(*map(tree.get, ("dense_i", "dense_h")))):
        return _Theirs(path, arrays, {})
    arrays = {name: leaf for name, leaf in tree.items() if not isinstance(leaf, Mapping)}
    inside = {name: _read(slashed(path, name), leaf) for name, leaf in tree.items() if isinstance(leaf, Mapping)}
    return _Theirs(path, arrays, inside)


def _cell(tree: Mapping[str, Any], gates: Sequence[str]) -> dict[str, np.ndarray]:
    def joined(side: str, name: str) -> list[np.ndarray]:
        return [tree[side + gate][name] for gate in gates if name in tree[side + gate]]

    biases = {"i": joined("i", "bias"), "h": joined("h", "bias")}
    arrays = {"kernel": joined("i", "kernel"), "recurrent_kernel": joined("h", "kernel")}
    arrays["bias"] = biases["i"] or biases["h"]
    # Only the last gate of a GRU has both.
    if biases["i"] and biases["h"]:
        arrays["recurrent_bias"] = biases["h"]
    return {name: np.concatenate(parts, -1) for name, parts in arrays.items() if parts}


def _fused(i: Any, h: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a cell of NNX, whose gates are concatenated; none of two other layers."""
    if not all(isinstance(each, Mapping) and np.ndim(each.get("kernel", 0)) == 2 for each in (i, h)):
        return {}
    (features, width), biases = h["kernel"].shape, [side for side in (i, h) if "bias" in side]
    gates = width / features
    # The bias of an LSTM is that of the hidden state, others' is that of the input.
    if (
        gates not in (1, 3, 4)
        or i["kernel"].shape[1] != width
        or any(side is not (h if gates == 4 else i) for side in biases)
    ):
        return {}
    arrays = {"kernel": i["kernel"], "recurrent_kernel": h["kernel"]} | ({"bias": biases[0]["bias"]} if biases else {})
    # NNX's GRU has no second bias for the new state.
    return arrays | ({"recurrent_bias": np.zeros(features, h["kernel"].dtype)} if gates == 3 and biases else {})


def _all(module: _Theirs) -> Iterator[_Theirs]:
    yield module
    for inner in module.inside.values():
        yield from _all(inner)
