"""Weights from Keras 3: a model, a `.keras` file or a `.weights.h5` file, which are read without Keras."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from jaxnets.core.errors import labeled_as
from jaxnets.core.net import Key, Net, Params, State
from jaxnets.core.padded import Padded
from jaxnets.core.paths import Pattern
from jaxnets.interop.in_order import Network, Theirs
from jaxnets.interop.keras_files import read_layers
from jaxnets.interop.keras_layers import NAMES, arrays
from jaxnets.interop.matching import activations, match, unweighted
from jaxnets.interop.settings import compare
from jaxnets.interop.spec import Skeleton
from jaxnets.interop.tensors import shortened, warn_of_nonfinite
from jaxnets.interop.torch_names import slashed


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
        UserWarning: with the names of layers that hold NaN or infinite numbers; for a model that masks padding, if `x`
            is no `Padded`; for layers without weights that are not compared, such as `Rescaling` or `Subtract`.

    >>> import h5py, jax.numpy as jnp, numpy as np, jaxnets as jn, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.weights.h5"
    >>> with h5py.File(path, "w") as file:  # as keras.Sequential([layers.Dense(3)]).save_weights(path) does
    ...     file["layers/dense/vars/0"] = np.ones((4, 3), np.float32)
    ...     file["layers/dense/vars/1"] = np.zeros(3, np.float32)
    >>> params, state = from_keras(jn.serial(fc=jn.dense(3)), path, jnp.ones((1, 4)))
    >>> params["fc"]["kernel"].shape
    (4, 3)
    """
    reader = read_layers(source)
    if reader.masking and not any(map(_is_padded, jax.tree.leaves(x, is_leaf=_is_padded))):
        text = "from_keras: the model masks padding (Masking or mask_zero=True), and here x is no jn.Padded"
        warnings.warn(f"{text}: layers over time, such as recurrent ones, take padding for steps", stacklevel=3)
    if reader.unread:
        text = f"from_keras: does not compare {shortened(reader.unread)}, which have no weights"
        warnings.warn(f"{text}: check that the network does the same", stacklevel=3)
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


def _is_padded(x: Any) -> bool:
    return isinstance(x, Padded)


def _of_kind(layer: Theirs, kind: str) -> Theirs:
    """Read a layer of a class of one's own as one of a kind."""
    name = next((name for name, (own, _) in NAMES.items() if own == kind and not name.startswith("Depth")), None)
    if name is None:
        return layer
    return replace(layer, kind=kind, arrays=arrays(name, list(layer.arrays.values()), None))
