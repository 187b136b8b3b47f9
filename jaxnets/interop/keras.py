"""Weights from Keras 3: a model, a `.keras` file or a `.weights.h5` file, which are read without Keras."""

import io
import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, labeled_as, require
from jaxnets.core.foreign import library
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.paths import Pattern
from jaxnets.interop.in_order import (
    Network,
    Theirs,
    activations,
    ancestors,
    in_turn,
    match,
    numbered,
    split_number,
    unweighted,
)
from jaxnets.interop.keras_layers import CELLS, NAMES, Config, activation, arrays, settings
from jaxnets.interop.settings import Settings, compare
from jaxnets.interop.spec import Skeleton
from jaxnets.interop.tensors import warn_of_nonfinite
from jaxnets.interop.torch_names import slashed

Group = Mapping[str, Any]  # of h5py

_MERGES = {"concat": "concatenate", "sum": jnp.add, "mul": jnp.multiply}
_ATTENTION = {"query": "query_dense", "key": "key_dense", "value": "value_dense", "out": "output_dense"}


@labeled_as("from_keras", keep=True)
def from_keras(
    net: Net,
    source: Any,
    x: Any,
    *,
    rename: Mapping[str, str] | None = None,
    fresh: Pattern = (),
    key: Key | None = None,
    dtype: Any = None,
) -> tuple[Params, State]:
    """Return a network's parameters and state with the weights of its counterpart in Keras 3.

    Layers correspond if they are of one kind and their arrays have equal shapes; several that are alike, in the order
    in which they run. Their names don't count, as Keras makes them up. Where the order is unknown, as of two equal
    layers side by side, `rename` tells which is which. A model and a `.keras` file have the order, and the settings
    that weights do not contain (ε, momentum, padding, activation, …), which are compared with those of the network.
    A `.weights.h5` file has neither, only numbers of layers of one class, `dense`, `dense_1`, …, in the order of the
    model's layers; so do the parts of a subclassed model.

    Layouts change: kernels of transposed convolutions from (…, out, in) to (…, in, out), of depthwise ones from
    (…, in, multiplier) to (…, 1, in · multiplier); those of attention have one axis for all heads. A GRU's gates z, r,
    n become r, z, n, and its two biases one and `recurrent_bias`. A separable convolution is a `jn.depthwise_conv`
    without bias and a `jn.conv` of size 1.

    Args:
        net: the network.
        source: a model, or the path of a `.keras` or `.weights.h5` file. Files are read by h5py alone.
        x: an input or its spec, as for `net.init`.
        rename: layers of the source, whole or prefixes before a slash, and the network's to use instead:
            `{"dense_1": "head", "block/conv2d": "stem/0"}`. Errors list both.
        fresh: patterns of paths whose arrays are initialized by `net.init`, as for `from_torch`.
        key: a random key for these.
        dtype: the dtype of floating parameters; default: that of `net.init`.

    Returns:
        `(params, state)`, as from `net.init`.

    Raises:
        NetError: for layers that are missing, unexpected or misshapen, run in another order or in one that is unknown;
            settings other than the model's; a layer of one's own without `rename`; a file that is truncated, corrupt or
            of another format; `fresh` without `key`.
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: without h5py, which is in the extra `keras`.

    Warns:
        UserWarning: with the names of layers that hold NaN or infinite numbers.

    >>> import h5py, jax.numpy as jnp, numpy as np, jaxnets as jn, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.weights.h5"
    >>> with h5py.File(path, "w") as file:  # as keras.Sequential([layers.Dense(3)]).save_weights(path) does
    ...     file["layers/dense/vars/0"] = np.ones((4, 3), np.float32)
    ...     file["layers/dense/vars/1"] = np.zeros(3, np.float32)
    >>> params, state = from_keras(jn.serial(fc=jn.dense(3)), path, jnp.ones((1, 4)))
    >>> params["fc"]["kernel"].shape
    (4, 3)
    """
    reader = _read(source)
    network = Network(skeleton := Skeleton(net, x))
    drawn = skeleton.matching(fresh, "fresh")
    found = skeleton.draw(drawn, key)
    hint = "map layers by rename=" if reader.configured else "pass a .keras file, or map layers by rename="
    pairs = match(
        network, reader.layers, reader.order, rename=rename or {}, drawn=drawn, read=_of_kind, hint=hint
    )  # fmt: skip
    warn_of_nonfinite(((layer.path, each) for _, layer in pairs for each in layer.arrays.values()), "from_keras")
    settled = [(own.path, own.net, layer.settings) for own, layer in pairs if layer.settings is not None]
    for own, layer in pairs:
        settled += [(slashed(own.path, name), own.net[name], each) for name, each in layer.inside.items()]
    applied = activations(network, pairs)
    bare = unweighted(network, reader.bare, [path for path, *_ in applied], pools=reader.configured)
    compare([*settled, *applied, *bare], "pass a .weights.h5 file, which has no settings to compare")
    return network.trees(pairs, found, ({}, {}), dtype)


