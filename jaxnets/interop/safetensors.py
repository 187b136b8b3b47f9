"""Parameters, state, network and preprocessing in one safetensors file: no pickle, written atomically.

Values are restored bit for bit. Dtypes that safetensors lacks are written as bytes, with the dtype in the header. The
header also holds a SHA-256 of everything else.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import variables
from jaxnets.core.errors import NetError, is_traced, labeled_as, require, shown
from jaxnets.core.net import Net
from jaxnets.core.paths import paths
from jaxnets.interop import nets
from jaxnets.interop import preprocess as steps
from jaxnets.interop.files import new_file
from jaxnets.interop.saved import Saved
from jaxnets.interop.tensors import DTYPES, Tensors, read_safetensors, warn_of_nonfinite

FORMAT = "jaxnets/3"
_MAX_DEPTH = 100
_MAX_HEADER = 100_000_000
"""The most bytes of a header that safetensors reads."""


@labeled_as("save", keep=True)
def save(
    path: str | Path,
    state: Any,
    *,
    net: Net | None = None,
    preprocess: Any = None,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write parameters and state into one safetensors file.

    The write is atomic: a temporary file in the same folder is renamed once it is complete. Tensors are named by their
    paths, `params/conv1/kernel`, so that any reader of safetensors can use them.

    Args:
        path: the file, by convention `.safetensors`; its folder must exist. `~` is the user's home.
        state: a train state, whose `params` and `state` are written, or a pair `(params, state)`: nested dicts of
            arrays, booleans, numbers of every dtype that JAX has, typed random keys.
        net: the network, which `load` returns. It is written as the calls of `jn` that make it, so it can't contain
            custom functions.
        preprocess: what turns raw examples into the network's inputs, and its outputs into answers: a
            `jn.data.Preprocess`, or one of its steps. `load(path).predict(raw)` applies it.
        metadata: anything that JSON can hold, which `load` returns: tuples as lists, scalars of NumPy and JAX as
            Python numbers.
        overwrite: whether to replace an existing file.

    Raises:
        FileNotFoundError: if there is no such folder.
        FileExistsError: if there is a file and `overwrite` is false.
        NetError: if the trees are not nested dicts of such arrays, a name is empty or contains `/`, JSON can't hold
            the metadata (including NaN and infinite numbers), the network holds a function or an array that can't be
            written, or the preprocessing a step that is not one of `jn.data`.

    >>> import tempfile, jax, jax.numpy as jnp, jaxnets as jn
    >>> file, net = tempfile.mkdtemp() + "/net.safetensors", jn.serial(fc=jn.dense(2), act=jax.nn.relu)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> save(file, (params, state), net=net, metadata={"epochs": 3})
    >>> saved = load(file)
    >>> saved.net == net, saved.params["fc"]["kernel"].shape, saved.state, saved.metadata
    (True, (3, 2), {}, {'epochs': 3})
    """
    to_bytes = require("safetensors.numpy", "experiments").save
    if not isinstance(path, str | Path):
        raise NetError(f"expects a path first, then a train state or a pair (params, state), got {shown(path)}")
    if not (path := Path(path).expanduser()).parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent}; create it first")
    params, state = variables(state)
    if not isinstance(params, Mapping):
        hint = "; pass the train state itself" if hasattr(params, "params") else ""
        hint = "; pass those that net.init returned" if isinstance(params, Net) else hint
        raise NetError(f"expects parameters in nested dicts, got {shown(params)}{hint}")
    tensors: Tensors = {}
    if not isinstance(metadata, Mapping | None):
        raise NetError(f"expects metadata as a dict, got {type(metadata).__name__}")
    header: dict[str, Any] = {"format": FORMAT, "metadata": _plain(metadata or {}, "metadata")}
    header |= {"empty": [], "dtypes": {}, "keys": {}}
    if net is not None:
        header["net"] = nets.write(net)
    for kind, tree in (("params", params), ("state", state or {})):
        _flatten(kind, tree, tensors, header)
    if preprocess is not None:
        if not callable(preprocess):
            hint = "; jn.data.Preprocess holds several steps"
            raise NetError(f"expects a function of raw examples for preprocess, got {shown(preprocess)}{hint}")
        header["preprocess"] = steps.write(preprocess, lambda name, leaf: _flatten(name, leaf, tensors, header))
    header["sha256"] = digest(header, tensors)
    # A single entry: safetensors writes several in random order, and equal networks should produce equal files.
    content = to_bytes(tensors, {"jaxnets": json.dumps(header)})
    if int.from_bytes(content[:8], "little") > _MAX_HEADER:
        raise NetError(f"expects names and metadata of at most {_MAX_HEADER:,} bytes, got more")
    with new_file(path, overwrite=overwrite) as file:
        file.write(content)


