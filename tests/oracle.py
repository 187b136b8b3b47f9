"""Outside witnesses: PyTorch where it is installed, and the arrays it gave where it is not.

`JAXNETS_UPDATE=1 pytest tests` writes what PyTorch gives, and the golden trees, anew.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

HERE = Path(__file__).parent
UPDATE = os.environ.get("JAXNETS_UPDATE") == "1"
TORCH = importlib.util.find_spec("torch") is not None


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Return normal float32 numbers, the same in every run and on every machine."""
    return (scale * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(np.float32)


def integers(*shape: int, high: int, low: int = 0, seed: int = 0) -> np.ndarray:
    """Return int32 numbers in [low, high), the same in every run and on every machine."""
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(np.int32)


def normal_like(tree: Any, *, seed: int = 0, scale: float = 1.0, dtype: Any = np.float32) -> Any:
    """Return normal numbers in the structure and the shapes of a tree of arrays or specs."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [floats(*leaf.shape, seed=seed + place, scale=scale).astype(dtype) for place, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def variables(net: Any, x: Any, *, seed: int = 0, scale: float = 1.0) -> Any:
    """Return what `init` of a net or a cell would, but of normal float32 numbers: nothing is compiled for them."""
    shapes = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)), x)
    return normal_like(shapes, seed=seed, scale=scale)


def witness(
    name: str, compute: Callable[[], Mapping[str, np.ndarray]], *, installed: bool = TORCH
) -> dict[str, np.ndarray]:
    """Return what PyTorch says: live where it (or the peer asked) is installed, else as committed in `oracles/`.

    Live values are checked against the committed ones, so that these can't go stale. `compute` imports torch
    itself and returns NumPy arrays.
    """
    file = HERE / "oracles" / f"{name}.npz"
    if not installed:
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    live = {key: np.asarray(value) for key, value in compute().items()}
    if UPDATE:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, allow_pickle=False, **live)
    with np.load(file, allow_pickle=False) as stored:
        assert set(stored) == set(live), f"{name}: write the witness anew with JAXNETS_UPDATE=1"
        for key, value in live.items():
            # Among large values a small one may be what is left of a sum: by its own size it differs between machines.
            atol = 1e-5 * max(1.0, float(np.max(np.abs(value), initial=0.0, where=np.isfinite(value))))
            np.testing.assert_allclose(stored[key], value, rtol=1e-4, atol=atol, err_msg=f"{name}: {key}")
    return live


def golden(name: str, text: str) -> None:
    """Assert that a text equals the committed `golden/<name>.txt`."""
    file = HERE / "golden" / f"{name}.txt"
    if UPDATE:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.is_file(), f"no {file.name}: write it with JAXNETS_UPDATE=1"
    assert text == file.read_text(), f"{name}: the tree changed; if meant, write it anew with JAXNETS_UPDATE=1"
