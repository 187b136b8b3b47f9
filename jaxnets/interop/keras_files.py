"""The layers in a file of Keras 3, and their order: from its config, or from names that Keras made up."""

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

from jaxnets.core.errors import NetError, require
from jaxnets.core.foreign import library
from jaxnets.interop.in_order import Theirs, ancestors, in_turn, numbered, split_number
from jaxnets.interop.keras_layers import CELLS, NAMES, Config, activation, arrays, harmless, settings
from jaxnets.interop.settings import Settings
from jaxnets.interop.torch_names import slashed

Group = Mapping[str, Any]  # of h5py

_MERGES = {"concat": "concatenate", "sum": jnp.add, "mul": jnp.multiply}
_ATTENTION = {"query": "query_dense", "key": "key_dense", "value": "value_dense", "out": "output_dense"}


class Layers:
    """The layers of a file.

    Attributes:
        layers: those with arrays.
        bare: the settings of those without, in the order of the file.
        order: what runs before what.
        configured: whether the settings are known.
        masking: whether a layer tells which steps are padding, by their values.
        unread: layers without arrays that change values in ways that are not compared.
    """

    def __init__(self, file: Group, config: Config | None) -> None:
        self.layers: list[Theirs] = []
        self.bare: list[Settings] = []
        self.order: dict[str, Mapping[str, frozenset[str]]] = {}
        self.configured: bool = config is not None
        self.masking: bool = False
        self.unread: list[str] = []
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
                shape = (each.get("build_config") or {}).get("input_shape")
                rank = {"rank": len(shape)} if isinstance(shape, list) else {}
                inside = rank | each["config"]
                calls = each.get("inbound_nodes") or []
                if len(calls) > 1 and any(_vars(part) for part in _all(groups.get(own, {}))):
                    hint = "a network here has parameters for each layer: convert the model in parts"
                    raise NetError(f"can't convert {slashed(path, own)}, which runs {len(calls)} times; {hint}")
                if calls and each["class_name"].endswith("Attention"):
                    inside["causal"] = bool(calls[0].get("kwargs", {}).get("use_causal_mask", False))
                self.masking |= each["class_name"] == "Masking" or bool(inside.get("mask_zero"))
                self._configured(groups.get(own, {}), each["class_name"], inside, slashed(path, own))
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
            if not harmless(name) if function is None else name == "Softmax" and function.values:
                self.unread.append(f"{name} {path.rpartition('/')[2]}".rstrip())
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
            last = {"kernel": point, **({"bias": bias[0]} if bias else {})}
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
        (layer,) = Layers(group, config).layers
        return layer.arrays


def _heads(group: Group, own: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a projection of attention, with one axis for all heads."""
    kernel, *bias = _vars(group)
    yield "kernel", kernel.reshape(-1, kernel.shape[-1]) if own == "out" else kernel.reshape(len(kernel), -1)
    yield from (("bias", each.ravel()) for each in bias)


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


def read_layers(source: Any) -> Layers:
    """Read a model or a file."""
    h5py = require("h5py", "keras")
    if library(source) == "keras":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras warns of NumPy 2
                source.save(path)
            return read_layers(path)
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
            return Layers(file, config)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise NetError(f"expects a complete .keras or .weights.h5 file, got {path}: {error}") from error