def load(path: str | Path) -> Saved:
    """Read a file that `save` wrote: `(params, state, metadata, net)`, with the dtypes and values saved.

    The network and its preprocessing, `load(path).preprocess`, are built by the library's constructors, looked up in
    fixed tables: nothing in a file is imported or run.
    Arrays of a dtype that JAX can't hold (such as `int64` and `float64`, unless `jax_enable_x64` is set) are NumPy
    arrays.

    Args:
        path: the file. `~` is the user's home.

    Raises:
        FileNotFoundError: if there is no such file.
        NetError: if the file is truncated, corrupt (even in a single bit), or not written by `save`.

    Warns:
        UserWarning: with the names of arrays that hold NaN or infinite numbers.

    >>> import tempfile, jax.numpy as jnp
    >>> file = tempfile.mkdtemp() + "/net.safetensors"
    >>> save(file, ({"bias": jnp.ones(2)}, {"mean": jnp.zeros(2)}))
    >>> params, state, metadata, net = load(file)
    >>> sorted(params), sorted(state), metadata, net
    (['bias'], ['mean'], {}, None)
    """
    path = Path(path).expanduser()
    label = f"load {path}"
    if not path.is_file():
        hint = ", but a folder; jn.train.load_checkpoint reads a folder of checkpoints" if path.is_dir() else ""
        raise FileNotFoundError(f"no file {path}{hint}")
    try:
        tensors, entries = read_safetensors(path)
        header = json.loads(entries.get("jaxnets", "{}"))
        if header.get("format") != FORMAT:
            raise NetError(f"expects a file of format {FORMAT}, got {header.get('format')!r}")
        metadata = dict(header["metadata"])
        if header.pop("sha256") != digest(header, tensors):
            raise NetError("finds a damaged file: its content has another SHA-256 than was saved; download it again")
        trees: dict[str, Any] = {"params": {}, "state": {}}
        arrays = {name: _restored(name, array, header) for name, array in tensors.items()}
        preprocess = steps.read(header["preprocess"], arrays) if "preprocess" in header else None
        for name, array in arrays.items():
            *inner, leaf = name.split("/")
            if preprocess is None or inner[0] != "preprocess":
                _place(trees, inner, name)[leaf] = array
        for name in header.get("empty", []):
            _place(trees, name.split("/"), name)
        net = nets.read(header["net"]) if "net" in header else None
    except NetError as error:
        raise NetError(error.message, label=label) from None
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise NetError(f"expects a header that save wrote, got another: {error!r}", label=label) from error
    warn_of_nonfinite(paths(trees).items(), label, stacklevel=3)
    saved = Saved(trees["params"], trees["state"], metadata, net)
    saved.preprocess = preprocess
    return saved


def _flatten(path: str, tree: Any, into: Tensors, header: dict[str, Any]) -> None:
    """Add the arrays of a tree by path, and add to the header what safetensors can't express."""
    if not isinstance(tree, Mapping):
        into[path] = _array(path, tree, header)
        return
    if not tree and "/" in path:
        header["empty"].append(path)
    for name, child in tree.items():
        # Half of a surrogate pair is not text.
        if not isinstance(name, str) or not name or "/" in name or not name.encode(errors="ignore").decode() == name:
            raise NetError(f"expects names without '/', got {name!r} at {path}")
        _flatten(f"{path}/{name}", child, into, header)


