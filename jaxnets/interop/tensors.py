"""Named tensors from wherever weights are kept: a mapping, a safetensors file, a PyTorch file."""

import warnings
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnets.errors import NetError, require

Tensors = dict[str, np.ndarray]

_WRAPPERS = ("module", "_orig_mod")  # of DataParallel and of torch.compile


def read_tensors(source: Any, label: str) -> Tensors:
    """Return the tensors of a state dict, of a module that has one, or of a file, by name.

    Raises:
        FileNotFoundError: if there is no such file.
        NetError: for a file that is truncated, corrupt or holds code, without PyTorch for one of its files, or for
            something that holds no tensors by name.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        named = _from_safetensors(path, label) if path.suffix == ".safetensors" else _from_torch_file(path, label)
    else:
        named = source.state_dict() if hasattr(source, "state_dict") else source
    if not isinstance(named, Mapping):
        raise NetError(f"expects tensors by name or a path, got {type(named).__name__}", label=label)
    if inner := [f"{name!r}" for name, value in named.items() if isinstance(value, Mapping)]:
        raise NetError(f"expects tensors by name, got dicts: pass the one inside, of {', '.join(inner)}", label=label)
    return {name: _array(name, value, label) for name, value in named.items()}


def without_wrappers(tensors: Tensors, names: Container[str]) -> Tensors:
    """Return tensors without the `module.` or `_orig_mod.` that all of them begin with, but for a net's own name."""
    for wrapper in _WRAPPERS:
        if wrapper not in names and all(name.startswith(f"{wrapper}.") for name in tensors):
            tensors = {name.removeprefix(f"{wrapper}."): tensor for name, tensor in tensors.items()}
    return tensors


def renamed(tensors: Mapping[str, Any], rules: Mapping[str, str], separator: str, label: str) -> dict[str, Any]:
    """Return tensors under other names: whole or up to a separator, by the longest rule that fits.

    Raises:
        NetError: for a rule that fits no name, and for two tensors that get one name.
    """
    used, found = set(), {}
    for name, tensor in tensors.items():
        if fitting := [old for old in rules if name == old or name.startswith(old + separator)]:
            old = max(fitting, key=len)
            used.add(old)
            name = rules[old] + name.removeprefix(old)
        if name in found:
            raise NetError(f"has two tensors for the name {name!r}; mend rename=", label=label)
        found[name] = tensor
    if idle := [old for old in rules if old not in used]:
        mend = f"there are: {shortened(list(tensors))}"
        raise NetError(f"finds nothing of the name {', '.join(idle)} in rename=; {mend}", label=label)
    return found


def warn_of_not_finite(tensors: Iterable[tuple[str, Any]], label: str) -> None:
    """Warn with the names of the tensors that hold NaN or an infinity."""
    found = [
        name
        for name, tensor in tensors
        if jnp.issubdtype(tensor.dtype, jnp.floating) and not np.isfinite(np.asarray(tensor)).all()
    ]
    if found:
        warnings.warn(f"{label}: NaN or infinite numbers in {shortened(found)}", UserWarning, stacklevel=3)


def shortened(names: list[str], most: int = 24) -> str:
    """Return names as one text, those beyond `most` as a number."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _from_safetensors(path: Path, label: str) -> Tensors:
    require("safetensors", "experiments")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file is no dict)
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise NetError(f"finds no whole safetensors file {path}: {error}", label=label) from error


def _from_torch_file(path: Path, label: str) -> Any:
    import pickle

    try:
        import torch
    except ImportError as error:
        mend = "install torch, or save the weights as safetensors"
        raise NetError(f"needs PyTorch to read {path}: {mend}", label=label) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]  # what follows is advice to load it unsafely
        raise NetError(f"finds no PyTorch file with tensors alone in {path}: {reason}", label=label) from error


def _array(name: Any, value: Any, label: str) -> np.ndarray:
    """Return an array or a PyTorch tensor as a NumPy array, bfloat16 too."""
    if not isinstance(name, str) or not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise NetError(f"expects tensors by name, got {type(value).__name__} for {name!r}", label=label)
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    if str(value.dtype) != "torch.bfloat16":
        return value.numpy()
    import torch

    return value.view(torch.int16).numpy().view(jnp.bfloat16)
