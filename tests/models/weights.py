"""The same weights here and in PyTorch: drawn by NumPy from a fixed seed, and renamed by rule.

PyTorch's `layer1.0.conv1.weight` is our `layer1/0/conv1/kernel`. Gradients and momenta convert as weights do.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxnets import Net
from jaxnets.core import paths
from tests.oracle import floats

Tensors = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, int, int]]  # of the image before a flatten, (height, width, channels)

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def draw(net: Net, x: Any) -> tuple[dict, dict]:
    """Return parameters and state that keep the size of what runs through: kernels by He's rule, statistics near 0, 1.

    A leaf's numbers follow from its path and shape alone.
    """
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    return _nest({path: _draw(path, leaf.shape) for path, leaf in paths.paths(params).items()}), _nest(
        {path: _draw(path, leaf.shape) for path, leaf in paths.paths(state).items()}
    )


def to_torch(params: Any, state: Any = {}, *, flattened: Shapes = {}) -> Tensors:  # noqa: B006  # only read
    """Return a state dict in PyTorch's names and layouts, without the counts of batches.

    Args:
        params: our parameters, or gradients of their structure.
        state: our state.
        flattened: for each dense layer right behind a flatten, by path, the shape that was flattened: PyTorch's
            images have their channels first.
    """
    tensors = {}
    for path, leaf in (paths.paths(params) | paths.paths(state)).items():
        module, _, name = path.rpartition("/")
        value = np.asarray(leaf)
        if module.endswith("layer_scale"):  # torchvision has it in the block itself
            tensors[module.replace("/", ".")] = value[:, None, None]
            continue
        if name == "kernel":
            if module in flattened:
                value = value.reshape(*flattened[module], -1).transpose(2, 0, 1, 3).reshape(value.shape)
            value = np.moveaxis(value, (-1, -2), (0, 1))  # (*window, in, out) to (out, in, *window)
        tensors[f"{module}.{_LEAVES[name]}".lstrip(".").replace("/", ".")] = np.ascontiguousarray(value)
    return tensors


def from_torch(tensors: Mapping[str, Any], *, flattened: Shapes = {}) -> tuple[dict, dict]:  # noqa: B006  # only read
    """Return parameters and state from a state dict, or from gradients by name: the inverse of `to_torch`."""
    params, state = {}, {}
    for key, tensor in tensors.items():
        module, _, name = key.replace(".", "/").rpartition("/")
        value = np.asarray(tensor)
        if name in ("running_mean", "running_var"):
            state[f"{module}/{name.removeprefix('running_')}"] = value
        elif name == "weight" and value.ndim > 1:
            value = np.moveaxis(value, (0, 1), (-1, -2))
            if module in flattened:
                height, width, channels = flattened[module]
                value = value.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(value.shape)
            params[f"{module}/kernel"] = value
        elif name == "layer_scale":
            params[f"{module}/layer_scale/scale"] = value[:, 0, 0]
        elif name != "num_batches_tracked":
            params[f"{module}/{'scale' if name == 'weight' else name}"] = value
    return _nest(params), _nest(state)


def digest(tree: Any) -> np.ndarray:
    """Return a few numbers a leaf, in the order of paths: its projections on fixed random vectors, over their length.

    Gradients are compared through it with a peer's, where storing them whole would take megabytes.
    """
    rows = []
    for path, leaf in sorted(paths.paths(tree).items()):
        flat = np.asarray(leaf, np.float64).ravel()
        rows.append(floats(3, flat.size, seed=zlib.crc32(path.encode())) @ flat / math.sqrt(flat.size))
    return np.stack(rows)


def _draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    numbers = floats(*shape, seed=zlib.crc32(path.encode()))
    name = path.rpartition("/")[2]
    if name == "kernel":
        return numbers * np.float32(math.sqrt(2 / math.prod(shape[:-1])))
    if name == "var":
        return np.exp(np.float32(0.2) * numbers)
    return np.float32(0.1) * numbers + np.float32(name == "scale")


def _nest(leaves: Mapping[str, Any]) -> dict:
    tree: dict = {}
    for path, leaf in leaves.items():
        *inside, name = path.split("/")
        node = tree
        for each in inside:
            node = node.setdefault(each, {})
        node[name] = leaf
    return tree
