"""Parameters and state in one safetensors file: no pickle, nothing half-written, nothing overwritten unasked.

Values come back to the bit. What safetensors has no dtype for is written as bytes, with its dtype in the header, which
also has a SHA-256 of all the rest.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.checks import variables
from jaxnets.core.errors import NetError, is_traced, labeled_as, require, shown
from jaxnets.core.net import Net, Params, State
from jaxnets.core.paths import paths
from jaxnets.interop import nets
from jaxnets.interop.tensors import DTYPES, Tensors, read_safetensors, warn_of_not_finite

FORMAT = "jaxnets/2"
_FORMER = "jaxnets/1"  # had no checksum
_DEEPEST = 100
_LONGEST = 100_000_000  # bytes of a header that safetensors reads


def save(
    path: str | Path,
    state: Any,
    *,
    net: Net | None = None,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write parameters and state into one safetensors file.

    The file appears whole or not at all: it is written beside its place and moved there. Tensors are named by
    their paths, `params/conv1/kernel`, so that any reader of safetensors can use them.

    Args:
        path: the file, `.safetensors` by custom; its folder must exist. `~` is the user's home.
        state: a train state, whose `params` and `state` are written, or a pair `(params, state)`: nested dicts of
            arrays, booleans, numbers of every dtype that JAX has, typed random keys.
        metadata: anything that JSON can hold, given back by `load`: tuples as lists, NumPy's and JAX's scalars as
            Python's.
        net: the network that these belong to, which `load` gives back: it is written as the calls of `jn` that make
            it, so no function of one's own may be in it.
        overwrite: whether a file that is already there may be replaced.

    Raises:
        FileNotFoundError: if there is no such folder.
        FileExistsError: if there is a file and `overwrite` is false.
        NetError: if the trees hold something other than dicts of such arrays, a name is empty or contains `/`, or
            metadata are not for JSON, NaN and infinite numbers among them, or the network holds a function or an
            array that can't be written.

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
        raise NetError(
            f"expects a path first, then a train state or a pair (params, state), got {shown(path)}", label="save"
        )
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}; make it first")
    with labeled_as("save"):
        params, state = variables(state)
    if not isinstance(params, Mapping):
        hint = "; those that net.init returned" if isinstance(params, Net) else ""
        raise NetError(f"expects parameters in nested dicts, got {shown(params)}{hint}", label="save")
    tensors: Tensors = {}
    if not isinstance(metadata, Mapping | None):
        raise NetError(f"expects metadata as a dict, got {type(metadata).__name__}", label="save")
    header: dict[str, Any] = {"format": FORMAT, "metadata": _plain(metadata or {}, "metadata")}
    header |= {"empty": [], "dtypes": {}, "keys": {}}
    if net is not None:
        header["net"] = nets.write(net)
    for kind, tree in (("params", params), ("state", state or {})):
        _flatten(kind, tree, tensors, header)
    header["sha256"] = _digest(header, tensors)
    # One entry alone: safetensors writes several in random order, and equal networks should give equal files.
    content = to_bytes(tensors, {"jaxnets": json.dumps(header)})
    if int.from_bytes(content[:8], "little") > _LONGEST:
        raise NetError(f"expects names and metadata of at most {_LONGEST:,} bytes, got more", label="save")
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
            _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Saved(NamedTuple):
    """What a file of `save` holds.

    Attributes:
        params: the parameters.
        state: the state, `{}` if none was saved.
        metadata: what was saved with them.
        net: the network, `None` if none was saved.
    """

    params: Params
    state: State
    metadata: dict[str, Any]
    net: Net | None


def load(path: str | Path) -> Saved:
    """Read what `save` wrote: `(params, state, metadata, net)`, with the dtypes and values it was given.

    A network is made anew by the library's own constructors, which are looked up in a fixed table: nothing in a file
    is imported or run. Arrays of a dtype that JAX does not hold at present (`int64`, `float64` and such, unless
    `jax_enable_x64` is set) are NumPy's.

    Args:
        path: the file. `~` is the user's home.

    Raises:
        FileNotFoundError: if there is no such file.
        NetError: if the file is truncated, corrupt to a single bit, or not one that `save` wrote.

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
        hint = ", but a folder; jn.train.load_checkpoint reads one of checkpoints" if path.is_dir() else ""
        raise FileNotFoundError(f"there is no file {path}{hint}")
    tensors, entries = read_safetensors(path, label)
    try:
        header = json.loads(entries.get("jaxnets", "{}"))
        if header.get("format") not in (FORMAT, _FORMER):
            raise NetError(f"expects a file of format {FORMAT}, got {header.get('format')!r}")
        metadata = dict(header["metadata"])
        if header["format"] == FORMAT and header.pop("sha256") != _digest(header, tensors):
            raise NetError("finds a damaged file: what it holds has another SHA-256 than what was saved; fetch it anew")
        trees: dict[str, Any] = {"params": {}, "state": {}}
        for name, array in tensors.items():
            *inner, leaf = name.split("/")
            _place(trees, inner, name)[leaf] = _restored(name, array, header)
        for name in header.get("empty", []):
            _place(trees, name.split("/"), name)
        net = nets.read(header["net"]) if "net" in header else None
    except NetError as error:
        raise NetError(error.message, label=label) from None
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise NetError(f"finds a header that save did not write: {error!r}", label=label) from error
    warn_of_not_finite(paths(trees).items(), label)
    return Saved(trees["params"], trees["state"], metadata, net)


