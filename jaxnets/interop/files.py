"""Parameters and state in one safetensors file: no pickle, nothing half-written, nothing overwritten unasked."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.errors import NetError, require
from jaxnets.interop.tensors import warn_of_not_finite
from jaxnets.net import Params, State
from jaxnets.select import paths

FORMAT = "jaxnets/1"


def save(
    path: str | Path,
    params: Params,
    state: State | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write parameters and state into one safetensors file.

    The file appears whole or not at all: it is written beside its place and moved there. Tensors are named by
    their paths, `params/conv1/kernel`, so that any reader of safetensors can use them.

    Args:
        path: the file, `.safetensors` by custom; its folder must exist.
        params: nested dicts of arrays of any dtype but typed random keys.
        state: the same.
        metadata: anything that JSON can hold, given back by `load`.
        overwrite: whether a file that is already there may be replaced.

    Raises:
        FileExistsError: if there is a file and `overwrite` is false.
        NetError: if the trees hold something other than dicts of arrays, or a name contains `/`.

    >>> import tempfile, jax.numpy as jnp
    >>> file = tempfile.mkdtemp() + "/net.safetensors"
    >>> save(file, {"fc": {"bias": jnp.ones(2)}}, metadata={"epochs": 3})
    >>> params, state, metadata = load(file)
    >>> params["fc"]["bias"].shape, state, metadata
    ((2,), {}, {'epochs': 3})
    """
    to_bytes = require("safetensors.numpy", "experiments").save
    path = Path(path)
    tensors: dict[str, np.ndarray] = {}
    _flatten("params", params, tensors)
    _flatten("state", state or {}, tensors)
    # One entry alone: safetensors writes several in random order, and equal networks should give equal files.
    header = {"jaxnets": json.dumps({"format": FORMAT, "metadata": dict(metadata or {})}, allow_nan=False)}
    content = to_bytes(tensors, header)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name, or pass overwrite=True")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)  # fails where a file has appeared meanwhile
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[Params, State, dict[str, Any]]:
    """Read what `save` wrote: `(params, state, metadata)`, with the dtypes and values it was given.

    Raises:
        FileNotFoundError: if there is no such file.
        NetError: if the file is truncated, corrupt, or not one that `save` wrote.

    Warns:
        UserWarning: with the names of arrays that hold NaN or infinite numbers.

    >>> import tempfile, jax.numpy as jnp
    >>> file = tempfile.mkdtemp() + "/net.safetensors"
    >>> save(file, {"bias": jnp.ones(2)}, {"mean": jnp.zeros(2)})
    >>> params, state, metadata = load(file)
    >>> sorted(params), sorted(state), metadata
    (['bias'], ['mean'], {})
    """
    require("safetensors", "experiments")
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    trees: dict[str, Any] = {"params": {}, "state": {}}
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("jaxnets", "{}"))
            if header.get("format") != FORMAT:
                raise NetError(f"expects a file of format {FORMAT}, got {header.get('format')!r}", label=f"load {path}")
            metadata = header["metadata"]
            for name in file.keys():  # noqa: SIM118 (a file of tensors is no dict and does not iterate)
                kind, *inner, leaf = name.split("/")
                if kind not in trees:
                    raise NetError(f"finds a tensor {name!r} that is neither params nor state", label=f"load {path}")
                place = trees[kind]
                for each in inner:
                    place = place.setdefault(each, {})
                place[leaf] = jnp.asarray(file.get_tensor(name))
    except (SafetensorError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise NetError(f"finds no whole safetensors file: {error}", label=f"load {path}") from error
    warn_of_not_finite(paths(trees).items(), f"load {path}")
    return trees["params"], trees["state"], metadata


def _flatten(path: str, tree: Any, into: dict[str, np.ndarray]) -> None:
    if not isinstance(tree, Mapping):
        if not hasattr(tree, "dtype"):
            raise NetError(f"expects arrays in nested dicts, got {type(tree).__name__} at {path}", label="save")
        into[path] = np.ascontiguousarray(tree).reshape(np.shape(tree))
        return
    for name, child in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise NetError(f"expects names without '/', got {name!r} at {path}", label="save")
        _flatten(f"{path}/{name}", child, into)
