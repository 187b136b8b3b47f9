"""Reading of named tensors from a mapping, a module, a safetensors file or a PyTorch file."""

import json
import warnings
import zipfile
from collections.abc import Container, Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, require

Tensors = dict[str, np.ndarray]

# The prefix that DataParallel adds to every name.
_MODULE = "module"
# Names that torch.compile, FSDP and checkpoint_wrapper insert where they wrap a part of the network.
_RESERVED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""NumPy's names of dtypes by those of safetensors."""


def read_tensors(source: Any) -> Tensors:
    """Return the tensors of a state dict, a module or a file, by name.

    Raises:
        FileNotFoundError: if there is no such file.
        NetError: for a file that is truncated, corrupt or holds code, a PyTorch file without PyTorch installed, or a
            source without named tensors.
    """
    if isinstance(source, str | Path):
        named = _from_file(Path(source).expanduser())
    else:
        named = source.state_dict() if hasattr(source, "state_dict") else source
    if not isinstance(named, Mapping):
        raise NetError(f"expects tensors by name or a path, got {type(named).__name__}")
    if inner := [f"{name!r}" for name, value in named.items() if isinstance(value, Mapping)]:
        hint = f"pass one of the dicts inside: {', '.join(inner)}"
        raise NetError(f"expects tensors by name, got nested dicts; {hint}")
    return {name: _array(name, value) for name, value in named.items()}


def without_wrappers(named: Iterable[tuple[str, Any]], own: Container[str]) -> list[tuple[str, Any]]:
    """Return tensors or modules without the names that PyTorch's wrappers insert, nested in any order.

    `_orig_mod`, `_fsdp_wrapped_module` and `_checkpoint_wrapped_module` are dropped anywhere; `module` is dropped as a
    prefix of all names. Names of the network's `own` children are kept.
    """
    reserved = [name for name in _RESERVED if name not in own]
    # Each name ends with a dot, so that the module named `module` has the prefix `module.` too.
    found = [(".".join(part for part in f"{name}.".split(".") if part not in reserved), each) for name, each in named]
    while _MODULE not in own and (inside := [name for name, _ in found if name.strip(".")]):
        if not all(name.startswith(f"{_MODULE}.") for name in inside):
            break
        found = [(name.removeprefix(f"{_MODULE}."), each) for name, each in found]
    return [(name.removesuffix("."), each) for name, each in found]


def renamed(tensors: Iterable[tuple[str, Any]], rules: Mapping[str, str], separator: str) -> dict[str, Any]:
    """Return tensors renamed: the whole name or a prefix before a separator, by the longest rule that matches.

    Raises:
        NetError: for a rule that matches no name, and for two tensors that get the same name.
    """
    names, used, found = [], set(), {}
    for name, tensor in tensors:
        names.append(name)
        name, old = _new_name(name, rules, separator)
        used.add(old)
        if name in found:
            raise NetError(f"expects one tensor per name, got two of {name!r}; check rename=")
        found[name] = tensor
    if unused := [old for old in rules if old not in used]:
        names = shortened(names)
        raise NetError(f"expects names of tensors in rename=, got {', '.join(unused)}; names are {names}")
    return found


def modules_renamed(modules: Iterable[tuple[str, Any]], rules: Mapping[str, str], separator: str) -> dict[str, Any]:
    """Return modules renamed as `renamed` renames their tensors; a module replaces a wrapper of the same name."""
    return {_new_name(name, rules, separator)[0]: module for name, module in modules}


def _new_name(name: str, rules: Mapping[str, str], separator: str) -> tuple[str, str | None]:
    """Return the new name by the longest rule that matches, and the rule."""
    matching = [old for old in rules if name == old or name.startswith(old + separator)]
    old = max(matching, key=len, default=None)
    return (name, None) if old is None else (rules[old] + name.removeprefix(old), old)


def warn_of_nonfinite(tensors: Iterable[tuple[str, Any]], label: str, *, stacklevel: int = 4) -> None:
    """Warn with the names of the tensors that hold NaN or infinite numbers."""
    found = [
        name
        for name, tensor in tensors
        if jnp.issubdtype(tensor.dtype, jnp.floating) and not np.isfinite(np.asarray(tensor)).all()
    ]
    if found:
        warnings.warn(f"{label}: NaN or infinite numbers in {shortened(found)}", UserWarning, stacklevel=stacklevel)


def shortened(names: list[str], most: int = 24) -> str:
    """Return names joined by commas, with the number of those beyond `most`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors of a safetensors file by name, in its dtypes, and its metadata.

    Raises:
        NetError: for a file that is truncated or corrupt, or an unknown dtype.
    """
    require("safetensors", "experiments")
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        # As bytes: for NumPy, safetensors has neither bfloat16 nor float8.
        entries = sorted(deserialize(path.read_bytes()))
    except SafetensorError as error:
        hint = "; jn.interop.from_torch reads PyTorch files" if zipfile.is_zipfile(path) else ""
        raise NetError(f"expects a complete safetensors file, got {path}: {error}{hint}") from error
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            known = ", ".join(DTYPES)
            raise NetError(f"expects dtypes {known}, got {entry['dtype']} of {name!r} (in {path})")
        tensors[name] = np.frombuffer(entry["data"], jnp.dtype(DTYPES[entry["dtype"]])).reshape(entry["shape"])
    return tensors, metadata


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix == ".json":
        return _from_index(path)
    return read_safetensors(path)[0] if path.suffix == ".safetensors" else _from_torch_file(path)


def _from_index(path: Path) -> Any:
    """Return the tensors of all files that an index lists.

    Raises:
        NetError: for a malformed index, a file that is missing or outside its folder, or tensors other than those
            listed.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = dict.fromkeys(PurePosixPath(file) for file in listed.values())
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        wanted = 'an index {"weight_map": {tensor: file}}'
        raise NetError(f"expects {wanted} in {path}, got another: {error}") from error
    tensors: dict[str, Any] = {}
    for file in files:
        windows = PureWindowsPath(file)
        if windows.anchor or ".." in windows.parts or file.suffix == ".json":
            raise NetError(f"expects files beside the index {path}, got {str(file)!r}")
        if not (path.parent / file).is_file():
            raise NetError(f"expects {str(file)!r} beside the index {path}, got no such file; download all parts")
        part = _from_file(path.parent / file)
        if other := sorted(part.keys() ^ {name for name, place in listed.items() if PurePosixPath(place) == file}):
            raise NetError(f"expects in {str(file)!r} what {path} lists, got other tensors: {shortened(other)}")
        tensors |= part
    return tensors


def _from_torch_file(path: Path) -> Any:
    import pickle

    try:
        import torch
    except ImportError as error:
        hint = "install torch, or save the weights as safetensors"
        raise NetError(f"needs PyTorch to read {path}; {hint}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        # The rest of the message advises to load the file unsafely.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise NetError(f"expects a PyTorch file of tensors only, got {path}: {reason}") from error


def _array(name: Any, value: Any) -> np.ndarray:
    """Return an array or a PyTorch tensor as a NumPy array, including bfloat16."""
    if not isinstance(name, str) or not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise NetError(f"expects tensors by name, got {type(value).__name__} for {name!r}")
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    if str(value.dtype) != "torch.bfloat16":
        return value.numpy()
    import torch

    return value.view(torch.int16).numpy().view(jnp.bfloat16)