def _move(temporary: Path, path: Path) -> None:
    """Give a file another name, unless there has appeared one of that name meanwhile.

    Raises:
        FileExistsError: if there has.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # exFAT, and some network drives, have no hard links
        path.touch(exist_ok=False)  # no other can take the name any more
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink()
            raise


def _flatten(path: str, tree: Any, into: Tensors, header: dict[str, Any]) -> None:
    """Enter the arrays of a tree by path, and in the header what safetensors does not say of them."""
    if not isinstance(tree, Mapping):
        into[path] = _array(path, tree, header)
        return
    if not tree and "/" in path:
        header["empty"].append(path)
    for name, child in tree.items():
        if not isinstance(name, str) or not name or "/" in name or not _is_text(name):
            raise NetError(f"expects names without '/', got {name!r} at {path}", label="save")
        _flatten(f"{path}/{name}", child, into, header)


def _array(path: str, leaf: Any, header: dict[str, Any]) -> np.ndarray:
    """Return an array in one of safetensors' dtypes: a key as its data, what has no dtype there as bytes or int8."""
    if not hasattr(leaf, "dtype") or is_traced(leaf):
        hint = "; call it outside of jit" if is_traced(leaf) else "; jnp.asarray(...) makes one"
        raise NetError(f"expects arrays in nested dicts, got {type(leaf).__name__} at {path}{hint}", label="save")
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        header["keys"][path] = jax.random.key_impl(leaf)
        if not isinstance(header["keys"][path], str):
            raise NetError(f"expects keys of JAX's own kinds, got {leaf.dtype} at {path}", label="save")
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf, order="C")  # also where it is transposed, or a view
    array = array.astype(array.dtype.newbyteorder("=")) if array.dtype.byteorder == ">" else array
    name = array.dtype.name
    if name in DTYPES.values():
        return array
    if not hasattr(jnp, name) or not jnp.issubdtype(array.dtype, np.number):
        raise NetError(f"expects booleans, numbers or keys, got {name} at {path}", label="save")
    header["dtypes"][path] = name
    if jnp.issubdtype(array.dtype, np.integer):  # of 2 or 4 bits, in a byte each, whose other bits mean nothing
        return array.astype(np.int8 if jnp.issubdtype(array.dtype, np.signedinteger) else np.uint8)
    return np.frombuffer(array.tobytes(), np.uint8).reshape(*array.shape, array.itemsize)


def _restored(name: str, array: np.ndarray, header: Mapping[str, Any]) -> Any:
    """Return an array as it was given to `save`."""
    if name in header.get("dtypes", {}):
        dtype = jnp.dtype(header["dtypes"][name])
        small = jnp.issubdtype(dtype, np.integer)
        array = array.astype(dtype) if small else np.frombuffer(array.tobytes(), dtype).reshape(array.shape[:-1])
    if name in header.get("keys", {}):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=header["keys"][name])
    held = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
    return jnp.asarray(array) if held else array


def _place(trees: dict[str, Any], names: list[str], name: str) -> dict[str, Any]:
    """Return the dict at a path, made if need be."""
    if not names or names[0] not in trees:
        raise NetError(f"finds a tensor {name!r} that is neither params nor state")
    place: Any = trees
    for each in names:
        place = place.setdefault(each, {})
        if not isinstance(place, dict):
            raise NetError(f"finds a tensor {name!r} inside another")
    return place


def _digest(header: Mapping[str, Any], tensors: Tensors) -> str:
    """Return the SHA-256 of a header and of all tensors with their names, dtypes and shapes."""
    whole = hashlib.sha256(json.dumps(header).encode())
    for name, array in sorted(tensors.items()):
        whole.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        whole.update(array.reshape(-1).view(np.uint8).data)
    return whole.hexdigest()


def _plain(value: Any, path: str, depth: int = 0) -> Any:
    """Return metadata as JSON holds them.

    Raises:
        NetError: for what it does not hold, with its place.
    """
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not is_traced(value) and value.ndim == 0:
        value = value.item()
    if depth > _DEEPEST:
        raise NetError(f"expects metadata no deeper than {_DEEPEST} levels, got more at {path[:40]}…", label="save")
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise NetError(f"expects text for names in JSON, got {wrong[0]!r} at {path}", label="save")
        return {name: _plain(each, f"{path}/{name}", depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}/{k}", depth + 1) for k, each in enumerate(value)]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    hint = "; arrays belong into params or state, or go through .tolist()" if hasattr(value, "shape") else ""
    raise NetError(f"expects what JSON can hold, got {type(value).__name__} {value!r} at {path}{hint}", label="save")


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