def _array(path: str, leaf: Any, header: dict[str, Any]) -> np.ndarray:
    """Return an array in a dtype of safetensors: a key as its data, other dtypes as int8 or bytes."""
    if not hasattr(leaf, "dtype") or is_traced(leaf):
        hint = "; call save outside of jit" if is_traced(leaf) else "; convert it by jnp.asarray"
        raise NetError(f"expects arrays in nested dicts, got {type(leaf).__name__} at {path}{hint}")
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        header["keys"][path] = jax.random.key_impl(leaf)
        if not isinstance(header["keys"][path], str):
            raise NetError(f"expects keys of JAX's own generators, got {leaf.dtype} at {path}")
        leaf = jax.random.key_data(leaf)
    # Contiguous and in native byte order, even if the leaf is a view.
    array = np.asarray(leaf, order="C")
    array = array.astype(array.dtype.newbyteorder("=")) if array.dtype.byteorder == ">" else array
    name = array.dtype.name
    if name in DTYPES.values():
        return array
    if not hasattr(jnp, name) or not jnp.issubdtype(array.dtype, np.number):
        raise NetError(f"expects booleans, numbers or keys, got {name} at {path}")
    header["dtypes"][path] = name
    if jnp.issubdtype(array.dtype, np.integer):
        # Integers of 2 or 4 bits occupy a byte each, whose other bits are undefined.
        return array.astype(np.int8 if jnp.issubdtype(array.dtype, np.signedinteger) else np.uint8)
    return np.frombuffer(array.tobytes(), np.uint8).reshape(*array.shape, array.itemsize)


def _restored(name: str, array: np.ndarray, header: Mapping[str, Any]) -> Any:
    """Return an array as it was passed to `save`."""
    if name in header.get("dtypes", {}):
        dtype = jnp.dtype(header["dtypes"][name])
        is_small_int = jnp.issubdtype(dtype, np.integer)
        array = array.astype(dtype) if is_small_int else np.frombuffer(array.tobytes(), dtype).reshape(array.shape[:-1])
    if name in header.get("keys", {}):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=header["keys"][name])
    supported = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
    return jnp.asarray(array) if supported else array


def _place(trees: dict[str, Any], names: list[str], name: str) -> dict[str, Any]:
    """Return the dict at a path, created if missing."""
    if not names or names[0] not in trees:
        raise NetError(f"expects tensors of params or state, got {name!r}")
    place: Any = trees
    for each in names:
        place = place.setdefault(each, {})
        if not isinstance(place, dict):
            raise NetError(f"finds a tensor {name!r} inside another")
    return place


def digest(header: Mapping[str, Any], tensors: Tensors) -> str:
    """Return the SHA-256 of the header and all tensors with their names, dtypes and shapes."""
    whole = hashlib.sha256(json.dumps(header).encode())
    for name, array in sorted(tensors.items()):
        whole.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        whole.update(array.reshape(-1).view(np.uint8).data)
    return whole.hexdigest()


def _plain(value: Any, path: str, depth: int = 0) -> Any:
    """Return metadata as JSON values.

    Raises:
        NetError: for a value that JSON can't hold, with its path.
    """
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not is_traced(value) and value.ndim == 0:
        value = value.item()
    if depth > _MAX_DEPTH:
        raise NetError(f"expects metadata of at most {_MAX_DEPTH} levels, got more at {path[:40]}…")
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise NetError(f"expects strings as names in JSON, got {wrong[0]!r} at {path}")
        return {name: _plain(each, f"{path}/{name}", depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}/{k}", depth + 1) for k, each in enumerate(value)]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    hint = "; put arrays into params or state, or convert them by .tolist()" if hasattr(value, "shape") else ""
    raise NetError(f"expects a value that JSON can hold, got {type(value).__name__} {value!r} at {path}{hint}")