class _Reader:
    """The layers of a file.

    Attributes:
        layers: those with arrays.
        bare: the settings of those without, in the order of the file.
        order: what runs before what.
        configured: whether the settings are known.
    """

    def __init__(self, file: Group, config: Config | None) -> None:
        self.layers: list[Theirs] = []
        self.bare: list[Settings] = []
        self.order: dict[str, Mapping[str, frozenset[str]]] = {}
        self.configured = config is not None
        if config is not None:
            self._configured(file, config["class_name"], config["config"], "")
        else:
            self._bare(file, "", "")

    def _configured(self, group: Group, name: str, config: Config, path: str) -> None:
        """Read a layer or a model whose settings are known."""
        inner = config.get("layers")
        if isinstance(inner, list) and "layers" in group:
            groups = dict(_children(group["layers"], inner))
            names = [str(each["config"]["name"]) for each in inner]
            chain = name == "Sequential"
            self.order[path] = in_turn(names) if chain else ancestors({each["name"]: _sources(each) for each in inner})
            for each, own in zip(inner, names):
                self._configured(groups.get(own, {}), each["class_name"], each["config"], slashed(path, own))
        elif name == "TimeDistributed" and "layer" in group:
            self._configured(group["layer"], config["layer"]["class_name"], config["layer"]["config"], path)
        elif name == "RNN" and group:
            cell = config["cell"]
            cells = cell["config"].get("cells") if cell["class_name"] == "StackedRNNCells" else None
            groups = dict(_children(group["cell"]["cells"], cells)) if cells else {"": group["cell"]}
            self.order[path] = in_turn(groups)
            backwards = {"go_backwards": config["go_backwards"], "return_sequences": config["return_sequences"]}
            for (own, each), inside in zip(groups.items(), cells or [cell]):
                self._layer(each, inside["class_name"], backwards | inside["config"], slashed(path, own))
        elif not group or not any(_vars(each) for each in _all(group)):
            function = activation(config, name) if name == "Activation" else settings(name, config)
            self.bare += [function] if function is not None else []
        elif _known(name):
            self._layer(group, name, config, path)
        else:
            self._bare(group, "", path)

    def _bare(self, group: Group, name: str, path: str) -> None:
        """Read a layer, or an object with layers in its attributes, of which only the names are known."""
        if not name and "cell" in group:  # named by an attribute
            name = next(
                (each for each in CELLS if len(_vars(group["cell"])) == 3 and _cell_is(group["cell"], each)), ""
            )
        if _known(name):
            self._layer(group, name, None, path)
            return
        if given := _vars(group):
            raw = {str(place): array for place, array in enumerate(given)}
            self.layers.append(Theirs(path, "", raw))
        inside = {each: inner for each, inner in group.items() if each != "vars" and isinstance(inner, Mapping)}
        for where, inner in inside.items():
            if where in ("layers", "_layer_checkpoint_dependencies") or re.fullmatch(r"cells?", where):
                self._numbered(inner, path)
            else:
                self._bare(inner, _class_of(inner, ""), slashed(path, where))

    def _numbered(self, group: Group, path: str) -> None:
        self.order[path] = numbered(group)
        for each in sorted(group, key=split_number):
            self._bare(group[each], _class_of(group[each], split_number(each)[0]), slashed(path, each))

    def _layer(self, group: Group, name: str, config: Config | None, path: str) -> None:
        """Read a layer of a known class."""
        shown = settings(name, config) if config is not None else None
        applied = activation(config, name) if config is not None and _applies(name) else None
        if name.startswith("Separable"):
            depth, point, *bias = _vars(group)
            first = arrays(f"Depthwise{name[9:]}", [depth], None)
            self.order[path] = in_turn(["depthwise", "pointwise"])
            last = dict(zip(("kernel", "bias"), [point, *bias]))
            self.layers.append(Theirs(slashed(path, "depthwise"), "conv", first, shown))
            self.layers.append(Theirs(slashed(path, "pointwise"), "conv", last, None, applied))
            return
        if name == "Bidirectional":
            found, parts = {}, {}
            for side in ("forward", "backward"):
                inner = config["backward_layer" if side == "backward" else "layer"] if config is not None else None
                found |= {f"{side}/{each}": array for each, array in self._one(group[f"{side}_layer"], inner).items()}
                one = settings(inner["class_name"], inner["config"]) if inner is not None else None
                if one is not None:  # the wrapper knows the directions
                    values = {own: value for own, value in one.values.items() if own not in ("reverse", "go_backwards")}
                    parts[side] = replace(one, values=values)
            if config is not None:
                merge = config["merge_mode"]
                shown = Settings("bidirectional", {"merge": _MERGES.get(merge, merge)}, name=name)
            self.layers.append(Theirs(path, "bidirectional", found, shown, inside=parts))
            return
        if "Attention" in name:
            found = {
                f"{own}/{each}": array for own, its in _ATTENTION.items() for each, array in _heads(group[its], own)
            }
            if config is None:
                heads = _vars(group["query_dense"])[0].shape[1]
                shown = Settings("attention", {"heads": heads}, name=name)
            self.layers.append(Theirs(path, "attention", found, shown))
            return
        if name in CELLS:
            group, name = group["cell"], f"{name}Cell"
        self.layers.append(Theirs(path, NAMES[name][0], arrays(name, _vars(group), config), shown, applied))

    def _one(self, group: Group, config: Config | None) -> Mapping[str, np.ndarray]:
        """Return the arrays of the only cell in a recurrent layer."""
        if config is None:
            name = next(each for each in CELLS if _cell_is(group["cell"], each))
            return arrays(f"{name}Cell", _vars(group["cell"]), None)
        (layer,) = _Reader(group, config).layers
        return layer.arrays


