"""Models from a folder of Hugging Face: `config.json` beside safetensors."""

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as, require
from jaxnets.core.net import Net, Params, State
from jaxnets.interop.huggingface_nets import model_of
from jaxnets.interop.tensors import read_tensors, shortened
from jaxnets.interop.torch import from_torch

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_WANTED = ("*.json", "model*.safetensors", "vocab.txt", "merges.txt")


@dataclass(frozen=True)
class Pretrained:
    """A network with weights, and what else its folder says.

    Attributes:
        net: the network.
        params: its parameters.
        state: its state.
        config: the contents of `config.json`.
        classes: the names of the classes in the order of the outputs; `None` if there are none.
        images: the contents of `preprocessor_config.json`, with `image_mean`, `image_std` and `size`; `None` if it is
            absent.
        folder: where the files are. `jn.data.tokenizer(folder)` reads the tokenizer of a model of text.
    """

    net: Net
    params: Params
    state: State
    config: Mapping[str, Any]
    classes: tuple[str, ...] | None
    images: Mapping[str, Any] | None
    folder: Path


@labeled_as("from_huggingface", keep=True)
def from_huggingface(source: str | Path, *, dropout: Any = None, dtype: Any = None) -> Pretrained:
    """Return the network that a folder of Hugging Face describes, with its weights.

    | architecture | network |
    | --- | --- |
    | `GPT2LMHeadModel`, `GPT2Model` | `jn.models.gpt2`, for both with the logits of the next token |
    | `BertModel`, `BertForSequenceClassification`, `BertForQuestionAnswering`, `BertForMaskedLM` | `jn.models.bert` \
with the head "pooled", "classes", "span", "words" |
    | `ViTForImageClassification` | as `jn.models.vit_b_16`, of any size |
    | `ResNetForImageClassification` | as `jn.models.resnet50`, of any size |
    | `ConvNextForImageClassification` | as `jn.models.convnext_tiny`, of any size |

    Args:
        source: a folder with `config.json` and `model.safetensors`, or its index and parts; or the name of a repository
            of the hub, "owner/name", of which these files are downloaded by `huggingface_hub` unless they are in its
            cache. No code of the repository is run.
        dropout: the rate of dropout (of a ConvNeXt, of stochastic depth) in training; default: that of the config.
        dtype: the dtype of floating parameters; default: float32.

    Returns:
        A record with `net`, `params`, `state` and what else the folder says.

    Raises:
        NetError: for another architecture, settings of `config.json` that have no counterpart here, an index whose part
            is absent, a file that is truncated, tensors that are missing or unexpected, or a repository that can't be
            downloaded.
        FileNotFoundError: for a folder without `config.json` or weights.
        ModuleNotFoundError: for the name of a repository without `huggingface_hub`, which is in the extra `hub`.

    Warns:
        UserWarning: with the names of settings of `config.json` that are unknown, and so ignored.

    >>> import json, pathlib, tempfile, jax, jaxnets as jn
    >>> from safetensors.numpy import save_file
    >>> sizes = {"vocab_size": 11, "n_positions": 7, "n_embd": 8, "n_layer": 1, "n_head": 2}
    >>> net, x = jn.models.gpt2(vocabulary=11, length=7, features=8, layers=1, heads=2), jax.numpy.array([[3, 1, 4]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> folder = pathlib.Path(tempfile.mkdtemp())  # as save_pretrained(folder) writes it
    >>> _ = (folder / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"], **sizes}))
    >>> save_file(jn.interop.to_torch(net, params, state, x), folder / "model.safetensors")
    >>> found = from_huggingface(folder)
    >>> found.net.apply(found.params, found.state, x)[0].shape
    (1, 3, 11)
    """
    folder = _folder(source)
    config = _json(folder / "config.json")
    if config is None:
        raise FileNotFoundError(f"no config.json in {folder}")
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        hint = "save the model again by save_pretrained" if any(folder.glob("*.bin")) else "download all files"
        raise FileNotFoundError(f"no {' or '.join(_WEIGHTS)} in {folder}; {hint}")
    model, unknown = model_of(config, dropout)
    if unknown:
        warnings.warn(f"from_huggingface ignores settings of config.json: {shortened(unknown)}", stacklevel=3)
    tensors = read_tensors(weights)
    for name, tensor in tensors.items():
        if model.expanded and name.endswith(model.expanded):
            tensors[name] = tensor.reshape(-1, 1, 1)
    present = {
        old: new for old, new in model.rename.items() if any(f"{name}.".startswith(f"{old}.") for name in tensors)
    }
    params, state = from_torch(model.net, tensors, model.x, rename=present, dtype=dtype or np.float32)
    labels = config.get("id2label")
    classes = tuple(labels[each] for each in sorted(labels, key=int)) if isinstance(labels, Mapping) else None
    images = _json(folder / "preprocessor_config.json")
    return Pretrained(model.net, params, state, config, classes, images, folder)


def _folder(source: str | Path) -> Path:
    """Return the folder of a source, downloaded if it is the name of a repository."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not isinstance(source, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith("."):
        raise FileNotFoundError(f"no folder {source}")
    hub = require("huggingface_hub", "hub")
    try:
        return Path(hub.snapshot_download(source, allow_patterns=list(_WANTED)))
    except Exception as error:  # of several libraries: no network, no such repository, no permission
        hint = "pass the path of a folder with its files"
        raise NetError(f"can't download {source!r}: {type(error).__name__}; {hint}") from error


def _json(path: Path) -> Any:
    """Return the contents of a JSON file, `None` if it is absent."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise NetError(f"expects JSON in {path}: {error}") from error
    if not isinstance(content, dict):
        raise NetError(f"expects settings by name in {path}, got {type(content).__name__}")
    return content