def _heads(group: Group, own: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a projection of attention, with one axis for all heads."""
    kernel, *bias = _vars(group)
    yield "kernel", kernel.reshape(-1, kernel.shape[-1]) if own == "out" else kernel.reshape(len(kernel), -1)
    yield from (("bias", each.ravel()) for each in bias)


def _of_kind(layer: Theirs, kind: str) -> Theirs:
    """Read a layer of a class of one's own as one of a kind."""
    name = next((name for name, (own, _) in NAMES.items() if own == kind and not name.startswith("Depth")), None)
    if name is None:
        return layer
    return replace(layer, kind=kind, arrays=arrays(name, list(layer.arrays.values()), None))


def _known(name: str) -> bool:
    return name in NAMES or name in CELLS or name.startswith("SeparableConv") or name in _OTHERS


_OTHERS = ("Bidirectional", "MultiHeadAttention", "GroupedQueryAttention")


def _applies(name: str) -> bool:
    return not name.endswith("Cell") and name not in CELLS and "Attention" not in name


def _class_of(group: Group, stem: str) -> str:
    """Return the class of a layer by the stem that Keras made its group's name of, or its own name; "" if unknown."""
    given = group["vars"].attrs.get("name", "") if "vars" in group else ""
    own, _ = split_number(str(given))
    return next((_CLASSES[each] for each in (stem, own) if each in _CLASSES), "")


def _cell_is(group: Group, name: str) -> bool:
    _, recurrent, *_ = _vars(group)
    return recurrent.shape[1] == len(recurrent) * {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}[name]


def _children(group: Group, inner: list[Any]) -> Iterator[tuple[str, Group]]:
    """Yield the groups of a container's layers by name: Keras numbers those of each class."""
    counts: dict[str, int] = {}
    for each in inner:
        stem = _snake(each["class_name"])
        number = counts[stem] = counts.get(stem, -1) + 1
        own = f"{stem}_{number}" if number else stem
        yield str(each["config"]["name"]), group.get(own, {})


def _snake(name: str) -> str:
    """Return a class's name as Keras writes it in files."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


_CLASSES = {_snake(name): name for name in (*NAMES, *CELLS, *_OTHERS, "SeparableConv1D", "SeparableConv2D")}


def _sources(layer: Any) -> set[str]:
    """Return the names of the layers that a layer of a functional model reads."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            if "keras_history" in value:
                found.add(value["keras_history"][0])
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(layer.get("inbound_nodes", []))
    return found


def _vars(group: Group) -> list[np.ndarray]:
    own = group.get("vars") if isinstance(group, Mapping) else None
    return [np.asarray(own[each]) for each in sorted(own, key=int)] if own is not None else []


def _all(group: Group) -> Iterator[Group]:
    yield group
    for name, inner in group.items():
        if name != "vars" and isinstance(inner, Mapping):
            yield from _all(inner)


def _read(source: Any) -> _Reader:
    """Read a model or a file."""
    h5py = require("h5py", "keras")
    if library(source) == "keras":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras warns of NumPy 2
                source.save(path)
            return _read(path)
    if not isinstance(source, str | Path):
        raise NetError(f"expects a model of Keras or the path of a file, got {type(source).__name__}")
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    config = None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
                content: Any = io.BytesIO(archive.read("model.weights.h5"))
        else:
            content = path
        with h5py.File(content, "r") as file:
            if "layer_names" in file.attrs or "model_weights" in file:
                raise NetError(
                    f"expects a file of Keras 3, got an older one, {path}; save it again by model.save('m.keras')"
                )
            return _Reader(file, config)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise NetError(f"expects a complete .keras or .weights.h5 file, got {path}: {error}") from error
